"""Values that are given on the command line as `NAME=VALUE`."""

from __future__ import annotations

import json
from typing import Any


def pair(text: str) -> tuple[str, Any] | None:
    """Name and value, which is JSON where it reads as such, and text else; None without a `=`."""
    name, equals, value = text.partition("=")
    if not equals:
        return None
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
