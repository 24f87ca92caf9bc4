"""A mesh of real processes in folders of a test's own, each of which can be killed or stopped.

A component's processes, one after the other, write to one log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from opsmesh.router import paths, server
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from tests.handlers.mesh import write_profiles
from tests.router.agent_process import until

#: The module of each component, and what it logs once it serves.
COMPONENTS: Final = {
    "agent": ("opsmesh.router.agent", "broker.ready"),
    "sink": ("opsmesh.handlers.evidence.sink", "evidence.started"),
    "handlers": ("opsmesh.handlers.serve", "handlers.ready"),
}
#: The topic of the load, and the profile that acts on it.
TOPIC, PROFILE = "load.test", "effect"
#: One event in so many fires a profile.
FIRES_EVERY: Final = 20

#: What a run does: one line, appended in one write. A second one would show.
PROFILES: Final = """\
version: 1
profiles:
  effect:
    on: [load.test]
    where: event.payload.n % {every} == 0
    concurrency: {{mode: parallel, limit: 4}}
    retry: {{attempts: 5, initial: 100ms, max: 1s}}
    actions:
      - id: append
        command: [sh, -c, 'echo "$0 $1" >> {path}', "${{{{ event.id }}}}", "${{{{ run.id }}}}"]
"""


class Mesh:
    """Broker, agent, sink and handlers, and their logs. More than one of a kind is possible."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = Path(paths.state_dir())
        self.evidence = Path(paths.evidence_dir())
        self.effects = home / "effects"
        self._logs = home / "logs"
        self._logs.mkdir()
        self._running: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._supervised = False
        self.every = FIRES_EVERY

    @cached_property
    def broker(self) -> EmbeddedServer:
        """Prepared when it is first asked for: a test may put a disk in its place before."""
        return EmbeddedServer(server.prepare(self.state, name=Settings().host))

    def profiles(self, text: str = PROFILES, *, every: int = FIRES_EVERY) -> None:
        """What handlers run; the effect appends to `effects`."""
        self.every = every
        self.effects.touch()
        write_profiles(text.format(every=every, path=self.effects))

    def up(self) -> None:
        """`opsmesh up` in the place of `start_all`: what ends is started again."""
        self._supervised = True
        self._types("up", "--detach")

    @staticmethod
    def _types(*argv: str) -> None:
        env = {**os.environ, "OPSMESH_PRODUCERS__ENABLED": "[]"}
        command = [sys.executable, "-m", "opsmesh.cli.entry", *argv]
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=120)

    def start_all(self, *names: str) -> None:
        """The broker and these components, all unless named; once all of them serve."""
        if self.broker.process is None:
            self.broker.start()
        for serving in [self.begin(name) for name in names or COMPONENTS]:
            serving()

    def start(self, name: str, *, env: Mapping[str, str] | None = None) -> None:
        """One more process of a component, once it serves."""
        self.begin(name, env=env)()

    def begin(self, name: str, *, env: Mapping[str, str] | None = None) -> Callable[[], None]:
        """One more process of a component; what is returned waits until it serves."""
        module, serves = COMPONENTS[name]
        before = len(self.log(name))
        with self.log_file(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                env={**os.environ, **(env or {})},
                stdout=log,
                stderr=log,
            )
        self._running.setdefault(name, []).append(process)

        def there() -> bool:
            said = [line.get("event") for line in self.log(name)[before:]]
            assert process.poll() is None, f"{name} ended: {said[-3:]}"
            return serves in said

        return lambda: until(there, timeout=60)

    def runs(self, name: str) -> bool:
        """Whether a process of this component runs."""
        return self._supervised or any(
            process.poll() is None for process in self._running.get(name, ())
        )

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """The newest process of a component."""
        return self._running[name][-1]

    def kill(self, name: str) -> None:
        """kill -9, of the broker too."""
        if name == "broker":
            self.broker.kill()
            return
        process = self._running[name].pop()
        process.kill()
        process.wait(30)

    def kill_pid(self, name: str, pid: int) -> None:
        """kill -9 of one of several processes of a component."""
        process = next(p for p in self._running[name] if p.pid == pid)
        self._running[name].remove(process)
        process.kill()
        process.wait(30)

    def stop(self, name: str) -> None:
        """SIGTERM, and the end."""
        process = self._running[name].pop()
        process.terminate()
        process.wait(30)

    def restart(self, name: str) -> None:
        """Start again what was killed, once it serves."""
        if name == "broker":
            self.broker.start()
        else:
            self.start(name)

    def restart_all(self, names: Sequence[str]) -> None:
        """Start again what was killed, the broker first."""
        if "broker" in names:
            self.broker.start()
        for serving in [self.begin(name) for name in names if name != "broker"]:
            serving()

    def halt(self, names: Sequence[str]) -> None:
        """SIGSTOP: what is on a disk now stays so. Only `kill` follows."""
        for name in names:
            halt(self.pid(name))

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """SIGSTOP while the body runs, SIGCONT after it."""
        pid = self.pid(name)
        halt(pid)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def pid(self, name: str) -> int:
        """That of the newest process of a component, or of the broker."""
        process = self.broker.process if name == "broker" else self.process(name)
        assert process is not None, f"{name} does not run"
        return process.pid

    def log_file(self, name: str) -> Path:
        """Where all processes of a component log."""
        return (self.state / "logs" if self._supervised else self._logs) / f"{name}.log"

    def log(self, name: str, event: str = "") -> list[dict[str, Any]]:
        """What a component has logged, all or the lines of one event; what is no JSON is a line
        `{"raw": …}`."""
        try:
            text = self.log_file(name).read_text(errors="replace")
        except FileNotFoundError:
            return []
        found = [_line(line) for line in text.splitlines()]
        return [line for line in found if event in ("", line.get("event"))]

    def end(self) -> None:
        """End everything, however it stands."""
        if self._supervised:
            self._supervised = False
            self._types("down")
        for processes in self._running.values():
            while processes:
                process = processes.pop()
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                    process.send_signal(signal.SIGCONT)
                process.wait(30)
        if "broker" in self.__dict__ and self.broker.process is not None:
            self.broker.kill()


def halt(pid: int) -> None:
    """SIGSTOP; every thread has stopped when this returns."""
    os.kill(pid, signal.SIGSTOP)

    def stopped() -> bool:
        states = [
            task.read_text().rpartition(")")[2].split()[0]
            for task in Path(f"/proc/{pid}/task").glob("*/stat")
        ]
        return set(states) <= set("TtZX")

    until(stopped)


def _line(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"raw": text}


@contextlib.contextmanager
def mesh(home: Path) -> Iterator[Mesh]:
    """Nothing runs yet; everything has ended after the body."""
    made = Mesh(home)
    try:
        yield made
    finally:
        made.end()
