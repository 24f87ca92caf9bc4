"""Which opsmesh this is."""

from __future__ import annotations

import functools
from importlib import metadata


@functools.cache
def version() -> str:
    """The version that is installed, as other hosts are told it."""
    return metadata.version("opsmesh")
