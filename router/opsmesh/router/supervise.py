"""The supervisor: starts the components in order, restarts what dies, stops them in reverse.

One thread that sleeps until a signal comes: a component's end (SIGCHLD), or the order to stop
(SIGTERM, SIGINT, SIGHUP). It lives for weeks and imports the standard library alone; `launch` is
the way to start it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opsmesh.router import component, notify, paths, probes, spool, supervisor_state
from opsmesh.router.component import Component
from opsmesh.router.errors import BrokerMisconfigured
from opsmesh.router.supervisor_state import State, Status
from opsmesh.schemas import ids, times

#: Seconds before a restart: the first, doubled each time up to the longest.
BACKOFF_FIRST, BACKOFF_LONGEST = 0.5, 30.0
#: After this many seconds of life the next failure counts as a first one again.
STEADY = 60.0
#: A component without a probe is ready once it has lived this long: an import error shows before.
SETTLE = 1.0
#: A component that is not ready after this long holds the later ones back no more.
HOLD = 10.0
#: Seconds that a component gets to end after it was told to.
STOP_PATIENCE = 10.0
#: Seconds between two log lines about one component that keeps failing.
QUIET = 60.0
#: Seconds between two questions to a component that is starting.
PROBE_EVERY = 0.03
#: A component that ends with this code (EX_CONFIG) says that it cannot run here: no restart.
CANNOT_RUN = 78
#: A producer's tool may come later. Seconds before it is tried again: the first, doubled each time
#: up to the longest. A try costs a tenth of a second, and seldom finds a tool that has just been
#: installed, for `try_again` need not wait.
AGAIN_FIRST, AGAIN_LONGEST = 300.0, 3600.0

_STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def backoff(failures: int) -> float:
    """Seconds before the next start after so many failures in a row (1 for the first)."""
    return min(BACKOFF_LONGEST, BACKOFF_FIRST * 2.0 ** min(failures - 1, 20))


def again_after(tries: int) -> float:
    """Seconds before a producer that cannot run here is tried again, after so many tries."""
    return min(AGAIN_LONGEST, AGAIN_FIRST * 2.0 ** min(tries, 20))


@dataclass
class _Child:
    component: Component
    status: Status
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    next_try: float = 0.0
    tries: int = 0
    #: State and reason of before, of a start that is a try; None of any other.
    before: tuple[str, str | None] | None = None
    said: float = -QUIET
    unsaid: int = 0
    was_ready: bool = False
    listener: notify.Listener | None = None


class Supervisor:
    """Keeps these components alive until it is told to stop. For the main thread only."""

    def __init__(
        self,
        components: Sequence[Component],
        *,
        nats_url: str,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> None:
        self._boot_id, self._told = ids.uuid7(), 0
        self._children = [_first(c) for c in sorted(components, key=lambda c: c.rank)]
        self._state = State(
            pid=os.getpid(),
            birth=component.birth(os.getpid()),
            started=_now(),
            nats_url=nats_url,
            components=[child.status for child in self._children],
        )
        self._say = say
        self._welcomed = False

    def run(self) -> None:
        """Supervise; returns once everything has stopped."""
        stops = {s for s in _STOPS if signal.getsignal(s) is not signal.SIG_IGN}
        self._wakes = {*stops, signal.SIGCHLD, supervisor_state.AGAIN}
        signal.pthread_sigmask(signal.SIG_BLOCK, self._wakes)
        self._write()
        while True:
            for child in self._children:
                self._tend(child)
            self._welcome()
            if self._wait(self._patience()):
                break
        self._stop()
        for child in self._children:
            if child.listener is not None:
                child.listener.close()
        with contextlib.suppress(OSError):
            supervisor_state.path().unlink()

    def _wait(self, seconds: float) -> bool:
        """Sleep until a signal or the time; whether the signal was an order to stop."""
        got = signal.sigtimedwait(self._wakes, max(0.0, seconds))
        if got is not None and got.si_signo == supervisor_state.AGAIN:
            for child in self._children:
                child.next_try, child.tries = 0.0, 0
        return got is not None and got.si_signo in _STOPS

    def _patience(self) -> float:
        now = time.monotonic()
        patience = 3600.0
        for child in self._children:
            tried = child.status.tried
            if child.status.state in ("starting", "stopped") or (tried and child.process):
                patience = min(patience, PROBE_EVERY)
            elif child.status.state == "backoff":
                patience = min(patience, child.next_try - now)
            elif tried:  # it may have to wait for an earlier rank
                patience = min(patience, max(PROBE_EVERY, child.next_try - now))
            elif child.failures and child.status.state == "running":
                patience = min(patience, child.started + STEADY - now)
        return patience

    def _tend(self, child: _Child) -> None:
        """Take the one step that this component's state asks for."""
        state, now = child.status.state, time.monotonic()
        if state == "stopped":
            if self._may_start(child):
                self._start(child)
        elif child.status.tried and child.process is None:
            if now >= child.next_try and self._may_start(child):
                self._start(child)
        elif state == "backoff":
            if now >= child.next_try:
                child.status.restarts += 1
                self._start(child)
        elif child.process is not None:
            code = child.process.poll()
            if code is not None:
                self._ended(child, code)
            elif state != "running":
                self._probe(child)
            elif child.failures and now - child.started >= STEADY:
                child.failures = child.unsaid = 0
                self._say(f"✓ {child.component.name} has run steadily for {STEADY:.0f} s")

    def _may_start(self, child: _Child) -> bool:
        rank = child.component.rank
        return all(self._lets_pass(c) for c in self._children if c.component.rank < rank)

    def _lets_pass(self, earlier: _Child) -> bool:
        """Whether the components of later ranks may start, as far as this one is concerned."""
        if earlier.status.state == "starting":
            waits = earlier.component.ready or earlier.component.notifies
            return time.monotonic() - earlier.started > HOLD or not waits
        return earlier.status.state != "stopped"

    def _start(self, child: _Child) -> None:
        child.started, status = time.monotonic(), child.status
        child.before = (status.state, status.last_exit) if status.tried else None
        try:
            if child.component.notifies and child.listener is None:
                child.listener = notify.Listener(child.component.file_name)
            socket = child.listener.address if child.listener else None
            child.process = component.spawn(child.component, notify_socket=socket)
        except OSError as error:
            self._failed(child, f"cannot start: {error}")
            return
        child.status.pid = child.process.pid
        child.status.birth = component.birth(child.process.pid)
        if not child.status.tried:  # a try that may well end in vain is not the talk of the town
            self._enter(child, "starting")

    def _probe(self, child: _Child) -> None:
        probe = child.component.ready
        try:
            if child.listener is not None:
                ready = child.listener.heard()
            elif probe is None:
                ready = time.monotonic() - child.started >= SETTLE
            else:
                ready = probes.ready(probe)
        except BrokerMisconfigured as error:
            self._end_group(child, signal.SIGKILL)
            self._give_up(child, str(error))
            return
        if ready:
            new = child.status.tried or not child.was_ready
            child.status.tried, child.was_ready, child.tries = False, True, 0
            self._enter(child, "running")
            if new:
                self._say(child.status.line)

    def _ended(self, child: _Child, code: int) -> None:
        # its helpers (a `journalctl --follow`) would otherwise run on beside those of the next one
        self._end_group(child, signal.SIGTERM)
        if code == CANNOT_RUN:
            self._cannot_run(child, component.exit_text(code))
            return
        if time.monotonic() - child.started >= STEADY:
            child.failures = 0
        self._failed(child, component.exit_text(code))

    def _failed(self, child: _Child, why: str) -> None:
        child.status.tried = False
        child.failures += 1
        delay = backoff(child.failures)
        now = time.monotonic()
        child.next_try = now + delay
        self._tell(child, why, delay)
        self._gone(child, why)
        self._enter(child, "backoff")
        if now - child.said < QUIET:
            child.unsaid += 1
            return
        times_more = f" ({child.unsaid} more times since the last line)" if child.unsaid else ""
        child.said, child.unsaid = now, 0
        self._say(
            f"✗ {child.component.name} ended: {why}{times_more}; next start in {delay:g} s; "
            f"log: {child.status.log}"
        )

    def _tell(self, child: _Child, why: str, delay: float) -> None:
        """The failure as an event, by way of the spool: the agent may be what has failed."""
        payload = {
            "component": child.component.name,
            "pid": child.status.pid,
            "reason": why,
            "restarts": child.status.restarts,
            "restart_in_s": delay,
        }
        self._told += 1
        event = {
            "topic": "mesh.component.failed",
            "ts_utc": _now(),
            "source": "opsmesh",
            "component": "supervisor",
            "id": ids.uuid7(),
            "seq": self._told,
            "boot_id": self._boot_id,
            "payload": {key: value for key, value in payload.items() if value is not None},
        }
        with contextlib.suppress(OSError):  # a full disk must not end the mesh
            spool.write(paths.spool_dir(), [json.dumps(event).encode()])

    def _cannot_run(self, child: _Child, why: str) -> None:
        """A producer's tool may come back; nothing is said of a try that ended as the last one."""
        if child.status.tried:
            child.process = None
            child.status.pid = child.status.birth = None
        elif child.before is not None and time.monotonic() - child.started < STEADY:
            # it looked longer than SETTLE, on a machine that is busy, and was taken for running
            state, reason = child.before
            self._gone(child, reason or why)
            self._enter(child, state)
        else:
            self._give_up(child, why)
        if child.component.kind == "producer":
            child.status.tried = True
            child.next_try = time.monotonic() + again_after(child.tries)
            child.tries += 1
            self._write()

    def _give_up(self, child: _Child, why: str) -> None:
        self._gone(child, why)
        self._enter(child, "failed")
        self._say(f"✗ {child.component.name} cannot run: {why}; log: {child.status.log}")

    def _gone(self, child: _Child, why: str) -> None:
        child.process = None
        child.status.pid = child.status.birth = None
        child.status.last_exit = why

    def _end_group(self, child: _Child, how: int) -> None:
        if child.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, how)

    def _stop(self) -> None:
        """End every component, the last rank first; what does not end in time is killed."""
        for rank in sorted({c.component.rank for c in self._children}, reverse=True):
            going = [c for c in self._children if c.component.rank == rank and c.process]
            for child in going:
                if child.process is not None and child.process.poll() is None:
                    child.process.send_signal(child.component.stop_signal)
            deadline = time.monotonic() + STOP_PATIENCE
            while alive := [c for c in going if c.process and c.process.poll() is None]:
                hurried = self._wait(deadline - time.monotonic())
                if hurried or time.monotonic() >= deadline:  # a second Ctrl-C ends the patience
                    for child in alive:
                        self._end_group(child, signal.SIGKILL)
                    for child in alive:
                        if child.process is not None:
                            child.process.wait()
            for child in going:
                self._end_group(child, signal.SIGTERM)
                code = child.process.returncode if child.process is not None else 0
                self._gone(child, component.exit_text(code or 0))
            for child in self._children:
                if child.component.rank == rank:
                    self._enter(child, "stopped")

    def _welcome(self) -> None:
        if not self._welcomed and self._state.settled:
            self._welcomed = True
            self._say(f"everything runs, NATS at {self._state.nats_url}")

    def _enter(self, child: _Child, state: str) -> None:
        child.status.state, child.status.since = state, _now()
        self._write()

    def _write(self) -> None:
        # a runtime folder that was swept away must not end the mesh; the next change tries again
        with contextlib.suppress(OSError):
            supervisor_state.path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            supervisor_state.write(self._state)


def _first(one: Component) -> _Child:
    status = Status(name=one.name, log=str(one.log), since=_now())
    if not one.waits_for:
        return _Child(one, status)
    status.state, status.last_exit, status.tried = "waiting", one.waits_for, True
    return _Child(one, status, next_try=time.monotonic() + again_after(0), tries=1)


def _now() -> str:
    return times.format_us(times.now_us())
