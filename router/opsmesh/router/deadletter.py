"""Dead letters: what no attempt could handle, with its original bytes and why.

A letter's body is the original message's body, byte for byte unless it holds a secret; original
headers keep their names, save those that the broker would act on (`Nats-*`), which are prefixed. A
letter leaves the stream only when a person (or a script of theirs) retries or drops it, and that is
an event of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from nats.aio.client import Client

from opsmesh.router import topology
from opsmesh.router.decide import EventRef
from opsmesh.router.errors import NotAcknowledged
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.wire import Received
from opsmesh.schemas import times
from opsmesh.schemas.envelope import host_token
from opsmesh.schemas.redact import Redactor, built_in

T = TypeVar("T")

PREFIX: Final = "Opsmesh-"
ORIGINAL: Final = "Opsmesh-Original-"
#: Seconds to wait for the broker.
TIMEOUT: Final = 5.0
#: Bytes of headers that a letter may have; the broker refuses 64 KiB.
MAX_HEADERS: Final = 60 * 1024
#: Bytes at which the errors of all attempts are cut, from the oldest on; and the text of one.
MAX_ERRORS: Final = 32 * 1024
MAX_TEXT: Final = 4096
#: Requests to the broker that are under way at once when many letters are read or removed.
AT_ONCE: Final = 32


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. `stored_us` is when it was written, in microseconds since the epoch.

    `data` is the event's own bytes; empty when they were not asked for, or were gone from the
    stream before the run began. `events` are all of a firing that was about several.
    """

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
    events: tuple[EventRef, ...] = ()


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
    events: Sequence[EventRef] = (),
    redactor: Redactor | None = None,
) -> int:
    """Store one letter and return its sequence; the same `msg_id` is stored once.

    `origin` is (stream, sequence, microseconds since the epoch) of the message that could not be
    handled, `events` are those of a firing that was about several. Secrets are taken out of
    everything. Raises what nats-py raises when the broker does not acknowledge.
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
    if events:
        own[PREFIX + "Events"] = msgspec.json.encode(tuple(events)).decode()
    room = MAX_HEADERS - _size(own)
    own[PREFIX + "Errors"] = _fitting(errors, min(MAX_ERRORS, room))
    if _size(kept) > MAX_HEADERS - _size(own):  # a stranger's headers never keep a letter out
        kept = {}
    ack = await client.jetstream(timeout=TIMEOUT).publish(
        subject(profile, host, topic),
        data,
        headers={**kept, **own, "Nats-Msg-Id": msg_id},
    )
    return ack.seq


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def _fitting(errors: Sequence[Mapping[str, Any]], room: int) -> str:
    """The newest errors as JSON that fits into the room: one line of ASCII."""
    kept = [
        {k: _one_line(v) if isinstance(v, str) else v for k, v in one.items()} for one in errors
    ]
    while len(text := json.dumps(kept)) > room and kept:
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
    try:
        events = msgspec.json.decode(own.get("Events", "[]"), type=tuple[EventRef, ...])
    except msgspec.DecodeError:
        events = ()
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
        events=events,
    )


async def letters(
    client: Client,
    *,
    profile: str | None = None,
    since_us: int | None = None,
    bodies: bool = True,
) -> AsyncIterator[Letter]:
    """Every letter that waits, oldest first; without `bodies` their events stay at the broker."""
    subjects = [f"dlq.{profile}.>"] if profile else ["dlq.>"]
    async for msg in scan(
        client, topology.DLQ, subjects=subjects, since_us=since_us, headers_only=not bodies
    ):
        yield read(msg)


async def get(client: Client, seq: int) -> Letter | None:
    """The letter with this sequence; None when it was retried, dropped or never there."""
    # nats-py's get_msg reads headers as ASCII
    asked = json.dumps({"seq": seq}).encode()
    msg = await client.request(f"$JS.API.DIRECT.GET.{topology.DLQ}", asked, timeout=TIMEOUT)
    headers = msg.headers or {}
    if headers.get("Status"):  # 404, and 408 for the sequence 0
        return None
    stored_us = times.parse_us(headers["Nats-Time-Stamp"])
    return _letter(int(headers["Nats-Sequence"]), stored_us, msg.data, headers)


async def get_all(client: Client, seqs: Iterable[int]) -> list[Letter]:
    """Those of these letters that are there, in the order asked for."""
    found = await _several([get(client, seq) for seq in seqs])
    return [letter for letter in found if letter is not None]


async def remove(client: Client, seq: int) -> bool:
    """Take the letter out of the stream; False when it had gone already."""
    # the event stays in EVENTS and in the evidence: nothing is gained by overwriting it here, and
    # every overwriting is a sync of its own
    asked = json.dumps({"seq": seq, "no_erase": True}).encode()
    subject = f"$JS.API.STREAM.MSG.DELETE.{topology.DLQ}"
    reply = await client.request(subject, asked, timeout=TIMEOUT)
    said = json.loads(reply.data)
    if "error" not in said:
        return True
    # the broker's error for a message that is not there is the one for every failure (10057)
    if await get(client, seq) is None:
        return False
    raise NotAcknowledged(f"dead letter {seq} was not removed: {said['error']['description']}")


async def remove_all(client: Client, seqs: Iterable[int]) -> int:
    """Take these letters out of the stream; how many were still there."""
    return sum(await _several([remove(client, seq) for seq in seqs]))


async def _several(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order, with a limit on what is under way."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(call: Coroutine[Any, Any, T]) -> T:
        async with free:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))
