"""How much a profile may say: so many notices in any minute; the others are counted.

Pure: numbers in, numbers out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Seconds that are looked at.
MINUTE: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Said:
    """When a profile's notices were let through, in seconds of a steady clock, and how many were
    held back since the last of them."""

    times: tuple[float, ...] = ()
    held: int = 0


def admit(said: Said, now: float, *, per_minute: int) -> tuple[Said, int | None]:
    """Whether one more may be said now: how many were held back before it, or None when it is held
    back itself; and what is known then."""
    recent = tuple(at for at in said.times if now - at < MINUTE)
    if len(recent) >= per_minute:
        return Said(times=recent, held=said.held + 1), None
    return Said(times=(*recent, now)), said.held
