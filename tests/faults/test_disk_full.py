"""A disk that takes no more, and then has room again. See `disks`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.checks import check, rest
from tests.faults.disks import Full
from tests.faults.load import load
from tests.faults.meshes import Mesh
from tests.faults.sizes import SLOW_SIZES

#: KiB of a disk that has room for all of a test.
ROOM = 64 * 1024


@contextmanager
def full(mesh: Mesh, folder: str) -> Iterator[Full]:
    """A disk under this folder of the state, which has room at first."""
    disk = Full(mesh.state / folder, kib=ROOM)
    try:
        yield disk
    finally:
        mesh.end()
        disk.end()


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_full_disk_of_evidence(mounts: None, fault: Mesh, count: int) -> None:
    """The sink waits and says so once; nothing else waits for it, and with room all follows."""
    with full(fault, "evidence") as disk:
        fault.start_all()
        with load(fault.home, count) as events:
            events.reached(0.3)
            with events.paused():
                others = disk.fill()
            events.finish()
            assert len(fault.log("sink", "evidence.not_written")) == 1
            others.unlink()
            rest(fault)
            check(fault, events)


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_full_disk_of_the_spool(mounts: None, fault: Mesh, count: int) -> None:
    """Without a broker and without room nothing is acknowledged: producers wait, and lose nothing;
    with the broker back, a full spool is in nobody's way."""
    with full(fault, "spool") as disk:
        fault.start_all()
        with load(fault.home, count) as events:
            events.reached(0.3)
            with events.paused():
                disk.fill()
                fault.kill("broker")
            events.wait(lambda: any("cannot keep an event" in line for line in events.said()))
            fault.restart("broker")
            events.finish()
            rest(fault)
            check(fault, events)


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_full_disk_of_the_broker(mounts: None, fault: Mesh, count: int) -> None:
    """What the broker cannot keep goes to the spool; the agent says what is wrong, and once there
    is room it has the broker started again, which nats-server needs, and sends everything."""
    with full(fault, "jetstream") as disk:
        fault.up()
        with load(fault.home, count) as events:
            events.reached(0.3)
            with events.paused():
                others = disk.fill()
            events.wait(lambda: bool(fault.log("agent", "broker.cannot_write")))
            events.finish()
            assert list(fault.state.joinpath("spool").glob("*.spool"))
            others.unlink()
            rest(fault)
            check(fault, events)
            (line,) = fault.log("agent", "broker.started_again")
            assert "no space left on device" in line["error"]
