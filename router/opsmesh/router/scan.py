"""Read a stream from somewhere to its present end, in order: listing, search, replay."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.errors import ServiceUnavailableError

from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.pull import Pull, delivery
from opsmesh.router.topology import EVENTS
from opsmesh.router.wire import Received
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError

#: Messages under way from the broker at most.
BATCH = 1024
#: Seconds without a message after which the broker is asked whether there is another one: what was
#: replaced between its count and now never arrives, and may have been the last.
QUIET = 0.5
#: Seconds that a reader goes on after what was replaced while it read, if that does not end.
CHASE = 1.0
#: Seconds that a reader waits at its end for the broker to forget it.
LEAVE = 1.0
#: Consumers that are made, each on a replica of the broker's choice, until one is current, and
#: until one stays.
TRIES = 20

#: What a cluster answers that has lost a leader, and has another one soon.
_NO_LEADER: Final = (ServiceUnavailableError, NoRespondersError, NatsTimeout)


async def scan(
    client: Client,
    stream: str,
    *,
    subjects: list[str] | None = None,
    since_us: int | None = None,
    start_seq: int | None = None,
    newest_per_subject: bool = False,
    headers_only: bool = False,
    follow: bool = False,
) -> AsyncIterator[Received]:
    """Messages of `stream` in order, to the end of today; with `follow` for ever.

    `since_us` is the store time to begin with, in microseconds since the epoch. With
    `newest_per_subject` every subject that there is at the start comes once, with its message of
    that moment or a later one. In a cluster no replica is read that is still catching up: its end
    of the stream would be taken for today's. A reader that is lost while the broker is there goes
    on after the last message that it gave.
    """
    js = client.jetstream()
    newest = _Newest() if newest_per_subject and not follow else None
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        filter_subjects=subjects,
        headers_only=headers_only or None,
        inactive_threshold=30.0,
        mem_storage=True,
        num_replicas=1,
        deliver_policy=DeliverPolicy.ALL,
    )
    if newest_per_subject:
        config.deliver_policy = DeliverPolicy.LAST_PER_SUBJECT
    elif start_seq is not None:
        config.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
        config.opt_start_seq = max(start_seq, 1)
    elif since_us is not None:
        config.deliver_policy = DeliverPolicy.BY_START_TIME
        config.opt_start_time = datetime.fromtimestamp(since_us / 1e6, UTC)
    tries, last = 0, 0
    while True:
        try:
            if newest is not None:
                newest.before = await last_seq(js, stream)
            info = await _consumer(js, stream, config)
            if last:
                await _goes_on(js, stream, last)
            if not info.num_pending and not follow:
                await js.delete_consumer(stream, info.name)
                return
            async with contextlib.aclosing(
                _read(client, stream, info, follow=follow, newest=newest)
            ) as messages:
                async for msg, seq in messages:
                    if newest is not None or seq > last:
                        tries, last = 0, max(seq, last)
                        yield msg
            return
        except (_Lost, *_NO_LEADER) as lost:
            # a cluster forgets readers that it has just made, in the seconds after a node is back
            # (docs/cluster.md), and those in the memory of a node that dies
            if not tries and not isinstance(lost, _Lost):
                raise  # at the very beginning that is for the caller to know
            tries += 1
            if not client.is_connected or tries == TRIES:
                where = client.connected_url
                raise BrokerUnavailable(where.geturl() if where else "", str(lost)) from None
            await asyncio.sleep(QUIET)
            if last and not newest_per_subject:  # these begin anew: what was given is passed over
                config.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
                config.opt_start_seq, config.opt_start_time = last + 1, None


class _Lost(Exception):
    """The consumer is gone, or cannot be trusted to be complete."""


@dataclass
class _Newest:
    """Of one message per subject: the stream's last sequence before there was this consumer, and
    the subjects that were given, also by those before it that were lost."""

    before: int = 0
    seen: set[str] = field(default_factory=set)


async def _goes_on(js: JetStreamContext, stream: str, last: int) -> None:
    """BrokerUnavailable for a stream that was put back behind what was read: nothing would come."""
    if (found := await last_seq(js, stream)) < last:
        raise BrokerUnavailable("", f"{stream} has gone back from {last} to {found}")


async def _read(
    client: Client, stream: str, info: ConsumerInfo, *, follow: bool, newest: _Newest | None
) -> AsyncGenerator[tuple[Received, int], None]:
    """Each message, and its sequence. With `newest` one per subject is asked for. What is replaced
    before the broker has sent it is sent with what is new, after the rest: so the end of what was
    counted is not the end then."""
    js, now = client.jetstream(), asyncio.get_running_loop().time
    remaining = info.num_pending or 0
    until = math.inf
    queue: asyncio.Queue[Received | str] = asyncio.Queue()
    pull = Pull(
        client,
        stream,
        info.name,
        batch=BATCH if follow else min(BATCH, remaining),
        on_message=queue.put_nowait,
        on_lost=queue.put_nowait,
    )
    await pull.start()
    try:
        received = 0
        while True:
            try:
                msg = queue.get_nowait() if queue.qsize() else await _next(queue, follow=follow)
            except TimeoutError:
                if queue.empty() and await _at_end(js, stream, info.name, received):
                    return
                continue
            received += 1
            if isinstance(msg, str):
                raise _Lost(msg)
            pull.done(1)
            where = delivery(msg.reply)
            if newest is None:
                yield msg, where.stream_seq
                remaining -= 1
                # the broker's own count ends it too: what was removed meanwhile never arrives
                if not follow and (remaining <= 0 or where.pending == 0):
                    return
                continue
            if msg.subject not in newest.seen:
                newest.seen.add(msg.subject)
                yield msg, where.stream_seq
            if where.stream_seq <= newest.before:
                remaining -= 1
            elif until == math.inf:
                until = now() + CHASE
            if remaining <= 0 or now() >= until:
                return
            # The broker takes what is replaced from its count before it counts what replaces it,
            # so for a moment there seems to be no more (2.15.1: 5 of 100 readers beside a writer).
            if where.pending == 0 and await _is_last(js, stream, where.stream_seq):
                return
    finally:
        # a reader that stopped early is cleaned up when the loop finds it: perhaps after the
        # connection was closed; the broker forgets the consumer by itself
        with contextlib.suppress(NatsError, OSError):
            await pull.stop()
            await client.jetstream(timeout=LEAVE).delete_consumer(stream, info.name)


async def _consumer(js: JetStreamContext, stream: str, config: ConsumerConfig) -> ConsumerInfo:
    for _ in range(TRIES):
        info = await js.add_consumer(stream, config=config)
        if await _is_current(js, stream, info):
            return info
        await js.delete_consumer(stream, info.name)
        await asyncio.sleep(QUIET)
    raise BrokerUnavailable("", f"no replica of {stream} that is current can be read")


async def _is_current(js: JetStreamContext, stream: str, consumer: ConsumerInfo) -> bool:
    """Whether the replica that this consumer reads has what the stream's leader has."""
    if consumer.cluster is None or not consumer.cluster.leader:
        return True
    nodes = (await js.stream_info(stream)).cluster
    if nodes is None or nodes.leader == consumer.cluster.leader:
        return True
    return any(n.name == consumer.cluster.leader and n.current for n in nodes.replicas or ())


async def last_seq(js: JetStreamContext, stream: str) -> int:
    """The sequence of the last message that the stream has stored."""
    return (await js.stream_info(stream)).state.last_seq


async def _is_last(js: JetStreamContext, stream: str, seq: int) -> bool:
    try:
        return await last_seq(js, stream) <= seq
    except (NatsError, OSError, TimeoutError):  # away: as `_at_end`
        return False


async def _at_end(js: JetStreamContext, stream: str, consumer: str, received: int) -> bool:
    """Whether everything that the broker has for this reader was received."""
    try:
        info = await js.consumer_info(stream, consumer)
    except (NatsError, OSError, TimeoutError):  # away: the reader hears of it by itself
        return False
    sent = info.delivered.consumer_seq if info.delivered is not None else 0
    return not info.num_pending and sent <= received


async def _next(queue: asyncio.Queue[Received | str], *, follow: bool) -> Received | str:
    async with asyncio.timeout(None if follow else QUIET):
        return await queue.get()


class Opened(NamedTuple):
    """A message of EVENTS; `event` is None, with the reason, for bytes that are none."""

    seq: int
    #: Microseconds since the epoch.
    stored_us: int
    #: How many its reader has yet to be sent.
    pending: int
    event: Event | None
    error: str = ""


def opened(msg: Received) -> Opened:
    """What was read of EVENTS, decoded."""
    where = delivery(msg.reply)
    stored_us = where.timestamp_ns // 1000
    at = (where.stream_seq, stored_us, where.pending)
    try:
        return Opened(*at, decode(msg.data, stored=(EVENTS, where.stream_seq, stored_us)))
    except SchemaError as error:
        return Opened(*at, None, str(error))


async def events(
    client: Client, subjects: list[str], *, since_us: int | None = None, follow: bool = False
) -> AsyncIterator[tuple[Event, int]]:
    """The events on these subjects, each with the microseconds since the epoch at which it was
    stored; what is no event is left out. Otherwise as `scan`."""
    async for msg in scan(client, EVENTS, subjects=subjects, since_us=since_us, follow=follow):
        one = opened(msg)
        if one.event is not None:
            yield one.event, one.stored_us
