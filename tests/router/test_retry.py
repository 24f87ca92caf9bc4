"""The retry policy is arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.router.retry import Retry, delay_s


@pytest.mark.parametrize(
    ("attempt", "expected"), [(1, 2.0), (2, 4.0), (3, 8.0), (8, 256.0), (9, 300.0), (5000, 300.0)]
)
def test_exponential_backoff_doubles_to_its_limit(attempt: int, expected: float) -> None:
    """Without chance (0.5 is the middle) each delay is twice the one before, up to max."""
    assert delay_s(Retry(), attempt=attempt, chance=0.5) == expected


def test_fixed_backoff_stays() -> None:
    """A fixed policy waits the same time after every attempt."""
    policy = Retry(backoff="fixed", initial_s=3.0, jitter=0.0)
    assert [delay_s(policy, attempt=n, chance=0.9) for n in (1, 2, 9)] == [3.0, 3.0, 3.0]


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_jitter_stays_in_its_bounds(attempt: int, chance: float, jitter: float) -> None:
    """A delay is never negative, never over max, and within jitter of its base."""
    policy = Retry(jitter=jitter)
    base = delay_s(policy, attempt=attempt, chance=0.5)
    delay = delay_s(policy, attempt=attempt, chance=chance)
    assert 0 <= delay <= policy.max_s
    assert abs(delay - base) <= base * jitter + 1e-9
