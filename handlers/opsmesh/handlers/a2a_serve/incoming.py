"""A stranger's message as an event for a profile. Pure.

The one rule: what it says is data under `payload`; of what it claims to be, only the story
(correlation, cause, hops) is gone on with, and hops only ever grow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from a2a.types import Message, Part
from a2a.utils.errors import ContentTypeNotSupportedError, InvalidParamsError
from google.protobuf.json_format import MessageToDict

from opsmesh.handlers.a2a import words
from opsmesh.handlers.a2a.messages import ENVELOPE, KIND
from opsmesh.handlers.a2a_serve.records import Record
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event
from opsmesh.schemas.redact import Redactor

#: `source` of the events.
SOURCE: Final = "a2a"
RECEIVED, ACCEPTED = "a2a.message.received", "a2a.task.accepted"
#: Characters of ids that strangers make.
MAX_ID: Final = 256
#: Hops beyond which nobody counts.
MAX_HOPS: Final = 1000
#: Where a message names the skill that it wants.
SKILL_KEYS: Final = ("skill", "skillId", "skill_id")


@dataclass(frozen=True, kw_only=True)
class Story:
    """What an event in the message says of where it comes from."""

    cause: str | None = None
    hops: int = 0
    host: str = ""


def skill_of(message: Message, exposed: Iterable[str]) -> str:
    """The skill that a message wants: the one it names, or the only one. InvalidParamsError when
    that is none of ours."""
    names = list(exposed)
    metadata = MessageToDict(message.metadata)
    wanted = next((metadata[key] for key in SKILL_KEYS if metadata.get(key)), None)
    if wanted is None and len(names) == 1:
        return names[0]
    if isinstance(wanted, str) and wanted in names:
        return wanted
    known = ", ".join(names) or "none"
    if wanted is None:
        raise InvalidParamsError(f"name a skill as `skill` in the message's metadata: {known}")
    raise InvalidParamsError(f"no skill {str(wanted)[:80]!r} here; there are: {known}")


def check(message: Message) -> None:
    """InvalidParamsError for a message that cannot be taken, ContentTypeNotSupportedError for one
    of parts that we cannot read."""
    if not message.message_id or len(message.message_id) > MAX_ID:
        raise InvalidParamsError(f"messageId has 1 to {MAX_ID} characters")
    if len(message.context_id) > MAX_ID:
        raise InvalidParamsError(f"contextId has up to {MAX_ID} characters")
    if words.text(message.context_id, MAX_ID)[0] != message.context_id:
        raise InvalidParamsError("contextId holds control characters")
    if not message.parts:
        raise InvalidParamsError("a message has parts")
    if not any(part.HasField("text") or part.HasField("data") for part in message.parts):
        raise ContentTypeNotSupportedError("send text, or data")


def payload(message: Message, record: Record, redactor: Redactor) -> dict[str, Any]:
    """What the profile gets to see."""
    parts, data, texts, cut = [], None, [], False
    for part in list(message.parts)[: words.MAX_ITEMS]:
        plain, part_cut = _plain(part)
        cut = cut or part_cut
        parts.append(plain)
        if "text" in plain:
            texts.append(plain["text"])
        if data is None and "data" in plain and not _is_envelope(part):
            data = plain["data"]
    if data is None:  # an event alone is what is asked about
        data = next((one["data"] for one in parts if "data" in one), None)
    kept, left_out = words.fit(parts)
    text, text_cut = words.text("\n".join(texts))
    found = {
        "skill": record.profile,
        "task_id": record.task_id,
        "context_id": record.context_id,
        "message_id": record.message_id,
        "caller": record.caller,
        "text": text,
        "data": data,
        "parts": kept,
        "untrusted": True,
        "truncated": cut or left_out or text_cut or len(message.parts) > words.MAX_ITEMS,
    }
    clean, _ = redactor.redact(found, context=record.task_id)
    return clean


def story(message: Message) -> Story:
    """Where an event in the message says that it comes from; bounded, and not believed beyond."""
    for part in message.parts:
        if not _is_envelope(part):
            continue
        found = words.whole(MessageToDict(part.data))
        if not isinstance(found, dict):
            continue
        cause, hops, host = found.get("id"), found.get("hops"), found.get("host")
        return Story(
            cause=words.text(cause, MAX_ID)[0] if isinstance(cause, str) and cause else None,
            hops=min(hops, MAX_HOPS) if isinstance(hops, int) and hops >= 0 else 0,
            host=words.text(host, 80)[0] if isinstance(host, str) else "",
        )
    return Story()


def event(topic: str, record: Record, content: dict[str, Any], told: Story, *, host: str) -> Event:
    """The event that the profile is triggered with, or the one for the record."""
    main = topic == RECEIVED
    return Event(
        topic=topic,
        ts_utc=times.format_us(record.created_us),
        source=SOURCE,
        component=record.caller or SOURCE,
        severity="info",
        correlation_id=record.context_id,
        host=host,
        session_id="",
        workspace="",
        payload=content,
        id=record.task_id
        if main
        else ids.derived(record.created_us // 1000, record.task_id, topic),
        schema_version=SCHEMA_VERSION,
        causation_id=told.cause,
        hops=told.hops + 1,
    )


def kept(message: Message, redactor: Redactor, context: str) -> dict[str, Any]:
    """The message for the task's history: bounded, and without secrets."""
    short = Message(
        message_id=message.message_id,
        context_id=message.context_id,
        task_id=message.task_id,
        role=message.role,
    )
    left = words.MAX_ALL
    for part in list(message.parts)[: words.MAX_ITEMS]:
        left -= part.ByteSize()
        if left < 0 or part.HasField("raw"):
            continue
        short.parts.append(part)
    plain: dict[str, Any] = MessageToDict(short)
    clean, _ = redactor.redact(plain, context=context)
    return clean


def _is_envelope(part: Part) -> bool:
    return part.HasField("data") and bool(MessageToDict(part.metadata).get(KIND) == ENVELOPE)


def _plain(part: Part) -> tuple[dict[str, Any], bool]:
    if part.HasField("text"):
        said, cut = words.text(part.text)
        return {"text": said}, cut
    if part.HasField("data"):
        value, cut = words.data(MessageToDict(part.data))
        return {"data": value}, cut
    if part.HasField("raw"):
        return words.raw(part.raw), True
    return {"url": words.text(part.url, 2000)[0]}, False  # never fetched
