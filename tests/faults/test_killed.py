"""kill -9, as often as one likes, of whatever one likes."""

from __future__ import annotations

import pytest

from tests.faults.checks import check, rest
from tests.faults.load import PRODUCERS, load
from tests.faults.meshes import TOPIC, Mesh
from tests.faults.sizes import SLOW_SIZES

#: How often.
KILLS = 4


@pytest.mark.parametrize("count", SLOW_SIZES)
@pytest.mark.parametrize("name", ["broker", "agent", "sink", "handlers"])
def test_kill_9(fault: Mesh, name: str, count: int) -> None:
    """A component that is killed again and again under load costs nothing, and doubles nothing."""
    fault.start_all()
    with load(fault.home, count) as events:
        for kill in range(1, KILLS + 1):
            events.reached(kill / (KILLS + 2))
            fault.kill(name)
            events.more(count // 20)
            fault.restart(name)
        events.finish()
        rest(fault)
        check(fault, events)


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_kill_9_of_a_producer(fault: Mesh, count: int) -> None:
    """Producers that are killed have lost nothing of what was acknowledged to them, and their
    numbers begin anew with a boot of their own."""
    fault.start_all()
    with load(fault.home, count) as events:
        for which in range(PRODUCERS):
            events.reached((which + 1) / (PRODUCERS + 2))
            events.kill(which)
            events.restart(which)
        events.finish()
        rest(fault)
        found = check(fault, events)
    boots = {event["boot_id"] for event in found.events if event["topic"] == TOPIC}
    # one that had emitted nothing yet when it was killed has left none
    assert PRODUCERS < len(boots) <= 2 * PRODUCERS


@pytest.mark.slow
def test_kill_9_of_everything(fault: Mesh) -> None:
    """Every component is killed, one after the other and then all of them at once."""
    fault.start_all()
    everything = ["broker", "agent", "sink", "handlers"]
    with load(fault.home, 20_000) as events:
        for n, name in enumerate(everything, 1):
            events.reached(n / 8)
            fault.kill(name)
            events.more(200)
            fault.restart(name)
        events.reached(6 / 8)
        for name in everything:
            fault.kill(name)
        events.more(200)  # straight to the spool
        for name in everything:
            fault.restart(name)
        events.finish()
        rest(fault)
        check(fault, events)
