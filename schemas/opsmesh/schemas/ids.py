"""Event and run identifiers: UUIDv7 (RFC 9562, section 5.7), so that ids sort by time.

A derived id has the same layout, but its random bits come from SHA-256 over what it stands for:
the same fact read twice gives the same id, and the broker drops the second one.
"""

from __future__ import annotations

import hashlib
import os
import time


def _layout(ms: int, tail: bytes) -> str:
    value = (ms & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(tail[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid7(ms: int | None = None) -> str:
    """A new id; `ms` is Unix time in milliseconds, now unless given."""
    return _layout(time.time_ns() // 1_000_000 if ms is None else ms, os.urandom(10))


def derived(ms: int, *parts: str) -> str:
    """The id of a fact: the same `ms` and `parts` always give the same id."""
    return _layout(ms, hashlib.sha256("\x00".join(parts).encode()).digest())


def unix_ms(uuid: str) -> int | None:
    """The Unix time in milliseconds that a UUIDv7 holds; None for any other text."""
    text = uuid.replace("-", "")
    if len(text) != 32 or text[12] != "7":
        return None
    try:
        return int(text[:12], 16)
    except ValueError:
        return None
