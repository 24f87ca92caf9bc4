"""What we say: an event as a message, and a person's answer.

The message's id is the step's own, so that what is sent again is the same message to whoever looks
at ids. An envelope's sequence and whatever a double cannot hold go as text.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from a2a.types import Message, Part, Role
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value

from opsmesh.handlers.a2a import words
from opsmesh.handlers.actions.contract import StepContext
from opsmesh.schemas import ids

#: Marks a message with an event's envelope in it; an agent that does not know it sees plain data.
EXTENSION: Final = "urn:opsmesh:a2a:event:1"
#: The key, in a part's metadata, that says what the part is.
KIND: Final = "opsmesh.kind"
ENVELOPE: Final = "envelope"


def message_id(ctx: StepContext, *about: str, attempt: int | None = None) -> str:
    """The id of what an attempt of this step says, this one unless given."""
    facts = (ctx.idempotency_key, str(attempt or ctx.attempt))
    return ids.derived(ctx.event.ts_us // 1000, "a2a", *facts, *about)


def about_event(
    ctx: StepContext, *, id: str, said: Any, skill: str | None, envelope: bool
) -> Message:
    """The event, and what the profile says of it: a text, or data."""
    parts = [_part(said)] if said not in (None, "") else []
    if envelope:
        part = Part(data=_value(_envelope(ctx)), media_type="application/json")
        part.metadata.update({KIND: ENVELOPE})
        parts.append(part)
    message = Message(
        message_id=id,
        context_id=ctx.event.correlation_id,
        role=Role.ROLE_USER,
        parts=parts,
        extensions=[EXTENSION] if envelope else [],
    )
    if skill is not None:  # the protocol has no field for it; agents that route by it look here
        message.metadata.update({"skill": skill, "skillId": skill})
    return message


def answer(ctx: StepContext, *, id: str, task_id: str, value: Any, comment: str) -> Message:
    """What a person answered to the agent's question."""
    parts = [_part(value)]
    if comment:
        parts.append(Part(text=comment))
    return Message(
        message_id=id,
        context_id=ctx.event.correlation_id,
        task_id=task_id,
        role=Role.ROLE_USER,
        parts=parts,
    )


def _part(said: Any) -> Part:
    if isinstance(said, str):
        return Part(text=said, media_type="text/plain")
    return Part(data=_value(said), media_type="application/json")


def _envelope(ctx: StepContext) -> dict[str, Any]:
    data, _ = ctx.redactor.event(ctx.data, otherwise=ctx.event.id)
    fields: dict[str, Any] = msgspec.json.decode(data)
    if fields.get("seq") is not None:
        fields["seq"] = str(fields["seq"])
    return fields


def _value(value: Any) -> Value:
    return ParseDict(words.exact(value), Value())


def struct(value: dict[str, Any]) -> Struct:
    """Metadata as A2A takes it."""
    return ParseDict(words.exact(value), Struct())
