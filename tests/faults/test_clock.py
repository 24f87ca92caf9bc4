"""A wall clock that jumps an hour, forwards and back: nothing is ordered or forgotten by it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from opsmesh.handlers.evidence import reader
from tests.faults.checks import check, rest
from tests.faults.clocks import HOUR, BrokerClock, Clock
from tests.faults.load import load
from tests.faults.meshes import COMPONENTS, Mesh
from tests.faults.sizes import SLOW_SIZES


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_clock_of_everybody_but_the_broker(clock: Clock, fault: Mesh, count: int) -> None:
    """The clocks of producers, agent, sink and handlers jump an hour forwards, two back and one
    forwards, while some events go through the spool: their order is the one of sending."""
    fault.broker.start()
    for serving in [fault.begin(name, env=clock.env) for name in COMPONENTS]:
        serving()
    with load(fault.home, count, env=clock.env) as events:
        for share, jump in ((0.2, HOUR), (0.4, -HOUR), (0.6, 0)):
            events.reached(share)
            fault.kill("broker")
            clock.jump(jump)
            events.more(count // 20)
            fault.restart("broker")
        events.finish()
        rest(fault)
        found = check(fault, events)
    made = [datetime.fromisoformat(e["ts_utc"]) for e in found.events if "boot_id" in e]
    assert max(made) - min(made) > timedelta(seconds=1.9 * HOUR)


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_clock_of_the_broker(broker_time: BrokerClock, fault: Mesh, count: int) -> None:
    """The broker's clock, which decisions are made by, jumps an hour forwards, two back and one
    forwards under load: evidence holds the order of storing, and every event is decided once."""
    fault.start_all()
    with load(fault.home, count) as events:
        for share, jump in ((0.2, HOUR), (0.4, -HOUR), (0.6, 0)):
            events.reached(share)
            broker_time.jump(jump)
        events.finish()
        rest(fault)
        check(fault, events)
    stored = [one.time_us for one in reader.read(fault.evidence)]
    assert max(stored) - min(stored) > 1.9 * HOUR * 10**6
