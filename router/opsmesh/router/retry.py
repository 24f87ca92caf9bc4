"""How long to wait before the next attempt: numbers in, a number out."""

from __future__ import annotations

from typing import Literal

import msgspec


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """A retry policy; times in seconds, `jitter` as a fraction of the delay to either side."""

    attempts: int = 4
    backoff: Literal["exponential", "fixed"] = "exponential"
    initial_s: float = 2.0
    max_s: float = 300.0
    jitter: float = 0.2


def delay_s(policy: Retry, *, attempt: int, chance: float) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 1); `chance` is in [0, 1)."""
    base = policy.initial_s
    if policy.backoff == "exponential":
        base = min(policy.initial_s * 2.0 ** min(attempt - 1, 60), policy.max_s)
    spread = 1 + policy.jitter * (2 * chance - 1)
    return min(max(base * spread, 0.0), policy.max_s)
