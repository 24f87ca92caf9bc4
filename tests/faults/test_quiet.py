"""No log storm: a broker that is away is one line a component and minute, whatever is under way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.checks import check, rest
from tests.faults.load import load
from tests.faults.meshes import COMPONENTS, PROFILES, Mesh
from tests.faults.sizes import SLOW
from tests.router.agent_process import until

#: Runs that are under way when the broker goes, each of which wants to tell the ledger something.
BUSY = (
    PROFILES
    + """\
  busy:
    on: [load.test]
    where: event.payload.n % 10 == 0
    concurrency: {{limit: 32}}
    retry: {{attempts: 5}}
    actions: [{{command: [sleep, '0.3']}}]
"""
)
#: Seconds without a broker: more than two of the minutes in which one line may be said.
AWAY = 130.0


@contextmanager
def away(mesh: Mesh, how: str) -> Iterator[None]:
    """No broker while the body runs."""
    if how == "stopped":
        with mesh.paused("broker"):
            yield
        return
    mesh.kill("broker")
    yield
    mesh.restart("broker")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_one_line_a_component_and_minute(fault: Mesh, how: str) -> None:
    """While the broker is away under load, with runs under way, no component says more than one
    thing a minute; producers say nothing at all, because the agent takes what they have."""
    fault.profiles(BUSY)
    fault.start_all()
    with load(fault.home, SLOW) as events:
        events.reached(0.3)
        before = {name: len(fault.log(name)) for name in COMPONENTS}
        end = time.monotonic() + AWAY
        with away(fault, how):
            until(lambda: time.monotonic() >= end, timeout=AWAY + 60)
            said = {name: fault.log(name)[before[name] :] for name in COMPONENTS}
        for name, lines in said.items():
            # what was on its way into the log when the broker went
            about = [line for line in lines if line.get("event") not in ("run.succeeded",)]
            assert len(about) <= 1 + AWAY // 60, f"{name}: {about}"
        events.finish()
        assert events.said() == []
        rest(fault)
        check(fault, events)
