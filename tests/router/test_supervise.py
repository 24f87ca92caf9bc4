"""The supervisor with real processes, among them a real nats-server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import until as wait

from opsmesh.router import component, launch, paths, probes, server, supervise, supervisor_state
from opsmesh.router.component import Component
from opsmesh.router.errors import AlreadyRunning
from opsmesh.router.settings import Settings
from opsmesh.router.supervisor_state import State, Status

#: The supervisor, which tries a producer whose tool is missing ten times a second.
HURRIED = """
import sys
from opsmesh.router import launch, supervise
supervise.AGAIN_FIRST = supervise.AGAIN_LONGEST = 0.1
launch.main(sys.argv[1:])
"""
SLEEP = "import time; time.sleep(600)"


def python(name: str, code: str, **more: Any) -> Component:
    """A small stand-in component."""
    return Component(name=name, argv=[sys.executable, "-c", code], **more)


def broker() -> Component:
    """The real broker of this test's folders."""
    prepared = server.prepare(Path(paths.state_dir()), name=Settings().host)
    return Component(
        name="broker",
        kind="broker",
        argv=prepared.argv(server.find_binary()),
        ready=probes.broker(prepared.monitor_url),
    )


class Supervised:
    """A supervisor process of this test's own."""

    def __init__(self, components: list[Component], *, hurried: bool = False) -> None:
        lock = supervisor_state.lock()
        supervisor_state.end_leftovers()
        argv, plan = launch.command(components, nats_url="nats://test", lock=lock)
        if hurried:
            argv = [sys.executable, "-c", HURRIED, *argv[3:]]
        self.process = subprocess.Popen(
            argv, pass_fds=(lock, plan), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        os.close(lock)
        os.close(plan)

    def status(self, name: str) -> Status:
        state: State = wait(supervisor_state.running)
        return next(c for c in state.components if c.name == name)

    def reaches(self, name: str, state: str, **more: Any) -> Status:
        """The component's status once it is in this state, with these values."""

        def reached() -> Status | None:
            status = self.status(name)
            same = all(getattr(status, key) == value for key, value in more.items())
            return status if status.state == state and same else None

        found: Status = wait(reached)
        return found

    def stop(self) -> str:
        """End it as `opsmesh down` does; what it said."""
        self.process.terminate()
        said: bytes = self.process.communicate(timeout=60)[0]
        return said.decode()


@pytest.fixture
def supervised(home: Path) -> Iterator[Callable[..., Supervised]]:
    """Starts supervisors, and ends those that a test leaves."""
    started: list[Supervised] = []

    def start(*components: Component, hurried: bool = False) -> Supervised:
        started.append(Supervised(list(components), hurried=hurried))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()
        assert one.process.stdout is not None
        one.process.stdout.close()


def gone(pid: int | None) -> bool:
    return pid is None or component.birth(pid) is None


def test_backoff_doubles_up_to_its_limit() -> None:
    """The delay before a restart doubles from half a second, and never exceeds thirty."""
    assert [supervise.backoff(n) for n in (1, 2, 3, 7, 500)] == [0.5, 1, 2, 30, 30]


def test_component_runs_once_it_says_so(home: Path, supervised: Callable[..., Supervised]) -> None:
    """A component that notifies is starting until READY=1 comes, however long it lives."""
    gate = home / "gate"
    code = f"""
import os, time
from opsmesh.router import notify
while not os.path.exists({str(gate)!r}):
    time.sleep(0.01)
notify.ready()
time.sleep(600)
"""
    steady = python("steady", SLEEP)  # without a word it counts as running after a second
    mesh = supervised(python("one", code, notifies=True), steady)
    mesh.reaches("steady", "running")
    assert mesh.status("one").state == "starting"
    gate.touch()
    mesh.reaches("one", "running")


def test_killed_component_is_started_again(supervised: Callable[..., Supervised]) -> None:
    """A component that was killed -9 runs again with another pid, and the restart is counted."""
    mesh = supervised(python("one", SLEEP))
    first = mesh.reaches("one", "running")
    os.kill(first.pid or 0, signal.SIGKILL)
    again = mesh.reaches("one", "running", restarts=1)
    assert again.pid != first.pid
    assert again.last_exit == "SIGKILL"


def test_killed_broker_keeps_its_port(supervised: Callable[..., Supervised]) -> None:
    """After kill -9 the broker serves again at the address that clients know."""
    known = broker()
    mesh = supervised(known)
    first = mesh.reaches("broker", "running")
    os.kill(first.pid or 0, signal.SIGKILL)
    mesh.reaches("broker", "running", restarts=1)
    wait(lambda: known.ready and probes.ready(known.ready))  # it asks for half a second


def test_broker_that_is_not_durable_is_not_used(
    home: Path, supervised: Callable[..., Supervised]
) -> None:
    """A broker that acknowledges before data is on disk is ended, and never started again."""
    lax = broker()
    config = home / "state" / "opsmesh" / "nats.conf"
    config.write_text(config.read_text().replace('"sync_interval": "always",', ""))
    mesh = supervised(lax)
    failed = mesh.reaches("broker", "failed")
    assert failed.pid is None
    assert "before data is on disk" in (failed.last_exit or "")


def test_order_of_starts_and_stops(home: Path, supervised: Callable[..., Supervised]) -> None:
    """The agent starts before producers and after the broker, and stops in reverse."""
    trace = home / "trace"
    code = (
        "import signal, sys\n"
        "def note(word): open({!r}, 'a').write(word + ' {}\\n')\n"
        "note('start')\n"
        "def end(*_):\n note('stop'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind({!r}); s.listen()\n"
        "while True: signal.pause()"
    )

    def member(name: str, kind: str) -> Component:
        path = str(home / name)
        probe = probes.unix_socket(path)
        return python(name, code.format(str(trace), name, path), kind=kind, ready=probe)

    mesh = supervised(member("p", "producer"), member("a", "agent"), member("b", "broker"))
    mesh.reaches("p", "running")
    mesh.stop()
    words = trace.read_text().split("\n")[:-1]
    assert words == ["start b", "start a", "start p", "stop p", "stop a", "stop b"]


def test_what_ignores_the_order_to_stop_is_killed(
    home: Path, supervised: Callable[..., Supervised]
) -> None:
    """A second order to stop ends the patience with a component that ignores the first."""
    ready, told = home / "ready", home / "told"
    code = (
        "import signal\n"
        f"signal.signal(signal.SIGTERM, lambda *_: open({str(told)!r}, 'w').close())\n"
        f"open({str(ready)!r}, 'w').close()\n"
        "while True: signal.pause()"
    )
    mesh = supervised(python("deaf", code))
    pid = mesh.reaches("deaf", "running").pid
    wait(ready.exists)  # it counts as running after a second, deaf or not yet
    mesh.process.terminate()
    wait(told.exists)
    mesh.stop()
    assert gone(pid)


def test_components_end_with_a_killed_supervisor(supervised: Callable[..., Supervised]) -> None:
    """No component outlives a supervisor that was killed -9, and the next one works."""
    mesh = supervised(broker(), python("one", SLEEP))
    pids = [mesh.reaches(name, "running").pid for name in ("broker", "one")]
    mesh.process.kill()
    mesh.process.wait()
    wait(lambda: all(gone(pid) for pid in pids))
    assert supervisor_state.running() is None
    again = supervised(broker(), python("one", SLEEP))
    again.reaches("one", "running")


def test_leftover_that_ignores_the_end_is_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A component that survived its supervisor is killed before the next one starts."""
    monkeypatch.setattr(supervisor_state, "LEFTOVER_PATIENCE", 0.0)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)\n"
    left = subprocess.Popen(
        [sys.executable, "-c", code + SLEEP], stdout=subprocess.PIPE, process_group=0
    )
    assert left.stdout is not None
    left.stdout.readline()
    status = Status(name="one", log="", pid=left.pid, birth=component.birth(left.pid))
    paths.private_dir(paths.runtime_dir())
    supervisor_state.write(State(pid=1, birth=0, started="", nats_url="", components=[status]))
    supervisor_state.end_leftovers()
    left.stdout.close()
    assert left.wait(60) == -signal.SIGKILL


def test_helpers_of_a_dead_component_end(home: Path, supervised: Callable[..., Supervised]) -> None:
    """A helper process of a component that was killed does not run on beside the next one's."""
    note = home / "helper"
    code = (
        "import subprocess, sys, time\n"
        f"helper = subprocess.Popen([sys.executable, '-c', {SLEEP!r}])\n"
        f"open({str(note)!r}, 'w').write(str(helper.pid) + chr(10))\n"
        "time.sleep(600)"
    )
    mesh = supervised(python("one", code))
    first = mesh.reaches("one", "running")

    def noted() -> int | None:
        text = note.read_text() if note.exists() else ""
        return int(text) if text.endswith("\n") else None

    helper: int = wait(noted)  # who says nothing counts as running after a second, begun or not
    os.kill(first.pid or 0, signal.SIGKILL)
    wait(lambda: gone(helper))


def test_second_supervisor_is_refused(supervised: Callable[..., Supervised]) -> None:
    """While one supervisor runs, the lock is refused with its pid."""
    mesh = supervised(python("one", SLEEP))
    mesh.reaches("one", "running")
    with pytest.raises(AlreadyRunning) as refused:
        supervisor_state.lock()
    assert refused.value.pid == mesh.process.pid


def test_failing_component_fills_no_log(supervised: Callable[..., Supervised]) -> None:
    """A component that fails again and again is one line of the supervisor's log, not one each."""
    # a shell: a Python that needs more than a second to begin would count as running each time
    mesh = supervised(Component(name="bad", argv=["/bin/sh", "-c", "exit 3"]))
    wait(lambda: mesh.status("bad").restarts >= 2)
    said = mesh.stop()
    assert said.count("bad") == said.count("bad ended: exit 3") + said.count("bad.log") == 2


def test_component_that_cannot_run_is_not_tried_again(
    supervised: Callable[..., Supervised],
) -> None:
    """Exit code 78 says that a component cannot run here: it is failed, and not restarted."""
    mesh = supervised(python("never", "raise SystemExit(78)"), python("one", SLEEP))
    mesh.reaches("one", "running")
    mesh.reaches("never", "failed", restarts=0)


def test_tries_grow_rarer() -> None:
    """A producer whose tool is not here is tried after five minutes, then ever more rarely."""
    assert [supervise.again_after(n) for n in (0, 1, 3, 4, 500)] == [300, 600, 2400, 3600, 3600]


#: Cannot run here until the file `tool` is there.
TOOL = "import os, time; os.path.exists({!r}) or exit(78); time.sleep(600)"


def test_producer_runs_once_its_tool_is_here(
    home: Path, supervised: Callable[..., Supervised]
) -> None:
    """A producer whose tool is missing waits without a process or a word, and holds nobody back.
    Asked for in vain it goes on waiting; once the tool is there it runs."""
    tool = home / "tool"
    later = python("later", TOOL.format(str(tool)), waits_for="no tool")
    mesh = supervised(later, python("one", SLEEP))
    mesh.reaches("one", "running")
    waiting = mesh.status("later")
    assert (waiting.state, waiting.pid, waiting.last_exit) == ("waiting", None, "no tool")
    state = supervisor_state.running()
    assert state is not None
    assert state.settled
    assert not supervisor_state.try_again("one")
    log = Path(waiting.log)
    assert not log.exists()
    assert supervisor_state.try_again("later")
    wait(log.exists)  # it was tried
    tool.touch()
    wait(lambda: supervisor_state.try_again("later") is False)
    mesh.reaches("later", "running", restarts=0)
    said = mesh.stop()
    assert said.count("later") == 2  # its line, and the log's name in it


def test_tool_that_comes_is_found_without_a_word(
    home: Path, supervised: Callable[..., Supervised]
) -> None:
    """Nobody has to ask: a producer that waits is tried again and again."""
    tool = home / "tool"
    mesh = supervised(python("later", TOOL.format(str(tool)), waits_for="no tool"), hurried=True)
    wait(lambda: Path(mesh.status("later").log).exists())  # in vain
    mesh.reaches("later", "waiting")  # a try that takes long is taken for running meanwhile
    tool.touch()
    mesh.reaches("later", "running")


def test_slow_try_is_no_failure(home: Path, supervised: Callable[..., Supervised]) -> None:
    """A producer that looks for its tool for so long that it was taken for running, and then says
    that it is not here, waits as before."""
    looked = home / "looked"
    code = f"import os, time\nwhile not os.path.exists({str(looked)!r}): time.sleep(0.01)\nexit(78)"
    mesh = supervised(python("slow", code, waits_for="no tool"))
    wait(lambda: supervisor_state.running())
    assert supervisor_state.try_again("slow")
    mesh.reaches("slow", "running")
    looked.touch()
    assert mesh.reaches("slow", "waiting").last_exit == "no tool"
    assert "cannot run" not in mesh.stop()


def test_producer_whose_tool_went_comes_back(
    home: Path, supervised: Callable[..., Supervised]
) -> None:
    """A producer that could run and cannot any more has failed, and runs again with its tool."""
    tool = home / "tool"
    tool.touch()
    mesh = supervised(python("went", TOOL.format(str(tool))))
    first = mesh.reaches("went", "running")
    tool.unlink()
    os.kill(first.pid or 0, signal.SIGKILL)
    assert mesh.reaches("went", "failed").last_exit == "exit 78"
    tool.touch()
    wait(lambda: not supervisor_state.try_again("went"))
    mesh.reaches("went", "running")


def test_supervisor_sleeps_while_a_tool_is_missing(supervised: Callable[..., Supervised]) -> None:
    """What waits costs no time: the supervisor does not turn in circles."""
    mesh = supervised(python("later", "raise SystemExit(78)", waits_for="no tool"))
    wait(lambda: supervisor_state.running())
    assert supervisor_state.try_again("later")
    wait(lambda: Path(mesh.status("later").log).exists())

    def busy() -> float:
        fields = Path(f"/proc/{mesh.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    wait(lambda: mesh.status("later").pid is None)
    before = busy()
    time.sleep(1)
    assert busy() - before < 0.1


def test_missing_program_is_backed_off(supervised: Callable[..., Supervised]) -> None:
    """A component whose program is not there is tried again, and its reason is told."""
    mesh = supervised(Component(name="none", argv=["/nonexistent/program"]))
    assert "cannot start" in (mesh.reaches("none", "backoff").last_exit or "")


def test_large_log_is_set_aside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log over the limit is kept once as NAME.log.1 when its component starts."""
    monkeypatch.setattr(component, "LOG_LIMIT", 10)
    log = home / "logs" / "one.log"
    log.parent.mkdir()
    log.write_text("more than ten bytes")
    os.close(component.open_log(log))
    assert log.read_text() == ""
    assert log.with_name("one.log.1").read_text() == "more than ten bytes"


def test_state_file_is_whole_and_plain(supervised: Callable[..., Supervised]) -> None:
    """supervisor.json holds the documented fields, and is gone after a clean stop."""
    mesh = supervised(python("one", SLEEP, env={"A": "b"}))
    mesh.reaches("one", "running")
    data = json.loads(supervisor_state.path().read_text())
    assert data["pid"] == mesh.process.pid
    assert data["started"].endswith("Z")
    fields = {"name", "pid", "state", "restarts", "since", "last_exit", "log"}
    assert fields <= data["components"][0].keys()
    mesh.stop()
    assert not supervisor_state.path().exists()


def test_supervisor_is_light(supervised: Callable[..., Supervised]) -> None:
    """The process that stays for weeks has loaded neither pydantic nor nats nor urllib."""
    code = "import sys, opsmesh.router.launch; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert not {"pydantic", "nats", "urllib.request", "asyncio", "typer"} & set(loaded.split())
