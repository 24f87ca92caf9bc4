"""What is told of a command's outcome: which event, or none."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from opsmesh.producers.exec.child import Outcome
from opsmesh.producers.exec.pytest_bridge import Unfinished

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
    if outcome.timed_out:
        more = {"timeout_s": timeout, "signal": outcome.stopped_by, "pid": outcome.pid}
        return Report(RUN_TIMEOUT, {**facts, **more})
    if outcome.status == 0 or outcome.interrupted or outcome.status in INTERRUPTED:
        return None
    if outcome.output_closed and outcome.status in (-signal.SIGPIPE, 128 + signal.SIGPIPE):
        return None  # `… | head`: its reader had enough
    if outcome.signal:
        return Report(COMMAND_FAILED, {**facts, "signal": outcome.signal})
    return Report(COMMAND_FAILED, {**facts, "exit_code": outcome.status})


def of_unfinished(session: Unfinished, *, cwd: str) -> Report:
    """A pytest that vanished (os._exit, a signal) tells nothing itself: its mark does."""
    payload = {
        "nodeid": session.nodeid or "(before the first test)",
        "phase": "crash",
        "message": f"pytest (pid {session.pid}) ended before its session was finished",
        "path": session.nodeid.partition("::")[0] or None,
        "rootdir": cwd,
    }
    return Report(TEST_FAILED, {name: value for name, value in payload.items() if value})
