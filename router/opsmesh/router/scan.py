"""Read a stream from somewhere to its present end, in order: listing, search, replay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.pull import Pull, delivery
from opsmesh.router.wire import Received

#: Messages under way from the broker at most.
BATCH = 1024


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

    `since_us` is the store time to begin with, in microseconds since the epoch.
    """
    js = client.jetstream()
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
    info = await js.add_consumer(stream, config=config)
    remaining = info.num_pending or 0
    if not remaining and not follow:
        await js.delete_consumer(stream, info.name)
        return
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
        while True:
            msg = await queue.get()
            if isinstance(msg, str):
                raise BrokerUnavailable(str(client.connected_url or ""), msg)
            pull.done(1)
            yield msg
            remaining -= 1
            # the broker's own count ends it too: what was removed meanwhile never arrives
            if not follow and (remaining <= 0 or delivery(msg.reply).pending == 0):
                return
    finally:
        # a reader that stopped early is cleaned up when the loop finds it: perhaps after the
        # connection was closed; the broker forgets the consumer by itself
        with contextlib.suppress(NatsError, OSError):
            await pull.stop()
            await js.delete_consumer(stream, info.name)
