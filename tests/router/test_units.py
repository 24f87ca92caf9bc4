"""Units' own programs: becoming a component of the plan, telling its end, seeing how units are."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import until as wait

from opsmesh.router import paths, running, server, supervisor_state
from opsmesh.router.component import Component
from opsmesh.router.errors import AlreadyRunning
from opsmesh.router.supervise import CANNOT_RUN
from opsmesh.router.units import ended, names, plan, state

#: A stand-in for systemctl: tells what lies in $SHOWN, and notes what it was asked.
SYSTEMCTL = '#!/bin/sh\necho "$@" >>"$ASKED"\nexec cat "$SHOWN"\n'
BLOCK = """\
Id={unit}
ActiveState={active}
SubState={sub}
MainPID={pid}
NRestarts=2
ExecMainCode={code}
ExecMainStatus={status}
StateChangeTimestampMonotonic=1000000
"""


def planned(*components: Component, manager: names.Manager = "user") -> None:
    """A plan lies where the units find it."""
    paths.private_dir(paths.runtime_dir())
    plan.write(plan.Plan(manager=manager, nats_url="nats://there", components=components))


def python(name: str, code: str, **more: str) -> Component:
    return Component(name=name, argv=[sys.executable, "-c", code], env=more)


def become(*words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-P", "-m", "opsmesh.router.units.run", *words]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def test_a_unit_becomes_its_component(home: Path) -> None:
    """The component runs in the unit's own process, with the environment that the plan gives."""
    planned(python("one", "import os; print(os.getpid(), os.environ['A'])", A="b"))
    process = become("one")
    said, _ = process.communicate(timeout=60)
    assert said == f"{process.pid} b\n"


def test_no_supervisor_begins_beside_a_unit(home: Path) -> None:
    """As long as a component of a unit lives, the mesh's lock cannot be had."""
    planned(python("one", "print('here', flush=True); input()"))
    process = become("one")
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    with pytest.raises(AlreadyRunning):
        supervisor_state.lock()
    process.communicate("\n", timeout=60)
    os.close(supervisor_state.lock())


def test_no_unit_begins_beside_a_supervisor(home: Path) -> None:
    """While a supervisor holds the lock a unit ends with the code that is not tried again, and so
    does the socket's question."""
    planned(python("one", "print('never')"))
    lock = supervisor_state.lock()
    for words in (("one",), ("--free",)):
        process = become(*words)
        said, wrong = process.communicate(timeout=60)
        assert process.returncode == CANNOT_RUN
        assert said == ""
        assert "opsmesh down" in wrong
    os.close(lock)
    process = become("--free")
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_what_is_not_planned_does_not_begin(home: Path) -> None:
    """A broker's unit is passed over where the plan has no broker, and any other says why."""
    planned(python("agent", "pass"))
    passed_over, unknown = become("--planned", "broker"), become("producer:none")
    assert passed_over.wait(60) == 1
    _, wrong = unknown.communicate(timeout=60)
    assert unknown.returncode == CANNOT_RUN
    assert "opsmesh-plan.service" in wrong


def test_a_broker_is_ready_and_alive_once_it_serves(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-server itself is the unit's process, and what systemd wants to hear is said for it."""
    import signal
    import socket

    from opsmesh.router import probes

    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(home / "notify"))
    heard.settimeout(60)
    monkeypatch.setenv("NOTIFY_SOCKET", str(home / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    broker = server.prepare(Path(paths.state_dir()), name="test")
    argv = broker.argv(server.find_binary())
    probe = probes.broker(broker.monitor_url)
    planned(Component(name="broker", kind="broker", argv=argv, ready=probe))
    argv = [sys.executable, "-P", "-m", "opsmesh.router.units.run", "broker"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            assert heard.recv(100) == b"READY=1"
            server.check_durable(broker)
            assert Path(f"/proc/{process.pid}/exe").readlink().name == "nats-server"
            assert heard.recv(100) == b"WATCHDOG=1"
            process.send_signal(signal.SIGSTOP)
            silent = 0
            heard.settimeout(0.6)
            while not silent:
                try:
                    heard.recv(100)
                except TimeoutError:
                    silent += 1
        finally:
            process.kill()
    heard.close()


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"SERVICE_RESULT": "success", "EXIT_CODE": "exited", "EXIT_STATUS": "0"}, None),
        ({"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "78"}, None),
        ({"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "3"}, "exit 3"),
        ({"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}, "SIGKILL"),
        (
            {"SERVICE_RESULT": "watchdog", "EXIT_CODE": "killed", "EXIT_STATUS": "ABRT"},
            "watchdog: SIGABRT",
        ),
        ({"SERVICE_RESULT": "resources"}, "resources: resources"),
    ],
)
def test_an_end_is_told_when_nobody_asked_for_it(env: dict[str, str], reason: str | None) -> None:
    """A component that ended by itself is told of with how, one that was stopped is not."""
    told = ended.event("sink", env)
    assert (told and told["payload"]["reason"]) == reason


def test_the_end_goes_to_the_spool(home: Path) -> None:
    """What is told waits in the spool, for the agent may be what has ended."""
    env = {**os.environ, "SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "SEGV"}
    argv = [sys.executable, "-P", "-m", "opsmesh.router.units.ended", "agent"]
    assert subprocess.run(argv, env=env, check=False, timeout=180).returncode == 0
    [file] = Path(paths.spool_dir()).glob("*.spool")
    assert '"reason": "SIGSEGV"' in file.read_text()


@pytest.fixture
def asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for systemctl; what it was asked."""
    (home / "bin").mkdir()
    (home / "bin/systemctl").write_text(SYSTEMCTL)
    (home / "bin/systemctl").chmod(0o755)
    (home / "shown").write_text("")
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("SHOWN", str(home / "shown"))
    monkeypatch.setenv("ASKED", str(home / "asked"))
    return home / "asked"


def shown(home: Path, *blocks: tuple[str, str, str, int, int, int]) -> None:
    keys = ("unit", "active", "sub", "pid", "code", "status")
    texts = [BLOCK.format(**dict(zip(keys, block, strict=True))) for block in blocks]
    (home / "shown").write_text("\n".join(texts))


def test_units_are_told_in_the_supervisor_s_words(home: Path, asked: Path) -> None:
    """Each unit's state is a component's, with its log's command; one that waits for its tool
    waits."""
    waiting = Component(name="producer:yazi", argv=["x"], waits_for="ya is not on PATH")
    planned(*(Component(name=n, argv=["x"]) for n in ("broker", "agent", "sink")), waiting)
    shown(
        home,
        ("opsmesh-broker.service", "active", "running", os.getpid(), 0, 0),
        ("opsmesh-agent.service", "activating", "auto-restart", 0, 2, 9),
        ("opsmesh-sink.service", "failed", "failed", 0, 1, 78),
    )
    found = running.mesh()
    assert found is not None
    assert found.manager == "user"
    told = [(one.name, one.state, one.last_exit) for one in found.components]
    assert told == [
        ("broker", "running", None),
        ("agent", "backoff", "SIGKILL"),
        ("sink", "failed", "exit 78"),
        ("producer:yazi", "waiting", "ya is not on PATH"),
    ]
    assert found.components[0].pid == os.getpid()
    assert "--unit=opsmesh-agent.service" in found.components[1].see
    assert "--user" in asked.read_text()


def test_units_that_all_rest_are_no_mesh(home: Path, asked: Path) -> None:
    """A plan of yesterday's units, of which none is at work, is no mesh."""
    planned(Component(name="agent", argv=["x"]))
    shown(home, ("opsmesh-agent.service", "inactive", "dead", 0, 0, 0))
    assert running.mesh() is None


def test_a_socket_that_listens_is_a_mesh(home: Path, asked: Path) -> None:
    """Where the socket listens the mesh is at work, for what comes there starts the agent."""
    planned(Component(name="agent", argv=["x"]))
    shown(home, ("opsmesh-agent.socket", "active", "listening", 0, 0, 0))
    found = running.mesh()
    assert found is not None
    assert [one.state for one in found.components] == ["stopped"]


def test_systemd_is_not_asked_where_no_units_were_started(home: Path, asked: Path) -> None:
    """Without a plan of units nobody asks a manager."""
    assert running.mesh() is None
    assert not asked.exists()


def test_a_producer_is_tried_again_by_its_unit(home: Path, asked: Path) -> None:
    """Having a producer tried is starting its unit, of the manager that has the mesh."""
    planned(Component(name="producer:yazi", argv=["x"], waits_for="no"), manager="system")
    shown(home, ("opsmesh-agent.socket", "active", "listening", 0, 0, 0))
    assert running.try_again("producer:yazi")
    last = asked.read_text().splitlines()[-1]
    assert last == "start --no-block -- opsmesh-producer@yazi.service"


def test_a_plan_is_for_its_owner_alone(home: Path) -> None:
    """The plan is readable for its owner only, and read as it was written."""
    one = python("producer:x", "pass", TOKEN="secret")
    planned(one)
    assert plan.path().stat().st_mode & 0o777 == 0o600
    found = plan.read()
    assert found is not None
    assert found.component("producer:x") == one
    assert json.loads(plan.path().read_text())["manager"] == "user"


@pytest.mark.parametrize(
    ("component", "unit"),
    [
        ("broker", "opsmesh-broker.service"),
        ("producer:journal", "opsmesh-producer@journal.service"),
        ("handlers:hub", "opsmesh-component@handlers:hub.service"),
        ("a2a", "opsmesh-component@a2a.service"),
        ("producer:a b", None),
        ("producer:../x", None),
        ("producer:-x/", None),
    ],
)
def test_a_component_s_unit(component: str, unit: str | None) -> None:
    """Each component has a unit, but one whose name no unit can have."""
    assert names.unit(component) == unit


def test_locks_are_shared_by_units(home: Path) -> None:
    """Two units hold the lock at the same time."""
    planned(python("one", "input()"), python("two", "input()"))
    both = [become("one"), become("two")]
    lock = Path(paths.runtime_dir(), supervisor_state.LOCK)
    wait(lock.exists)

    def held() -> bool:
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    wait(held)
    for process in both:
        assert process.poll() is None
        process.communicate("\n", timeout=60)
        assert process.returncode == 0


def test_nothing_is_asked_of_a_manager_that_does_not_answer(
    home: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manager that does not answer in time has no units to tell of."""
    monkeypatch.setattr(state, "PATIENCE", 0.2)
    (home / "bin/systemctl").write_text("#!/bin/sh\nexec sleep 5\n")
    planned(Component(name="agent", argv=["x"]))
    assert running.mesh() is None
