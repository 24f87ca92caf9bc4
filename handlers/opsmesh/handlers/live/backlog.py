"""What waits behind the cursor of a disabled profile, and where the cursor goes when it is enabled.

The one rule: the cursor moves only while nobody decides for the consumer, by compare-and-set. An
owner that takes the position meanwhile wins, and the caller is told by Fenced.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.live.position import MOST_CHANGES, Cursor, Positions
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.router.conditions import Last
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.stages import Window
from opsmesh.router.topic_patterns import disjoint
from opsmesh.router.topology import EVENTS
from opsmesh.router.wire import Received
from opsmesh.schemas import times
from opsmesh.schemas.envelope import host_token

#: What can be done with what waits: go on after it, act on it, decide it as in shadow, or go on
#: from a time.
Choice = Literal["skip", "replay", "shadow", "since"]
#: Seconds to wait for the broker.
TIMEOUT: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Events that a profile has not decided. `cursor` is None when it never decided any: it begins
    with what comes, and nothing waits."""

    cursor: Cursor | None
    revision: int
    count: int = 0
    oldest_us: int | None = None
    topics: Counter[str] = field(default_factory=Counter)


async def waiting(client: Client, profile: Profile, *, consumer: str, host: str) -> Backlog:
    """What waits for the profile on this consumer now, counted event by event."""
    cursor, revision = await Positions(client).cursor(consumer)
    if cursor is None:
        return Backlog(cursor=None, revision=revision)
    topics: Counter[str] = Counter()
    oldest_us = None
    messages = scan(
        client,
        EVENTS,
        subjects=decided_subjects(profile, host),
        start_seq=cursor.seq + 1,
        headers_only=True,
    )
    async for msg in messages:
        if oldest_us is None:
            oldest_us = _stored_us(msg)
        topics[_topic(msg.subject)] += 1
    return Backlog(
        cursor=cursor,
        revision=revision,
        count=topics.total(),
        oldest_us=oldest_us,
        topics=topics,
    )


async def oldest_us(client: Client, profile: Profile, *, host: str, after_seq: int) -> int | None:
    """When the first event was stored that the profile has not decided; None: none waits."""
    js = client.jetstream(timeout=TIMEOUT)
    found = []
    for subject in decided_subjects(profile, host):
        with contextlib.suppress(NotFoundError):
            msg = await js.get_msg(EVENTS, after_seq + 1, subject, direct=True, next=True)
            stamp = (msg.headers or {})["Nats-Time-Stamp"]
            found.append((msg.seq or 0, stamp))
    return times.parse_us(min(found)[1]) if found else None


async def settle(
    client: Client,
    profile: Profile,
    backlog: Backlog,
    choice: Choice,
    *,
    consumer: str,
    host: str,
    since_us: int = 0,
) -> Cursor | None:
    """Move the cursor as chosen, for the owner that comes next; None: there is nothing to move.

    Raises Fenced when somebody decides for the consumer again. Where the cursor jumps, windows are
    forgotten: they stand for events that it no longer comes from.
    """
    old = backlog.cursor
    last_seq = await _last_seq(client)
    seq = old.seq if old is not None else last_seq
    if choice == "skip":
        seq = last_seq
    elif choice == "since":
        seq = await before(client, since_us)
    if old is None and choice != "since":
        return None
    # a consumer that was never owned has no name of a former owner either: both mean that what
    # happens to the backlog has been said
    cursor = Cursor(
        seq=seq,
        owner="",
        count=old.count + 1 if old is not None else 0,
        at_us=times.now_us(),
        shadow_until=last_seq if choice == "shadow" else 0,
        last=old.last if old is not None else {},
    )
    forgotten: list[str] = []
    if old is None or seq != old.seq:
        cursor = msgspec.structs.replace(cursor, last=await newest(client, profile, seq, host=host))
        forgotten = list(await Positions(client).windows(consumer))
    await _write(client, consumer, cursor, backlog.revision, forgotten)
    return cursor


async def before(client: Client, moment_us: int) -> int:
    """The sequence of the last event that was stored before a time; 0 for none."""
    messages = scan(client, EVENTS, since_us=moment_us, headers_only=True)
    async with contextlib.aclosing(messages):  # type: ignore[type-var]
        async for msg in messages:
            return delivery(msg.reply).stream_seq - 1
    return await _last_seq(client)


async def newest(client: Client, profile: Profile, seq: int, *, host: str) -> dict[str, int]:
    """The sequences of what `last(…)` stands for when everything up to `seq` is decided."""
    found = await asyncio.gather(*(_newest(client, one, seq, host) for one in profile.rule.last))
    return {one.call: at for one, at in zip(profile.rule.last, found, strict=True) if at}


def decided_subjects(profile: Profile, host: str) -> list[str]:
    """The subjects of what the profile decides on this host; it is shown more than that when its
    conditions look back at other events."""
    hosts = host_token(host) if profile.run_on == "origin" else "*"
    return [f"evt.{hosts}.{pattern}" for pattern in disjoint(profile.rule.decided)]


async def _newest(client: Client, one: Last, seq: int, host: str) -> int:
    hosts = "*" if one.anywhere else host_token(host)
    subject, highest = f"evt.{hosts}.{one.topic}", 0
    if seq <= 0:
        return 0
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    # ADR-31: the newest message of every subject up to a sequence, and then one with status 204
    request = msgspec.json.encode({"multi_last": [subject], "up_to_seq": seq})
    try:
        await client.publish(f"$JS.API.DIRECT.GET.{EVENTS}", request, reply=inbox)
        while True:
            headers = (await replies.next_msg(timeout=TIMEOUT)).headers or {}
            if "Nats-Sequence" not in headers:
                return highest
            highest = max(highest, int(headers["Nats-Sequence"]))
    finally:
        await replies.unsubscribe()


async def _write(
    client: Client, consumer: str, cursor: Cursor, revision: int, forgotten: list[str]
) -> None:
    positions = Positions(client)
    while True:
        part, forgotten = forgotten[:MOST_CHANGES], forgotten[MOST_CHANGES:]
        changes: dict[str, Window | None] = dict.fromkeys(part)
        revision = await positions.write(consumer, cursor, revision, changes)
        if not forgotten:
            return


async def _last_seq(client: Client) -> int:
    info = await client.jetstream(timeout=TIMEOUT).stream_info(EVENTS)
    return info.state.last_seq


def _stored_us(msg: Received) -> int:
    return delivery(msg.reply).timestamp_ns // 1000


def _topic(subject: str) -> str:
    return subject.removeprefix("evt.").partition(".")[2]
