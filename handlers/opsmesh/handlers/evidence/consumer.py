"""Where the sink reads: a consumer that begins after the last line of its archive, and whether the
stream behind it is still the one that was archived."""

from __future__ import annotations

import contextlib
from typing import Final

from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo
from nats.js.errors import NotFoundError

from opsmesh.handlers.evidence.archive import Archive
from opsmesh.router import sink_consumer, topology
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.redact import Redactor

#: Messages under way or waiting for the disk at most: one commit holds no more.
BATCH: Final = 2048
#: Redelivery is never wanted (see `begin`), so the broker waits for our acknowledgement.
ACK_WAIT: Final = 7 * 86400.0


async def begin(js: JetStreamContext, info: StreamInfo, name: str, *, after: int) -> None:
    """Make the sink's consumer anew, from the sequence after `after` on.

    A durable one with redelivery would break the order: after a crash it first sends what is
    new, and what was unacknowledged again whenever its ack wait is over. A new one sends the
    stream from one sequence on, each message once, numbered without a gap.
    """
    # where its node is gone, nobody tells of its end
    with contextlib.suppress(NotFoundError, NatsTimeout):
        await js.delete_consumer(EVENTS, name)
    await _forget_former(js)
    await js.add_consumer(
        EVENTS,
        config=ConsumerConfig(
            durable_name=name,
            description="every event to the evidence archive",
            filter_subject="evt.>",
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.ALL,
            ack_wait=ACK_WAIT,
            max_ack_pending=16 * BATCH,
            **topology.own_place(info),
        ),
    )


async def gone_back(
    js: JetStreamContext, info: StreamInfo, archive: Archive, redactor: Redactor
) -> bool:
    """Whether the stream ends before the archive's position, or holds something else there."""
    position, data = archive.seq, archive.data
    if position == 0:
        return False
    if info.state.last_seq < position:
        return True
    if data is None or position < info.state.first_seq:
        return False
    try:
        found = await js.get_msg(EVENTS, position)
    except NotFoundError:  # deleted since
        return False
    stored = (EVENTS, position, round(found.time.timestamp() * 1e6) if found.time else 0)
    return not redactor.same(data, found.data or b"", stored=stored)


async def _forget_former(js: JetStreamContext) -> None:
    """The position is the archive's: nothing is lost with it. Another host's sink of that version
    may read it still."""
    with contextlib.suppress(NotFoundError):
        if not (await js.consumer_info(EVENTS, sink_consumer.FORMER)).num_waiting:
            await js.delete_consumer(EVENTS, sink_consumer.FORMER)
