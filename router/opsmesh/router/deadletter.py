"""Dead letters: what no attempt could handle, with its original bytes and why.

A letter's body is the original message's body, byte for byte unless it holds a secret; original
headers keep their names, save those that the broker would act on (`Nats-*`), which are prefixed. A
letter leaves the stream only when a person (or a script of theirs) retries or drops it, and that is
an event of its own.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.router import topology
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.wire import Received
from opsmesh.schemas.envelope import host_token
from opsmesh.schemas.redact import Redactor, built_in

PREFIX: Final = "Opsmesh-"
ORIGINAL: Final = "Opsmesh-Original-"
#: Seconds to wait for the broker.
TIMEOUT: Final = 5.0
#: A header's value is cut here, in characters, so that a letter always fits into a message.
MAX_ERRORS: Final = 32 * 1024


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. `stored_us` is when it was written, in microseconds since the epoch."""

    seq: int
    stored_us: int
    profile: str
    profile_hash: str
    event_id: str
    topic: str
    host: str
    reason: str
    errors: list[dict[str, Any]]
    run_id: str
    origin: str
    origin_seq: int
    origin_us: int
    data: bytes
    headers: dict[str, str]


def subject(profile: str, host: str, topic: str) -> str:
    """`dlq.<profile>.<host>.<topic>`"""
    return f"dlq.{profile}.{host_token(host)}.{topic}"


async def write(
    client: Client,
    *,
    profile: str,
    host: str,
    topic: str,
    data: bytes,
    reason: str,
    msg_id: str,
    headers: Mapping[str, str] | None = None,
    profile_hash: str = "",
    event_id: str = "",
    errors: Sequence[Mapping[str, Any]] = (),
    run_id: str = "",
    origin: tuple[str, int, int] = ("", 0, 0),
    redactor: Redactor | None = None,
) -> int:
    """Store one letter and return its sequence; the same `msg_id` is stored once.

    `origin` is (stream, sequence, microseconds since the epoch) of the message that could not be
    handled. Secrets are taken out of everything. Raises what nats-py raises when the broker does
    not acknowledge.
    """
    redactor = redactor or built_in()
    data, _ = redactor.event(data, otherwise=event_id or msg_id)
    (reason, strange, errors), _ = redactor.redact(
        (reason, dict(headers or {}), list(errors)), context=f"letter:{msg_id}"
    )
    kept = {
        (ORIGINAL + name if name.startswith("Nats-") else name): value
        for name, value in strange.items()
        if not name.startswith(PREFIX)
    }
    facts = {
        "Profile": profile,
        "Profile-Hash": profile_hash,
        "Event-Id": event_id,
        "Topic": topic,
        "Host": host,
        "Reason": reason,
        "Run-Id": run_id,
        "Origin": ",".join(str(part) for part in origin),
    }
    own = {PREFIX + name: _one_line(value) for name, value in facts.items() if value}
    own[PREFIX + "Errors"] = _fitting(errors)
    ack = await client.jetstream(timeout=TIMEOUT).publish(
        subject(profile, host, topic),
        data,
        headers={**kept, **own, "Nats-Msg-Id": msg_id},
    )
    return ack.seq


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_ERRORS]


def _fitting(errors: Sequence[Mapping[str, Any]]) -> str:
    """The newest errors as JSON that fits a header: one line of ASCII."""
    kept = list(errors)
    while len(text := json.dumps(kept)) > MAX_ERRORS:
        kept.pop(0)
    return text


def read(msg: Received) -> Letter:
    """The letter in a message of the DLQ stream."""
    where = delivery(msg.reply)
    return _letter(where.stream_seq, where.timestamp_ns // 1000, msg.data, msg.headers or {})


def _letter(seq: int, stored_us: int, data: bytes, headers: Mapping[str, str]) -> Letter:
    own = {k.removeprefix(PREFIX): v for k, v in headers.items() if k.startswith(PREFIX)}
    stream, origin_seq, origin_us = ([*own.get("Origin", "").split(","), "0", "0"])[:3]
    try:
        errors = msgspec.json.decode(own.get("Errors", "[]"), type=list[dict[str, Any]])
    except msgspec.DecodeError:
        errors = []
    return Letter(
        seq=seq,
        stored_us=stored_us,
        profile=own.get("Profile", ""),
        profile_hash=own.get("Profile-Hash", ""),
        event_id=own.get("Event-Id", ""),
        topic=own.get("Topic", ""),
        host=own.get("Host", ""),
        reason=own.get("Reason", ""),
        errors=errors,
        run_id=own.get("Run-Id", ""),
        origin=stream,
        origin_seq=int(origin_seq or 0),
        origin_us=int(origin_us or 0),
        data=data,
        headers={
            k.removeprefix(ORIGINAL): v
            for k, v in headers.items()
            if k.startswith(ORIGINAL) or not k.startswith((PREFIX, "Nats-"))
        },
    )


async def letters(
    client: Client, *, profile: str | None = None, since_us: int | None = None
) -> AsyncIterator[Letter]:
    """Every letter that waits, oldest first."""
    subjects = [f"dlq.{profile}.>"] if profile else ["dlq.>"]
    async for msg in scan(client, topology.DLQ, subjects=subjects, since_us=since_us):
        yield read(msg)


async def get(client: Client, seq: int) -> Letter | None:
    """The letter with this sequence; None when it was retried, dropped or never there."""
    try:
        found = await client.jetstream(timeout=TIMEOUT).get_msg(topology.DLQ, seq)
    except NotFoundError:
        return None
    stored_us = round(found.time.timestamp() * 1e6) if found.time else 0
    return _letter(found.seq or seq, stored_us, found.data or b"", found.headers or {})


async def remove(client: Client, seq: int) -> None:
    """Take the letter out of the stream; one that has gone already is no error."""
    try:
        await client.jetstream(timeout=TIMEOUT).delete_msg(topology.DLQ, seq)
    except NotFoundError:
        return
