"""SIGSTOP: whoever is stopped still has its connections, and answers nobody."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest

from opsmesh.router import paths, spool, supervise
from tests.faults.checks import check, rest
from tests.faults.load import load
from tests.faults.meshes import COMPONENTS, Mesh
from tests.faults.sizes import SLOW_SIZES
from tests.faults.sockets import small_sockets
from tests.router.agent_process import Connection, until

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


@pytest.mark.slow
def test_everything_ends_beside_a_broker_that_hangs(fault: Mesh) -> None:
    """While a broker hangs whose socket takes no more, the agent spools, and it, the sink and the
    handlers end before their supervisor would kill them."""
    with small_sockets():
        fault.start_all()
        Connection().ask(_event(0))
        until(lambda: fault.effects.stat().st_size)
        with fault.paused("broker"):
            floods = [threading.Thread(target=_flood, daemon=True) for _ in range(4)]
            for flood in floods:
                flood.start()
            until(lambda: spool.names(paths.spool_dir()))
            for name in ("handlers", "sink", "agent"):
                process = fault.process(name)
                process.terminate()
                assert process.wait(supervise.STOP_PATIENCE) == 0
        for flood in floods:
            flood.join(20)


def _event(n: int) -> dict[str, Any]:
    return {"topic": "load.test", "source": "flood", "payload": {"n": n, "text": "x" * 8000}}


def _flood() -> None:
    """Events that nobody waits for, until the agent ends."""
    with contextlib.suppress(OSError):
        connection = Connection()
        for n in range(1, 20_000):
            connection.send(_event(n))
