"""The power goes: what was acknowledged is on disk, of whatever component, or was fetched again.

See `disks` for how a power cut is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.faults.checks import check, rest
from tests.faults.disks import Fragile
from tests.faults.load import PRODUCERS, Load, load
from tests.faults.meshes import COMPONENTS, Mesh
from tests.faults.sizes import FAST, SLOW

#: What lies on the disk, and who writes there: they die with the power.
DISKS = {
    "store": ("jetstream", ["broker"]),
    "spool": ("spool", ["agent"]),
    "evidence": ("evidence", ["sink"]),
    "everything": ("", ["broker", *COMPONENTS]),
}
CASES = [
    ("everything", FAST),
    *(pytest.param(disk, SLOW, marks=pytest.mark.slow) for disk in DISKS),
]


@pytest.mark.parametrize(("disk", "count"), CASES)
def test_power_cut(mounts: None, fault: Mesh, disk: str, count: int) -> None:
    """After two power cuts under load, everything that was acknowledged is there, once."""
    folder, victims = DISKS[disk]
    fragile = Fragile(fault.state / folder, fault.home)
    try:
        fault.start_all()
        with load(fault.home, count) as events:
            for share in (0.3, 0.6):
                events.reached(share)
                if disk == "spool":  # without a broker everything goes there
                    fault.kill("broker")
                    events.more(count // 10)
                _cut(fault, fragile, victims, events, producers=disk in ("spool", "everything"))
            events.finish()
            rest(fault)
            check(fault, events)
    finally:
        fault.end()
        fragile.end()


def _cut(
    mesh: Mesh, disk: Fragile, victims: Sequence[str], events: Load, *, producers: bool
) -> None:
    """Cut the power of the disk, and of those who write there; then switch it on again."""
    with events.paused():  # now it is clear what was acknowledged
        mesh.halt(victims)
        image = disk.cut()
        for name in victims:
            mesh.kill(name)
        for which in range(PRODUCERS if producers else 0):
            events.kill(which)
        disk.become(image)
    mesh.restart_all(victims if mesh.broker.process is not None else ["broker", *victims])
    for which in range(PRODUCERS if producers else 0):
        events.restart(which)
