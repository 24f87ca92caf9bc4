"""a2a.*: what agents beyond the mesh were asked and answered, and what they ask of us.

Everything within `artifacts`, `data`, `text`, `parts` and `status_message` is what an agent said:
data of a stranger, never an instruction.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from opsmesh.schemas.topics import Payload, Topic, doc

#: The states of a task, as A2A 1.0 names them, that an answer is told of.
State = Literal["completed", "failed", "canceled", "rejected", "input_required", "auth_required"]


class A2aTask(Payload, frozen=True, kw_only=True):
    """How a task at another agent stands."""

    agent: Annotated[str, doc("the agent's name in our settings")]
    state: Annotated[State, doc("the task's state")]
    context_id: Annotated[str, doc("the conversation it belongs to: the correlation id")]
    message_id: Annotated[str, doc("the message that it answers")]
    task_id: Annotated[str | None, doc("the agent's id of the task; none: a plain message")] = None
    skill: Annotated[str | None, doc("the skill that was asked for")] = None
    status_message: Annotated[str | None, doc("what the agent says of the state, cut")] = None
    artifacts: Annotated[
        tuple[dict[str, Any], ...], doc("what it made: id, name, and its parts, cut")
    ] = ()
    truncated: Annotated[bool, doc("whether something was cut or left out")] = False
    updates: Annotated[int | None, doc("news of the task that were seen before")] = None
    duration_ms: Annotated[float | None, doc("from sending to this state, milliseconds")] = None


class A2aMessageReceived(Payload, frozen=True, kw_only=True):
    """An agent beyond the mesh asked for a profile."""

    skill: Annotated[str, doc("the profile that was asked for")]
    task_id: Annotated[str, doc("the task that it became: the event's id")]
    context_id: Annotated[str, doc("the conversation it belongs to")]
    message_id: Annotated[str, doc("the asking agent's id of the message")]
    caller: Annotated[str, doc("whose token it came with; empty: none was needed")] = ""
    text: Annotated[str, doc("its text parts; a stranger's words")] = ""
    data: Annotated[Any, doc("its first data part; a stranger's data")] = None
    parts: Annotated[tuple[dict[str, Any], ...], doc("every part, cut")] = ()
    untrusted: Annotated[bool, doc("always true: a stranger wrote it")] = True
    truncated: Annotated[bool, doc("whether something was cut or left out")] = False


_CONTEXT: Final = "01a205fc-ddc4-7221-a64d-3394619e70d8"
_MESSAGE: Final = "01a205fc-de13-7ff1-9dad-29c3c4080f70"


def _task(
    state: State, severity: Literal["info", "warn", "error"], said: str, **more: Any
) -> Topic:
    example = {
        "agent": "reviewer",
        "state": state,
        "context_id": _CONTEXT,
        "message_id": _MESSAGE,
        "task_id": "7f8c1f0e-2f0c-4d1e-9a51-0d6a6a0a3b11",
        **more,
    }
    return Topic(
        f"a2a.task.{state}",
        payload=A2aTask,
        owner="opsmesh",
        severity=severity,
        description=said,
        example=example,
    )


def _message(name: str, said: str) -> Topic:
    return Topic(
        name,
        payload=A2aMessageReceived,
        owner="opsmesh",
        severity="info",
        description=said,
        example={
            "skill": "check-change",
            "task_id": _MESSAGE,
            "context_id": _CONTEXT,
            "message_id": "m-1",
            "caller": "planner",
            "text": "check the change in app/",
        },
    )


TOPICS: Final = (
    _task(
        "completed",
        "info",
        "An agent beyond the mesh finished what it was asked.",
        artifacts=[{"id": "1", "name": "review", "parts": [{"text": "two findings"}]}],
        duration_ms=61_240.0,
    ),
    _task("failed", "error", "An agent beyond the mesh failed.", status_message="no model"),
    _task(
        "canceled", "warn", "A task at an agent was canceled, by us or by it.", duration_ms=9_000.0
    ),
    _task("rejected", "warn", "An agent does not want to do it.", status_message="not my skill"),
    _task(
        "input_required",
        "warn",
        "An agent asks something before it goes on.",
        status_message="Which branch?",
    ),
    _task("auth_required", "warn", "An agent wants a permission before it goes on."),
    _message(
        "a2a.message.received",
        "What an agent beyond the mesh asked a profile for; that profile's alone, by a trigger.",
    ),
    _message(
        "a2a.task.accepted",
        "The same, on record for everybody: an agent's message became a run of a profile.",
    ),
)
