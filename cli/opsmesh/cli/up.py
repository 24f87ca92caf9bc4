"""`opsmesh up` and `opsmesh down`: become or start the supervisor, and end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from opsmesh.cli import components, config_file, output
from opsmesh.handlers.profiles import starter
from opsmesh.router import component, launch, paths, running, state_format, supervisor_state
from opsmesh.router.containers import look
from opsmesh.router.errors import AlreadyRunning
from opsmesh.router.hub import cluster
from opsmesh.router.settings import Settings
from opsmesh.router.supervisor_state import State, Status
from opsmesh.router.units import names
from opsmesh.router.units import state as units

#: Seconds that `up --detach` waits for every component: a large store takes a while to open.
WAIT = 60.0
#: Seconds that `down` waits: longer than the supervisor gives its four ranks.
DOWN_WAIT = 45.0
#: Lines of a log that are shown when its component did not start.
TAIL_LINES = 8


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Go on in the background once all run.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="With --detach: how long to wait.")
    ] = WAIT,
) -> None:
    """Start the mesh: broker, agent, handlers, sink, and the producers whose tools are here.

    Stays in the foreground until Ctrl-C unless --detach is given. What dies is started again; a
    producer whose tool comes later is started then.
    With --detach a mesh that runs already is left as it is.
    """
    config_file.read()  # stricter than Settings: a key given twice, a file that is no mapping
    settings = Settings()
    if (hindrance := state_format.hindrance()) is not None:
        raise hindrance
    if (state := units.running()) is not None:
        already = AlreadyRunning("opsmesh, as units of systemd,", None, hint=_stop_hint(state))
        if not detach:
            raise already
        print(f"{already}; opsmesh status shows how it is")
        return
    try:
        lock = supervisor_state.lock()
    except AlreadyRunning as running:
        if not detach:
            raise
        print(f"{running}; opsmesh status shows how it is")
        return
    supervisor_state.end_leftovers()
    _refuse_beside_containers()
    if written := starter.write(Path(paths.config_dir())):
        print(f"wrote {written}: what runs when something happens; it is yours to change")
    plan = components.plan(settings)
    argv, plan_fd = launch.command(plan.components, nats_url=plan.nats_url, lock=lock)
    if not detach:
        output.note("starting; Ctrl-C stops everything; in another terminal: opsmesh status")
        for descriptor in (lock, plan_fd):
            os.set_inheritable(descriptor, True)
        sys.stdout.flush()
        os.execv(argv[0], argv)  # noqa: S606 (the process that stays is the light one)
    log = component.logs_dir() / "supervisor.log"
    descriptor = component.open_log(log)
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=descriptor,
        stderr=descriptor,
        pass_fds=(lock, plan_fd),
        start_new_session=True,
    )
    os.close(lock)
    os.close(plan_fd)
    _watch_start(process, log, wait)


def _refuse_beside_containers() -> None:
    """Their broker may run while none of those that hold the lock does: two on one store would
    destroy it."""
    if look.mesh() is not None:
        output.fail("the mesh runs already, in containers", hint="stop it first: make compose-down")


def _watch_start(process: subprocess.Popen[bytes], log: Path, wait: float) -> None:
    """Say each component that becomes ready; end with an error when one does not."""
    said: set[str] = set()
    deadline = time.monotonic() + wait
    while True:
        state = supervisor_state.running()
        for status in state.components if state else ():
            if status.state == "running" and status.name not in said:
                said.add(status.name)
                print(status.line, flush=True)
        if state and state.settled:
            print(f"everything runs, NATS at {state.nats_url}")
            if waiting := [c.name.partition(":")[2] for c in state.components if c.tried]:
                print(f"waiting for their tools: {', '.join(waiting)} (opsmesh producer ls)")
            print("next: opsmesh status · opsmesh tail · opsmesh down")
            return
        if process.poll() is not None:
            output.fail(
                f"the supervisor ended with code {process.returncode}", hint=_tail(str(log))
            )
        late = state is None or all(
            c.state in ("running", "failed", "waiting") for c in state.components
        )
        if time.monotonic() >= deadline or (state is not None and late):
            _fail_start(state, wait)
        time.sleep(0.03)


def _fail_start(state: State | None, wait: float) -> None:
    late = ("starting", "backoff", "failed", "stopped")
    waiting = [c for c in state.components if c.state in late] if state else []
    for status in waiting:
        print(status.line)
        print(_tail(status.log))
    names = ", ".join(status.name for status in waiting) or "the supervisor"
    hint = "the rest runs on, and what failed is tried again: opsmesh status · opsmesh down"
    if cluster.read() is not None:
        hint = f"two nodes of three must run before anything is stored; {hint}"
    output.fail(f"not running within {wait:g} s: {names}", hint=hint)


def _tail(log: str) -> str:
    try:
        with Path(log).open(errors="replace") as file:
            return "".join(f"    {line}" for line in deque(file, TAIL_LINES)).rstrip()
    except OSError:
        return ""


def down(
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the end.")
    ] = DOWN_WAIT,
) -> None:
    """Stop the mesh, units of systemd too, and wait until it has ended.

    Does nothing when none runs.
    """
    state = running.mesh()
    if state is None:
        print("no mesh runs here")
        return
    if state.containers:
        output.fail("the mesh here runs in containers", hint="make compose-down")
    if state.manager:
        _stop_units(state.manager, timeout)
        return
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while state.alive:
        if time.monotonic() >= deadline:
            output.fail(
                f"still stopping after {timeout:g} s (pid {state.pid}): {_still_up()}",
                hint="wait for it again: opsmesh down",
            )
        time.sleep(0.02)
    print(f"stopped {sum(c.pid is not None for c in state.components)} components")


def _stop_hint(state: State) -> str:
    manager = state.manager or "user"
    return f"end them first: {names.for_people(manager, 'stop', names.TARGET)}"


def _stop_units(manager: names.Manager, timeout: float) -> None:
    command = names.stop(manager)
    shown = names.for_people(manager, "stop", names.TARGET)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        output.fail(f"still stopping after {timeout:g} s", hint="wait for it again: opsmesh down")
    if done.returncode:
        output.fail(f"systemd did not stop the units: {done.stderr.strip()}", hint=shown)
    again = "login" if manager == "user" else "boot"
    print(f"stopped the units ({shown})")
    print(
        f"the next {again} starts them again; not that either: "
        f"{names.for_people(manager, 'disable', names.TARGET)}"
    )


def _still_up() -> str:
    state = supervisor_state.running()
    left: list[Status] = [c for c in state.components if c.pid] if state else []
    return ", ".join(c.name for c in left) or "the supervisor"
