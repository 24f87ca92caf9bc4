"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.schemas import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("2m", 120),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("0", 0),
        ("1d", 86400),
    ],
)
def test_a_number_with_a_unit_is_a_duration(text: str, seconds: float) -> None:
    """Each unit has its usual length, and parts add up."""
    assert durations.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "-1s", "s", "1x", "1s junk", "inf", "1e3s", "١s"])
def test_anything_else_is_refused_with_the_text_and_an_example(text: str) -> None:
    """A bare number, a sign, an unknown unit: each is an error that shows what was given."""
    with pytest.raises(durations.DurationError, match="like 90s") as caught:
        durations.parse(text)
    assert caught.value.text == text


@given(st.integers(min_value=0, max_value=10**9))
def test_a_text_of_milliseconds_is_read_back(milliseconds: int) -> None:
    """`parse` reads what `text` writes."""
    seconds = milliseconds / 1000
    assert durations.parse(durations.text(seconds)) == pytest.approx(seconds, abs=1e-3)
