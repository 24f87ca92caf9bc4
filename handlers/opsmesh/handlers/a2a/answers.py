"""What an agent says, as plain and bounded facts. Pure: no I/O, and nothing is believed.

The one rule: a task of another id or another conversation than the one we asked in is no answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from a2a.types import (
    Artifact,
    Message,
    Part,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatusUpdateEvent,
)
from google.protobuf.json_format import MessageToDict

from opsmesh.handlers.a2a import words
from opsmesh.handlers.errors import AgentFault

State = Literal[
    "unknown",
    "submitted",
    "working",
    "completed",
    "failed",
    "canceled",
    "rejected",
    "input_required",
    "auth_required",
]
#: A2A 1.0, section 4.1.3: the ends, and what waits for us.
ENDS: Final = frozenset({"completed", "failed", "canceled", "rejected"})
WAITS: Final = frozenset({"input_required", "auth_required"})

_STATES: Final[dict[int, State]] = {
    TaskState.TASK_STATE_SUBMITTED: "submitted",
    TaskState.TASK_STATE_WORKING: "working",
    TaskState.TASK_STATE_COMPLETED: "completed",
    TaskState.TASK_STATE_FAILED: "failed",
    TaskState.TASK_STATE_CANCELED: "canceled",
    TaskState.TASK_STATE_INPUT_REQUIRED: "input_required",
    TaskState.TASK_STATE_REJECTED: "rejected",
    TaskState.TASK_STATE_AUTH_REQUIRED: "auth_required",
}

#: Parts of one artifact, over all news of it.
MAX_PARTS: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a task stands. `mark` is the same as long as the agent says the same of the state."""

    state: State
    task_id: str | None = None
    said: str = ""
    mark: str = ""
    schema: dict[str, Any] | None = None
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    #: The first data of the artifacts.
    data: Any = None
    truncated: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing follows by itself."""
        return self.state in ENDS or self.state in WAITS


def check(agent: str, task: Task, *, context_id: str, task_id: str | None) -> None:
    """AgentFault for a task that is not the one that was asked for."""
    if not task.id or len(task.id) > 256:
        raise AgentFault(agent, "it answered with a task that has no usable id")
    if task_id is not None and task.id != task_id:
        raise AgentFault(agent, f"it answered about task {task.id!r:.80}, not {task_id!r:.80}")
    if task.context_id and task.context_id != context_id:
        raise AgentFault(
            agent, f"it answered in the conversation {task.context_id!r:.80}, not in ours"
        )


def state_of(task: Task) -> State:
    """The state alone."""
    return _STATES.get(task.status.state, "unknown")


def standing(task: Task) -> Standing:
    """What a task says of itself."""
    status = task.status
    said, cut = _text_of(status.message.parts)
    mark = hashlib.sha256(
        b"\0".join(
            (
                str(status.state).encode(),
                status.message.message_id.encode(errors="replace"),
                status.timestamp.SerializeToString(),
                status.message.SerializeToString(deterministic=True)[: words.MAX_DATA],
            )
        )
    ).hexdigest()[:16]
    artifacts, data, left_out = _artifacts(task.artifacts)
    return Standing(
        state=state_of(task),
        task_id=task.id,
        said=said,
        mark=mark,
        schema=_schema_of(status.message.parts),
        artifacts=artifacts,
        data=data,
        truncated=cut or left_out,
    )


def direct(message: Message) -> Standing:
    """A message instead of a task: the agent has answered, and that is all."""
    artifact = Artifact(artifact_id="message", parts=message.parts)
    artifacts, data, left_out = _artifacts([artifact])
    said, cut = _text_of(message.parts)
    return Standing(
        state="completed", said=said, artifacts=artifacts, data=data, truncated=left_out or cut
    )


def apply(agent: str, task: Task, news: TaskStatusUpdateEvent | TaskArtifactUpdateEvent) -> None:
    """Bring a task up to date; AgentFault for news of another one."""
    if news.task_id != task.id or (news.context_id and news.context_id != task.context_id):
        raise AgentFault(
            agent, f"it sent news of task {news.task_id!r:.80}, not of {task.id!r:.80}"
        )
    if isinstance(news, TaskStatusUpdateEvent):
        task.status.CopyFrom(news.status)
        return
    known = next((a for a in task.artifacts if a.artifact_id == news.artifact.artifact_id), None)
    if known is None:
        if len(task.artifacts) >= words.MAX_ITEMS * 2:
            raise AgentFault(agent, f"it sent more than {len(task.artifacts)} artifacts")
        task.artifacts.append(news.artifact)
    elif not news.append:
        known.CopyFrom(news.artifact)
    elif len(known.parts) + len(news.artifact.parts) > MAX_PARTS:
        raise AgentFault(agent, f"it sent an artifact of more than {MAX_PARTS} parts")
    else:
        known.parts.extend(news.artifact.parts)


def _text_of(parts: Iterable[Part]) -> tuple[str, bool]:
    texts = [part.text for part in parts if part.HasField("text")]
    return words.text("\n".join(texts))


def _schema_of(parts: Iterable[Part]) -> dict[str, Any] | None:
    """The JSON Schema of an answer, where a data part of the question has one under `schema`."""
    for part in parts:
        if part.HasField("data") and part.data.HasField("struct_value"):
            found = MessageToDict(part.data)
            if isinstance(found, dict) and "schema" in found:
                return words.schema(found["schema"])
    return None


def _artifacts(artifacts: Iterable[Artifact]) -> tuple[list[dict[str, Any]], Any, bool]:
    found, first, cut = [], None, False
    for artifact in artifacts:
        parts = []
        for part in _joined(artifact.parts):
            plain, part_cut = _plain(part)
            cut = cut or part_cut
            parts.append(plain)
            if first is None and "data" in plain and not part_cut:
                first = plain["data"]
        kept, left_out = words.fit(parts)
        cut = cut or left_out
        about = {
            "id": words.text(artifact.artifact_id, 200)[0],
            "name": words.text(artifact.name, 200)[0],
            "description": words.text(artifact.description, 1000)[0],
        }
        found.append({**{k: v for k, v in about.items() if v}, "parts": kept})
    kept_all, left_out = words.fit(found)
    return kept_all, first, cut or left_out


def _joined(parts: Iterable[Part]) -> list[Part]:
    """Pieces of text that came one after the other, as one."""
    joined: list[Part] = []
    for part in parts:
        if part.HasField("text") and joined and joined[-1].HasField("text"):
            joined[-1].text += part.text
        else:
            joined.append(Part.FromString(part.SerializeToString()))
    return joined


def _plain(part: Part) -> tuple[dict[str, Any], bool]:
    about: dict[str, Any] = {}
    if part.media_type:
        about["media_type"] = words.text(part.media_type, 100)[0]
    if part.filename:  # a name to show, never a path
        about["filename"] = words.text(part.filename, 200)[0]
    if part.HasField("text"):
        said, cut = words.text(part.text)
        return {**about, "text": said}, cut
    if part.HasField("data"):
        value, cut = words.data(MessageToDict(part.data))
        return {**about, "data": value}, cut
    if part.HasField("raw"):
        return {**about, **words.raw(part.raw)}, True
    if part.HasField("url"):  # never fetched
        return {**about, "url": words.text(part.url, 2000)[0]}, False
    return about, False
