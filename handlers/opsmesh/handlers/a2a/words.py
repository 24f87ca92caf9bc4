"""What a stranger said, made safe to keep and to show: cut, whole numbers whole, no control codes.

Nothing here knows A2A. The one rule: what comes out is bounded, whatever came in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from opsmesh.schemas import unseen

#: Characters of one text, bytes of one data value, and bytes of everything that is kept.
MAX_TEXT: Final = 16 * 1024
MAX_DATA: Final = 32 * 1024
MAX_ALL: Final = 64 * 1024
#: Things in a list that are looked at.
MAX_ITEMS: Final = 32
#: Whole numbers beyond this have lost digits on their way as doubles.
EXACT: Final = 2**53

_SCHEMA_KEYS: Final = frozenset(
    {
        *("type", "title", "description", "enum", "const", "default", "properties", "required"),
        *("items", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
    }
)
_SCHEMA_DEPTH: Final = 5


def text(value: str, limit: int = MAX_TEXT) -> tuple[str, bool]:
    """The text without control codes, and whether it was cut."""
    clean = unseen.dropped(value[: 2 * limit])
    return clean[:limit], len(clean) > limit or len(value) > 2 * limit


def whole(value: Any) -> Any:
    """The value with doubles that are whole numbers as such: A2A's data has no integers."""
    if isinstance(value, float):
        if math.isfinite(value) and value.is_integer() and abs(value) <= EXACT:
            return int(value)
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


def exact(value: Any) -> Any:
    """The value for a data part: whole numbers that a double cannot hold become text."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        return str(value)
    if isinstance(value, dict):
        return {str(key): exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [exact(item) for item in value]
    return value


def data(value: Any) -> tuple[Any, bool]:
    """The value, or how large it was, and whether it is left out."""
    value = _clean(whole(value))
    size = len(msgspec.json.encode(value))
    return ({"omitted_bytes": size}, True) if size > MAX_DATA else (value, False)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return unseen.dropped(value)
    if isinstance(value, dict):
        return {unseen.dropped(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def raw(value: bytes) -> dict[str, Any]:
    """What is kept of bytes: how many, and their sum."""
    return {"raw_bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}


def fit(items: list[dict[str, Any]], limit: int = MAX_ALL) -> tuple[list[dict[str, Any]], bool]:
    """The first items that fit together, and whether any was left out."""
    kept: list[dict[str, Any]] = []
    left = limit
    for item in items[:MAX_ITEMS]:
        left -= len(msgspec.json.encode(item))
        if left < 0:
            break
        kept.append(item)
    return kept, len(kept) < len(items)


def schema(value: Any, depth: int = 0) -> dict[str, Any] | None:
    """A stranger's JSON Schema with what is plain in it: no references, no patterns that could
    run for ever; None for anything else."""
    if not isinstance(value, Mapping) or depth > _SCHEMA_DEPTH or len(value) > MAX_ITEMS:
        return None
    kept: dict[str, Any] = {key: value[key] for key in value if key in _SCHEMA_KEYS}
    if not isinstance(kept.get("type"), str):
        return None
    if (inner := kept.pop("properties", None)) is not None:
        if not isinstance(inner, Mapping):
            return None
        parts = {str(key): schema(item, depth + 1) for key, item in inner.items()}
        if None in parts.values():
            return None
        kept["properties"] = parts
    if (items := kept.pop("items", None)) is not None:
        if (plain := schema(items, depth + 1)) is None:
            return None
        kept["items"] = plain
    if depth == 0 and len(msgspec.json.encode(kept)) > MAX_TEXT // 2:
        return None
    cleaned = _clean(whole(kept))
    return cleaned if isinstance(cleaned, dict) else None
