"""SIGSTOP: whoever is stopped still has its connections, and answers nobody."""

from __future__ import annotations

import time

import pytest

from tests.faults.checks import check, rest
from tests.faults.load import load
from tests.faults.meshes import COMPONENTS, Mesh
from tests.faults.sizes import SLOW_SIZES
from tests.router.agent_process import until

#: Longer than every time-out but one: acknowledgements, requests, missed heartbeats, presence.
STOP = 20.0


def _pass(seconds: float) -> None:
    """Let time go by: here it is the fault itself."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, timeout=seconds + 30)


@pytest.mark.parametrize("count", SLOW_SIZES)
@pytest.mark.parametrize("name", ["broker", *COMPONENTS])
def test_sigstop(fault: Mesh, name: str, count: int) -> None:
    """A component that hangs for longer than others wait for it costs nothing, and what it does
    when it goes on doubles nothing."""
    fault.start_all()
    with load(fault.home, count) as events:
        events.reached(0.3)
        with fault.paused(name):
            _pass(STOP)
        events.finish()
        rest(fault)
        check(fault, events)
