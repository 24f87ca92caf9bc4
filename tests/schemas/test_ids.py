"""ids: UUIDv7, random and derived."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.schemas import ids

MS = st.integers(0, 2**48 - 1)


@given(MS)
def test_layout(ms: int) -> None:
    """An id is a UUID of version 7 and the RFC's variant, and holds its time."""
    made = ids.uuid7(ms)
    parsed = uuid.UUID(made)
    assert (str(parsed), parsed.version, parsed.variant) == (made, 7, uuid.RFC_4122)
    assert ids.unix_ms(made) == ms


@given(MS, MS)
def test_order(a: int, b: int) -> None:
    """Ids of different times sort as their times do."""
    assert (ids.uuid7(a) < ids.uuid7(b)) == (a < b) or a == b


@given(MS, st.lists(st.text(), min_size=1))
def test_derived_is_stable(ms: int, parts: list[str]) -> None:
    """The same fact has the same id, and another fact another one."""
    made = ids.derived(ms, *parts)
    assert made == ids.derived(ms, *parts)
    assert made != ids.derived(ms, *parts, "more")
    assert ids.unix_ms(made) == ms


def test_parts_do_not_run_together() -> None:
    """Where one part ends and the next begins makes a difference."""
    assert ids.derived(0, "ab", "c") != ids.derived(0, "a", "bc")


@pytest.mark.parametrize("text", ["", "abc", str(uuid.UUID(int=0)), "z" * 32, "0" * 12 + "7" + "z"])
def test_other_texts_hold_no_time(text: str) -> None:
    """A text that is no UUIDv7 holds no time."""
    assert ids.unix_ms(text) is None
