"""Openings of the marks in a redacted value: for each the salt under which its commitment was made.

An opening shows nothing of what was removed; with it, whoever has the original can show that it is
what stood there. Pure: the key is handed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from opsmesh.schemas import commitments
from opsmesh.schemas.commitments import MARK, Place


class Opening(msgspec.Struct, frozen=True):
    """One mark: where it stands, the rule that saw the secret, and what a stranger needs."""

    path: str
    rule: str
    commitment: str
    salt: str


def of(value: Any, key: bytes, *, context: str, path: str = "$") -> Iterator[Opening]:
    """Every mark with a commitment, in its order; one of a value without is passed over."""
    if isinstance(value, str):
        for found in MARK.finditer(value):
            if found["commitment"]:
                made = commitments.salt(key, Place(context, path, int(found["n"] or 0)))
                salt = commitments.text(made)
                yield Opening(path, found["rule"], found["commitment"], salt)
    elif isinstance(value, dict):
        for name, item in value.items():
            if MARK.search(name):
                yield from of(name, key, context=context, path=f"{path}.*")
                yield from of(item, key, context=context, path=f"{path}.*")
            else:
                here = commitments.member(path, name)
                yield from of(item, key, context=context, path=here)
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from of(item, key, context=context, path=f"{path}[{n}]")
