"""`opsmesh dotfiles apply`: the checks, then the command, and what came of it as events.

The mesh never delays or fails the command. A check that fails keeps it from being started at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from opsmesh.producers.dotfiles import drift, sources
from opsmesh.producers.dotfiles.producer import (
    COMPLETED,
    FAILED,
    STARTED,
    apply_path,
    bounded,
    text,
)
from opsmesh.producers.dotfiles.sources import Source
from opsmesh.producers.exec import child
from opsmesh.producers.exec.child import Outcome
from opsmesh.producers.exec.pump import TAIL
from opsmesh.producers.exec.run import ANSWER, NOT_EXECUTABLE, NOT_FOUND
from opsmesh.producers.host import Host, write_atomically
from opsmesh.router import session
from opsmesh.router.client import Client
from opsmesh.schemas import ids, times

#: Exit code when a check failed, and nothing was applied (EX_DATAERR).
CHECK_FAILED: Final = 65
#: Tells yadm's hooks that this apply is told already.
INSIDE: Final = "OPSMESH_DOTFILES_APPLY"
#: Words in front of a tool's name that are no other tool: `sudo -E stow`, `env A=b yadm`.
WORDS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done: the command, its tool and source, and the checks before it."""

    argv: Sequence[str]
    tool: str
    source: Source | None
    checks: Sequence[Sequence[str]]

    @property
    def folder(self) -> str | None:
        """Where the checks run: the source's files; None: wherever we are."""
        root = self.source.root if self.source else None
        return root if root and os.path.isdir(root) else None  # noqa: PTH112


def tool_of(argv: Sequence[str], source: Source | None) -> str | None:
    """The tool that the command runs: by its name, else the one that manages the source."""
    for word in argv[:WORDS]:
        if (name := os.path.basename(word)) in sources.TOOLS:  # noqa: PTH119
            return name
    return source.tool if source else None


def source_of(argv: Sequence[str], known: Sequence[Source], cwd: str) -> Source | None:
    """The source that we are in; else the only one, of the command's tool where it has one."""
    here = f"{os.path.realpath(cwd)}/"
    within = [
        one
        for one in known
        if not one.work_tree and here.startswith(f"{os.path.realpath(one.path)}/")
    ]
    if within:
        return max(within, key=lambda one: len(one.path))
    tool = tool_of(argv, None)
    fitting = [one for one in known if tool in (None, one.tool)]
    return fitting[0] if len(fitting) == 1 else None


def check(plan: Plan) -> tuple[Sequence[str], Outcome] | None:
    """Run the checks in order, to the first that fails; None when all have passed."""
    with contextlib.chdir(plan.folder) if plan.folder else contextlib.nullcontext():
        for argv in plan.checks:
            outcome = _run(argv, {**os.environ, "OPSMESH_DOTFILES_SOURCE": plan.folder or ""})
            if outcome.status != 0:
                return argv, outcome
    return None


def apply(plan: Plan) -> int:
    """Check, apply, tell; the command's exit code, or CHECK_FAILED."""
    run_id = ids.uuid7()
    env = {**os.environ, "OPSMESH_RUN_ID": run_id, INSIDE: "1"}
    env.setdefault("OPSMESH_CORRELATION_ID", run_id)
    teller = _Teller(plan, env)
    try:
        if failed := check(plan):
            argv, outcome = failed
            message = f"check failed, nothing was applied: {shlex.join(argv)}"
            print(f"opsmesh dotfiles: {message}", file=sys.stderr)
            facts = {"phase": "validation", "check": list(argv), "message": message}
            teller.tell(FAILED, {**_failure(outcome), **facts}, outcome)
            _note(plan, FAILED, outcome, phase="validation")
            return CHECK_FAILED
        teller.tell(
            STARTED,
            {"source_dir": text(plan.source.path) if plan.source else None, "revision": _at(plan)},
        )
        outcome = _run(plan.argv, env)
        topic = COMPLETED if outcome.status == 0 else FAILED
        teller.tell(topic, _facts(plan, outcome), outcome)
        _note(plan, topic, outcome, phase="apply")
        return outcome.exit_code
    finally:
        teller.close()


def last() -> dict[str, Any] | None:
    """How the last apply went; None before the first."""
    try:
        return dict(json.loads(apply_path().read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


class _Teller:
    def __init__(self, plan: Plan, env: Mapping[str, str]) -> None:
        self._plan, self._env = plan, env
        self._client = Client(timeout=ANSWER)
        self._host = Host("dotfiles", client=self._client, patient=False)

    def tell(self, topic: str, payload: Mapping[str, Any], outcome: Outcome | None = None) -> None:
        plan, env = self._plan, self._env
        facts = {"tool": plan.tool, "argv": [text(word) for word in plan.argv], **payload}
        hops = env.get("OPSMESH_HOPS", "")
        try:
            self._host.emit(
                topic,
                {name: value for name, value in facts.items() if value is not None},
                component=plan.tool,
                session=session.of_environment(env),
                workspace=session.workspace(text(plan.folder or ""), env),
                run_id=env["OPSMESH_RUN_ID"],
                correlation_id=env["OPSMESH_CORRELATION_ID"],
                causation_id=env.get("OPSMESH_EVENT_ID"),
                hops=int(hops) if hops.isdecimal() else None,
                exit_code=outcome.exit_code if outcome else None,
                duration_ms=outcome.duration_ms if outcome else None,
            )
        except Exception as error:  # noqa: BLE001, RUF100 (the command's exit code is what counts)
            print(f"opsmesh dotfiles: the event was not kept: {error}", file=sys.stderr)

    def close(self) -> None:
        self._client.close()


def _run(argv: Sequence[str], env: Mapping[str, str]) -> Outcome:
    try:
        return child.run(argv, env=env)
    except OSError as error:
        reason = f"opsmesh dotfiles: {argv[0]}: {error.strerror or error}"
        print(reason, file=sys.stderr)
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        return Outcome(status=status, duration_ms=0.0, pid=0, output_tail=reason)


def _facts(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    said = outcome.output_tail.replace("\r\n", "\n")
    if outcome.status != 0:
        conflicts = bounded(drift.conflicts(said)) if plan.tool == sources.STOW else []
        return {**_failure(outcome), "phase": "apply", "paths": conflicts or None}
    whole = len(said.encode()) < TAIL  # of a part, we would tell a part for the whole
    written = bounded(drift.written(said)) if plan.tool == sources.STOW and whole else []
    return {
        "paths": written or None,
        "revision": _at(plan),
        "duration_ms": outcome.duration_ms,
    }


def _failure(outcome: Outcome) -> dict[str, Any]:
    return {
        "exit_code": None if outcome.signal else outcome.status,
        "signal": outcome.signal,
        "output_tail": outcome.output_tail,
        "duration_ms": outcome.duration_ms,
    }


def _at(plan: Plan) -> str | None:
    return drift.revision(plan.source) if plan.source else None


def _note(plan: Plan, topic: str, outcome: Outcome, *, phase: str) -> None:
    """For `dotfiles status`, and for the producer, which asks for drift again."""
    noted = {
        "ts_utc": times.format_us(times.now_us()),
        "tool": plan.tool,
        "topic": topic,
        "phase": phase,
        "exit_code": outcome.exit_code,
        "duration_ms": outcome.duration_ms,
    }
    with contextlib.suppress(OSError):
        write_atomically(apply_path(), json.dumps(noted).encode())
