"""The mesh as units of a real systemd (nspawn): boot, crash, hang, reboot, and a shared host's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from opsmesh.handlers.evidence import reader
from tests.conftest import until as wait
from tests.e2e import machines
from tests.e2e.machines import OPSMESH, PYTHON, Disk, Host
from tests.producers.nspawn import machine as nspawn

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nspawn")]

#: Units of the mesh whose process can be killed, or hang.
UNITS = (
    "opsmesh-broker.service",
    "opsmesh-agent.service",
    "opsmesh-handlers.service",
    "opsmesh-sink.service",
    "opsmesh-producer@shell.service",
)
#: Seconds that a start, a crash and its end may take here, two busy cores.
SOON = 60.0
#: A watchdog that does not take half a minute, by the way a user would set it: a drop-in.
IMPATIENT = "[Service]\nWatchdogSec=3s\n"
TOPIC = "test.event.sent"


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """The disk of a machine; the test is skipped, with the reason, where there can be none."""
    if reason := nspawn.missing():
        pytest.skip(reason)
    tmp_path.chmod(0o755)
    (tmp_path / "machine").mkdir()
    return Disk(tmp_path / "machine")


def installed(host: Host) -> None:
    """The units are installed as a user does it, and the mesh is well."""
    host.opsmesh("install", "systemd", "--yes")
    wait(machines.settled(host), timeout=SOON)


def another_process(host: Host, unit: str, before: str) -> bool:
    """Whether a unit runs in another process than before, and is ready."""
    pid = host.unit(unit, "MainPID")
    return pid not in ("0", before) and host.unit(unit) == "active"


def emitting(host: Host) -> None:
    """A load that notes what was acknowledged to it, until the machine ends or it is stopped."""
    host.ada(
        *("systemctl", "--user", "set-environment", "PYTHONPATH=/opt/checkout"),
    )
    unit = Path(host.ada("sh", "-c", "echo ~/.config/systemd/user/emitting.service"))
    text = (
        "[Service]\nExecStart="
        f"{PYTHON} /opt/checkout/tests/e2e/emitting.py {machines.HOME}/acknowledged\n"
    )
    host.ada("sh", "-c", f"printf '%s' '{text}' > {unit}")
    host.ada("systemctl", "--user", "daemon-reload")
    host.ada("systemctl", "--user", "start", "emitting.service")


def acknowledged(disk: Disk) -> list[str]:
    """The ids that the load was told to be safe."""
    return (disk.home / "acknowledged").read_text().splitlines()


def archived(disk: Disk) -> Counter[str]:
    """The ids in evidence."""
    lines = reader.read(disk.state / "evidence")
    return Counter(json.loads(one.data)["id"] for one in lines if one.data)


def grows(disk: Disk) -> Callable[[], bool]:
    """Whether more events are acknowledged than now."""
    before = len(acknowledged(disk))
    return lambda: len(acknowledged(disk)) > before + 10


def test_boot_crash_of_each_and_reboot(disk: Disk) -> None:
    """Units begin at boot, each comes back after kill -9, and no acknowledged event is lost or
    doubled, in the stream and in evidence, a reboot in between included."""
    with machines.booted(disk) as host:
        installed(host)
        emitting(host)
        wait(lambda: (disk.home / "acknowledged").exists(), timeout=SOON)
        for unit in UNITS:
            wait(grows(disk), timeout=SOON)
            before = host.unit(unit, "MainPID")
            host.kill("9", before)
            wait(partial(another_process, host, unit, before), timeout=SOON)
        wait(grows(disk), timeout=SOON)
        wait(machines.settled(host), timeout=SOON)
        failed = Counter(
            event["payload"]["component"] for event in host.events("mesh.component.failed")
        )
        assert failed == {
            "broker": 1,
            "agent": 1,
            "handlers": 1,
            "sink": 1,
            "producer:shell": 1,
        }
    with machines.booted(disk) as host:  # nobody logs in, nobody starts anything
        wait(machines.settled(host), timeout=SOON)
        told = {one["name"]: one["state"] for one in host.status()["components"]}
        assert {told[name] for name in ("broker", "agent", "handlers", "sink")} == {"running"}
        wait(lambda: not list((disk.state / "spool").glob("*.spool")), timeout=SOON)
        wanted = acknowledged(disk)
        assert len(wanted) > 50
        stored = Counter(event["id"] for event in host.events(TOPIC))
        assert [id for id in wanted if stored[id] != 1] == []
        wait(lambda: set(wanted) <= archived(disk).keys(), timeout=SOON)
        found = archived(disk)
        assert [id for id in wanted if found[id] != 1] == []
        host.opsmesh("evidence", "verify")


def test_what_hangs_is_ended_by_the_watchdog(disk: Disk) -> None:
    """A process that is stopped gives no sign of life, is ended, and comes back."""
    with machines.booted(disk) as host:
        drop_in = "~/.config/systemd/user/opsmesh-.service.d"
        host.ada("sh", "-c", f"mkdir -p {drop_in}; printf '{IMPATIENT}' > {drop_in}/mine.conf")
        installed(host)
        for unit in UNITS:
            before = host.unit(unit, "MainPID")
            host.kill("STOP", before)
            wait(partial(another_process, host, unit, before), timeout=SOON)
        wait(machines.settled(host), timeout=SOON)
        reasons = {
            event["payload"]["component"]: event["payload"]["reason"]
            for event in host.events("mesh.component.failed")
        }
        assert len(reasons) == len(UNITS)
        assert {reason.partition(":")[0] for reason in reasons.values()} == {"watchdog"}


def test_what_is_written_while_the_agent_is_down_waits_in_the_socket(disk: Disk) -> None:
    """A line that is written while no agent runs starts one, and is stored; while none can start,
    `emit` keeps its event in the spool."""
    line = '{"topic":"test.event.sent","source":"shell","payload":{"from":"the socket"}}'
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); "
        f"s.connect('/run/user/{machines.ADA}/opsmesh/ingest.sock'); "
        "s.sendall(sys.argv[1].encode() + b'\\n')"
    )
    with machines.booted(disk) as host:
        installed(host)
        host.ada("systemctl", "--user", "stop", "opsmesh-agent.service")
        assert host.unit("opsmesh-agent.socket") == "active"
        host.ada(PYTHON, "-c", code, line)
        wait(lambda: host.unit("opsmesh-agent.service") == "active", timeout=SOON)
        wait(lambda: [e["payload"] for e in host.events(TOPIC)] == [{"from": "the socket"}])
        host.ada("systemctl", "--user", "stop", "opsmesh-agent.socket", "opsmesh-agent.service")
        told = json.loads(host.opsmesh("emit", TOPIC, "from=emit", "--json"))
        assert told["spooled"]
        host.ada("systemctl", "--user", "start", "opsmesh.target")
        wait(lambda: {"from": "emit"} in [e["payload"] for e in host.events(TOPIC)], timeout=SOON)


def test_one_mesh_and_no_second(disk: Disk) -> None:
    """While units run `opsmesh up` starts no mesh, `down` stops the units, and `uninstall` leaves
    nothing; while `opsmesh up` runs no unit becomes a part of the mesh."""
    with machines.booted(disk) as host:
        installed(host)
        assert "already running" in host.opsmesh("up", "--detach")
        assert host.status()["manager"] == "user"
        assert "stopped the units" in host.opsmesh("down")
        assert host.unit("opsmesh-broker.service") == "inactive"
        host.opsmesh("up", "--detach")
        host.ada("systemctl", "--user", "start", "opsmesh-sink.service", may_fail=True)
        assert host.unit("opsmesh-sink.service") in ("failed", "inactive")
        assert host.status()["manager"] == ""
        assert host.status()["problems"] == []
        host.opsmesh("down")
        host.ada("systemctl", "--user", "start", "opsmesh.target")
        wait(machines.settled(host), timeout=SOON)
        host.opsmesh("uninstall", "systemd", "--yes")
        assert host.status()["verdict"] == "down"
        left = host.ada("sh", "-c", "cd ~/.config; find systemd -name '*opsmesh*'", may_fail=True)
        assert left == ""


def test_a_shared_mesh_is_an_account_s_own(disk: Disk) -> None:
    """System units run as the account opsmesh; members of its group may send events, nobody else
    may, and neither reads the mesh's state."""
    shared = "/usr/local/bin/opsmesh-shared"
    with machines.booted(disk) as host:
        root = host.machine.does
        root(OPSMESH, "install", "systemd-system", "--yes")
        wait(lambda: '"verdict": "ok"' in root(shared, "status", "--json", may_fail=True))
        show = ("systemctl", "show", "--value", "--property=MainPID", "opsmesh-broker.service")
        assert root("stat", "--format=%U", f"/proc/{root(*show)}") == "opsmesh"
        refused = host.ada(shared, "emit", TOPIC, "from=ada", "--json")
        assert json.loads(refused)["spooled"]  # in ada's own folder, for her own mesh
        assert host.ada("cat", "/var/lib/opsmesh/credentials.json", may_fail=True) == ""
        root("gpasswd", "--add", "ada", "opsmesh")
        told = json.loads(host.ada(shared, "emit", TOPIC, "from=ada", "--json"))
        assert "seq" in told or told["ok"]
        assert "spooled" not in told
        root(OPSMESH, "uninstall", "systemd-system", "--yes")
        assert root("sh", "-c", "ls /etc/systemd/system | grep opsmesh", may_fail=True) == ""
