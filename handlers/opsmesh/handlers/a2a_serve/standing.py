"""A run as a task: what the ledger says, in A2A's words. Pure."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import msgspec
from a2a.types import Artifact, Message, Part, Role, Task, TaskState, TaskStatus
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from opsmesh.handlers.a2a import words
from opsmesh.handlers.a2a_serve.records import Record
from opsmesh.handlers.runs.ledger import Run

_STATES: Final[dict[str, TaskState]] = {
    "queued": TaskState.TASK_STATE_SUBMITTED,
    "running": TaskState.TASK_STATE_WORKING,
    "retrying": TaskState.TASK_STATE_WORKING,
    "failing": TaskState.TASK_STATE_WORKING,
    "waiting": TaskState.TASK_STATE_INPUT_REQUIRED,
    "succeeded": TaskState.TASK_STATE_COMPLETED,
    "deadlettered": TaskState.TASK_STATE_FAILED,
    "skipped": TaskState.TASK_STATE_REJECTED,
    "cancelled": TaskState.TASK_STATE_CANCELED,
}
#: States after which nothing follows, and those in which somebody has to do something.
TERMINAL: Final = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }
)
WAITING: Final = frozenset({TaskState.TASK_STATE_INPUT_REQUIRED})
#: The names of what a result is made of.
TEXTS: Final = ("text", "stdout")


def task(record: Record, run: Run | None) -> Task:
    """The task as it stands; without a run it has been handed over, and is not begun."""
    state = TaskState.TASK_STATE_SUBMITTED if run is None else _state(run)
    changed_us = record.created_us if run is None else run.updated_us
    status = TaskStatus(state=state)
    status.timestamp.FromMicroseconds(changed_us)
    said = "" if run is None else _said(run)
    if said:
        parts = [Part(text=said, media_type="text/plain")]
        asked = None if run is None else run.question
        if asked is not None and asked.schema is not None:
            parts.append(_data({"schema": asked.schema}))
        status.message.CopyFrom(
            Message(
                message_id=f"{record.task_id}-{changed_us}",
                context_id=record.context_id,
                task_id=record.task_id,
                role=Role.ROLE_AGENT,
                parts=parts,
            )
        )
    first = ParseDict(record.message, Message(), ignore_unknown_fields=True)
    first.context_id, first.task_id = record.context_id, record.task_id
    found = Task(id=record.task_id, context_id=record.context_id, status=status, history=[first])
    if run is not None and state == TaskState.TASK_STATE_COMPLETED:
        found.artifacts.extend(_results(run))
    found.metadata.update({"skill": record.profile})
    return found


def mark(found: Task) -> str:
    """The same as long as there is no news."""
    said = "".join(part.text for part in found.status.message.parts)
    return f"{found.status.state}:{said}"


def _state(run: Run) -> TaskState:
    answered = run.state == "waiting" and run.asking is not None and run.question is None
    return TaskState.TASK_STATE_WORKING if answered else _STATES[run.state]


def _said(run: Run) -> str:
    if run.state == "waiting":
        asked = run.question
        if asked is None and run.asking is not None:
            return "An answer is there."
        prompt = asked.prompt if asked is not None else "nobody knows how a step went"
        return f"Waits for an answer: {words.text(prompt, 2000)[0]}"
    if run.state == "retrying":
        return f"Attempt {run.attempt} failed; there will be another."
    if run.state == "deadlettered":
        error = run.errors[-1].error if run.errors else run.reason
        return words.text(error or "it failed", 2000)[0]
    if run.state in ("skipped", "cancelled"):
        return words.text(run.reason, 2000)[0]
    if run.state == "running" and len(run.steps) > 1:
        return f"Step {len(run.steps)}: {run.steps[-1].id}"
    return ""


def _results(run: Run) -> list[Artifact]:
    """What the last step gave, and how the run went."""
    last = run.steps[-1] if run.steps else None
    output = dict(last.output) if last else {}
    facts: dict[str, Any] = {
        "runId": run.run_id,
        "profile": run.profile,
        "attempts": run.attempt,
        "durationMs": run.duration_ms,
        "steps": [
            {"id": step.id, "action": step.action, "outcome": step.state} for step in run.steps
        ],
    }
    if run.evidence_path:  # a name to ask for, not a path of this machine
        facts["evidence"] = run.evidence_path.rstrip("/").rsplit("/", 1)[-1]
    made = Artifact(artifact_id="result", name="result", parts=[_made(output)])
    went = Artifact(artifact_id="run", name="run", parts=[_data(facts)])
    return [made, went]


def _made(output: dict[str, Any]) -> Part:
    """The text of a step, as data where it is JSON; else everything that it gave."""
    said = next((output[key] for key in TEXTS if isinstance(output.get(key), str)), None)
    if isinstance(output.get("data"), dict | list):
        return _data(output["data"])
    if said is None:
        return _data(output)
    if said.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            return _data(msgspec.json.decode(said))
    return Part(text=words.text(said.rstrip("\n"))[0], media_type="text/plain")


def _data(value: Any) -> Part:
    kept, _ = words.data(value)
    return Part(data=ParseDict(words.exact(kept), Value()), media_type="application/json")
