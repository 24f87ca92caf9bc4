"""Times as people write them on the command line."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
import typer

from opsmesh.cli.events import moment
from opsmesh.schemas import times


def test_a_time_of_day_is_the_last_such_time() -> None:
    """`HH:MM` is today, or yesterday when it is still to come, by this machine's clock."""
    now = datetime.now().astimezone().replace(microsecond=0)
    for then in (now - timedelta(minutes=1), now - timedelta(hours=23)):
        assert moment(f"{then:%H:%M:%S}") == round(then.timestamp() * 1e6)
    assert moment(f"{now:%H:%M}") == round(now.replace(second=0).timestamp() * 1e6)


def test_ages_and_times() -> None:
    """An age counts back from now; an RFC 3339 time is itself."""
    assert moment("2026-11-23T09:00:00Z") == 1795424400000000
    before = times.now_us()
    assert before <= (moment("10m") or 0) + 600_000_000 <= times.now_us()
    assert moment(None) is None


@pytest.mark.parametrize("text", ["25:00", "yesterday", "12:99", ""])
def test_anything_else_is_refused(text: str) -> None:
    """What is no time is refused with an example of one."""
    with pytest.raises(typer.BadParameter, match=re.compile("10m|time of a day")):
        moment(text)
