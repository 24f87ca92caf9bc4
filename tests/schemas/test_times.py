"""times: RFC 3339 text and microseconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.schemas import times

#: 0001-01-01 and 9999-12-31, in microseconds since the epoch.
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999


@given(st.integers(FIRST, LAST))
def test_round_trip(us: int) -> None:
    """A time written as text is read back to the microsecond."""
    assert times.parse_us(times.format_us(us)) == us


def test_canonical_form() -> None:
    """A time is UTC with six digits of microseconds and a final Z."""
    assert times.format_us(1_795_396_320_000_123) == "2026-11-23T01:12:00.000123Z"


def test_other_zones_are_the_same_moment() -> None:
    """A time with an offset is the same number as in UTC."""
    assert times.parse_us("2026-11-23T02:12:00+01:00") == times.parse_us("2026-11-23T01:12:00Z")


@pytest.mark.parametrize("text", ["2026-11-23T01:12:00", "yesterday", "", "2026-13-01T00:00:00Z"])
def test_no_time(text: str) -> None:
    """A time without an offset, and a text that is no time, are refused."""
    with pytest.raises(ValueError):
        times.parse_us(text)


def test_finer_than_microseconds() -> None:
    """What a server writes in nanoseconds is cut to microseconds, never rounded up."""
    assert times.parse_us("2026-11-25T04:30:42.448405999Z") == times.parse_us(
        "2026-11-25T04:30:42.448405Z"
    )
    assert times.parse_us("2026-11-25T04:30:42.4Z") == times.parse_us("2026-11-25T04:30:42.400000Z")
