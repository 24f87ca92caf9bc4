"""What is told of a command's outcome: which event, or none."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from opsmesh.producers.exec.bridge import Unfinished
from opsmesh.producers.exec.child import Outcome

COMMAND_FAILED: Final = "shell.command.failed"
RUN_TIMEOUT: Final = "python.run.timeout"
TEST_FAILED: Final = "python.test.failed"

#: Statuses of a command that its user interrupted: not a failure.
INTERRUPTED: Final = (-signal.SIGINT, 128 + signal.SIGINT)


@dataclass(frozen=True)
class Report:
    """One event to emit."""

    topic: str
    payload: dict[str, Any]
    component: str


def of_outcome(
    outcome: Outcome, argv: Sequence[str], *, cwd: str, timeout: float | None
) -> Report | None:
    """The event that the outcome is; None for success, an interrupt, and a reader that left."""
    facts = {
        "argv": list(argv),
        "cwd": cwd,
        "duration_ms": outcome.duration_ms,
        "output_tail": outcome.output_tail,
    }
    program = os.path.basename(argv[0])  # noqa: PTH119
    if outcome.timed_out:
        more = {"timeout_s": timeout, "signal": outcome.stopped_by, "pid": outcome.pid}
        return Report(RUN_TIMEOUT, {**facts, **more}, program)
    if outcome.status == 0 or outcome.interrupted or outcome.status in INTERRUPTED:
        return None
    if outcome.output_closed and outcome.status in (-signal.SIGPIPE, 128 + signal.SIGPIPE):
        return None  # `… | head`: its reader had enough
    if outcome.signal:
        return Report(COMMAND_FAILED, {**facts, "signal": outcome.signal}, program)
    return Report(COMMAND_FAILED, {**facts, "exit_code": outcome.status}, program)


def of_unfinished(session: Unfinished, *, cwd: str) -> Report:
    """A run that vanished (os._exit, a signal) tells nothing itself: its mark does."""
    file = session.test.partition("::")[0] if session.framework == "pytest" else ""
    payload = {
        "nodeid": session.test or "(before the first test)",
        "phase": "crash",
        "message": f"{session.framework} (pid {session.pid}) ended before its tests were finished",
        "path": file or None,
        "rootdir": cwd,
    }
    known = {name: value for name, value in payload.items() if value}
    return Report(TEST_FAILED, known, session.framework)
