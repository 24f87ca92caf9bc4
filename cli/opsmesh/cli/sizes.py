"""Sizes in bytes, as people read them."""

from __future__ import annotations


def text(size: float) -> str:
    """`512 B`, `1.5 KiB`, `1 GiB`: three digits at most, but for bytes and what is larger than all.

    For people; JSON has the number.
    """
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024 or unit == "TiB":
            break
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
