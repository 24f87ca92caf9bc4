"""Reading EVENTS in order from a given sequence on, through a durable consumer of one reader.

The consumer is made anew by every reader, and whenever the broker may have forgotten what it sent:
what the reader has decided is what counts, not what the broker believes. Its acknowledgements only
tell others (`status`, `nats consumer info`) how far the reader is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from opsmesh.router import topology
from opsmesh.router.pull import Delivery, Pull, delivery
from opsmesh.router.scan import scan
from opsmesh.router.stored import stored_us
from opsmesh.router.topology import API_TIMEOUT, EVENTS
from opsmesh.router.wire import Received
from opsmesh.schemas import times

#: Messages requested or unread at most.
AHEAD: Final = 2048
#: Seconds after which the broker would deliver again what is not acknowledged. The reader drops
#: what it has had; a reader that died is followed by one with a new consumer.
ACK_WAIT: Final = 3600.0
#: Seconds that the end of a consumer is waited for: where its node is gone, nobody tells of it.
END_TIMEOUT: Final = 1.0
#: Microseconds that a replica may be behind its leader while it counts as current.
BEHIND_US: Final = 250_000


class Lost(Exception):
    """The broker may have forgotten what it sent: read again from where you are."""


class Incoming(msgspec.Struct, frozen=True):
    """One message of the stream."""

    msg: Received
    where: Delivery

    @property
    def seq(self) -> int:
        """Its sequence in EVENTS."""
        return self.where.stream_seq

    @property
    def stored_us(self) -> int:
        """When the broker stored it."""
        return self.where.timestamp_ns // 1000


class Reading:
    """Messages after `after_seq`, in order, each once, until it is Lost."""

    def __init__(self, client: Client, consumer: str) -> None:
        self._client = client
        self._consumer = consumer
        self._arrived: deque[Incoming] = deque()
        self._lost = ""
        self._wake = asyncio.Event()
        self._pull: Pull | None = None
        self._received = 0
        #: Messages of this consumer that have come: the broker numbers them without a gap.
        self._heard = 0
        self._replicated = False

    async def start(self, after_seq: int, subjects: list[str], *, description: str = "") -> None:
        """Make the consumer, and begin to read; or begin again."""
        await self.stop()
        self._arrived.clear()
        self._lost = ""
        ending = self._client.jetstream(timeout=END_TIMEOUT)
        with contextlib.suppress(NotFoundError, NatsTimeout):
            await ending.delete_consumer(EVENTS, self._consumer)
        js = self._client.jetstream(timeout=API_TIMEOUT)
        info = await js.stream_info(EVENTS)
        self._replicated = topology.replicated(info)
        config = ConsumerConfig(
            durable_name=self._consumer,
            description=description,
            filter_subjects=subjects,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after_seq + 1,
            ack_policy=AckPolicy.ALL,
            ack_wait=ACK_WAIT,
            max_ack_pending=4 * AHEAD,
            **topology.own_place(info),
        )
        await js.add_consumer(EVENTS, config=config)
        self._received, self._heard = after_seq, 0
        self._pull = Pull(
            self._client,
            EVENTS,
            self._consumer,
            batch=AHEAD,
            on_message=self._receive,
            on_lost=self._lose,
            on_rest=self._rested,
            once=True,
        )
        await self._pull.start()

    async def lost_from(self, seq: int, until_us: int, subjects: list[str]) -> int | None:
        """Where to go on, when the stream has gone back behind a reader that has had everything up
        to `seq`, all of it stored by `until_us`; None when it has not. `subjects` are its own.

        A store that lost its end, or was put back, uses those numbers again. A reader that went by
        numbers alone would pass over what is new under them.
        """
        js = self._client.jetstream(timeout=API_TIMEOUT)
        state = (await js.stream_info(EVENTS)).state
        if seq > state.last_seq:
            another = True
        elif seq < max(state.first_seq, 1):  # 0 in a stream that never held anything
            return None
        else:
            at_us = await stored_us(self._client, EVENTS, seq)
            another = at_us is not None and at_us > until_us + 1  # None: deleted since
        if not another:
            return None
        async for msg in scan(
            self._client, EVENTS, subjects=subjects, since_us=until_us + 1, headers_only=True
        ):
            return delivery(msg.reply).stream_seq - 1
        return state.last_seq

    async def stop(self) -> None:
        """Ask for no more. The consumer stays at the broker, to show what waits."""
        if self._pull is not None:
            await self._pull.stop()
            self._pull = None

    async def next(self, timeout_s: float | None, most: int) -> list[Incoming]:
        """Up to `most` messages, as soon as there are any; none after `timeout_s` seconds, or a
        `nudge`."""
        if not self._arrived and not self._lost:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
        self._wake.clear()
        if not self._arrived and self._lost:
            raise Lost(self._lost)
        return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]

    def nudge(self) -> None:
        """Let `next` return."""
        self._wake.set()

    async def ack(self, incoming: Incoming, count: int) -> None:
        """Everything up to this message is decided; `count` more may be sent."""
        if self._pull is not None:
            self._pull.done(count)
        with contextlib.suppress(
            NatsError, OSError
        ):  # what others are told: no promise hangs on it
            await self._client.publish(incoming.msg.reply, b"+ACK")

    async def caught_up(self) -> int | None:
        """The broker's time, in microseconds, when every event stored by then has been read; None
        while there are some that have not."""
        # the leader's clock is what the times of events come from, and the consumer may lie at
        # a replica that is behind
        stream = await self._info(f"STREAM.INFO.{EVENTS}") if self._replicated else None
        info = await self._info(f"CONSUMER.INFO.{EVENTS}.{self._consumer}")
        unread = info["num_pending"] or info["delivered"]["stream_seq"] > self._received
        if unread or self._arrived:
            return None
        if stream is None:
            return times.parse_us(info["ts"])
        nodes, at = stream.get("cluster", {}), info.get("cluster", {}).get("leader")
        current = [n["name"] for n in nodes.get("replicas", ()) if n.get("current")]
        if at not in (nodes.get("leader"), *current):
            return None
        return times.parse_us(stream["ts"]) - BEHIND_US

    async def _info(self, of: str) -> dict[str, Any]:
        answer = await self._client.request(f"$JS.API.{of}", b"", timeout=API_TIMEOUT)
        info: dict[str, Any] = json.loads(answer.data)
        if "error" in info:
            raise Lost(info["error"].get("description", "no consumer"))
        return info

    def _receive(self, msg: Received) -> None:
        where = delivery(msg.reply)
        self._heard += 1
        if where.consumer_seq != self._heard:
            self._lose(f"message {self._heard} of the consumer did not arrive")
            return
        if where.stream_seq <= self._received:  # delivered again
            if self._pull is not None:
                self._pull.done(1)
            return
        self._received = where.stream_seq
        self._arrived.append(Incoming(msg, where))
        self._wake.set()

    def _rested(self, sent: int) -> None:
        """The broker has nothing more. One that had the position before, and woke up, may have
        asked for what was ours."""
        if sent > self._heard:
            self._lose(f"{sent - self._heard} messages of the consumer did not arrive")

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._wake.set()
