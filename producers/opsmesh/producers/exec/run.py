"""`opsmesh exec`: run the command, then tell of it. The mesh never delays or fails the command."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from opsmesh.producers.exec import bridge, child, report
from opsmesh.producers.exec.child import Outcome
from opsmesh.producers.exec.report import Report
from opsmesh.producers.host import Host
from opsmesh.router import session
from opsmesh.router.client import Client
from opsmesh.schemas import ids

#: Seconds that an event may wait for the agent's answer before the spool takes it.
ANSWER: Final = 1.0
#: Exit codes of a command that cannot be started (POSIX shells): not there, not executable.
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def run(
    argv: Sequence[str],
    *,
    timeout: float | None = None,
    grace: float = 5.0,
    workspace: str | None = None,
    watch_pytest: bool = True,
    watch_marimo: bool = True,
) -> int:
    """Run the command, emit what is to be told, and give the command's exit code."""
    cwd = _cwd()
    env = {**os.environ, "OPSMESH_RUN_ID": ids.uuid7()}
    env.setdefault("OPSMESH_CORRELATION_ID", env["OPSMESH_RUN_ID"])
    if workspace:
        env["OPSMESH_WORKSPACE"] = workspace
    marks = None
    if watch_pytest or watch_marimo:
        with contextlib.suppress(OSError):  # a state folder that cannot be written: not watched
            marks = bridge.Marks()
            env = bridge.environment(env, marks.path)
    for watched, switch in ((watch_pytest, "OPSMESH_PYTEST"), (watch_marimo, "OPSMESH_MARIMO")):
        if not watched:
            env[switch] = "0"
    try:
        outcome = _run(argv, env, timeout=timeout, grace=grace)
        reports = [report.of_outcome(outcome, argv, cwd=cwd, timeout=timeout)]
        if marks:
            reports += [report.of_unfinished(one, cwd=cwd) for one in marks.unfinished()]
        _tell([one for one in reports if one], outcome, env, cwd)
        return outcome.exit_code
    except KeyboardInterrupt:  # before the command's start, or while its event is sent
        return 128 + signal.SIGINT
    finally:
        if marks:
            marks.close()


def _run(
    argv: Sequence[str], env: Mapping[str, str], *, timeout: float | None, grace: float
) -> Outcome:
    try:
        return child.run(argv, env=env, timeout=timeout, grace=grace)
    except OSError as error:
        reason = f"opsmesh exec: {argv[0]}: {error.strerror or error}"
        print(reason, file=sys.stderr)
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        return Outcome(status=status, duration_ms=0.0, pid=0, output_tail=reason)


def _tell(reports: Sequence[Report], outcome: Outcome, env: Mapping[str, str], cwd: str) -> None:
    if not reports:
        return
    client = Client(timeout=ANSWER)
    host = Host("exec", client=client, patient=False)
    try:
        for one in reports:
            host.emit(
                one.topic,
                one.payload,
                component=one.component,
                session=session.of_environment(env),
                workspace=session.workspace(cwd, env),
                run_id=env["OPSMESH_RUN_ID"],
                correlation_id=env["OPSMESH_CORRELATION_ID"],
                causation_id=env.get("OPSMESH_EVENT_ID"),
                hops=int(hops) if (hops := env.get("OPSMESH_HOPS", "")).isdecimal() else None,
                exit_code=outcome.exit_code,
                duration_ms=outcome.duration_ms,
            )
    except Exception as error:  # noqa: BLE001, RUF100 (the command's exit code is what counts)
        print(f"opsmesh exec: the event was not kept: {error}", file=sys.stderr)
    finally:
        client.close()


def _cwd() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return ""
