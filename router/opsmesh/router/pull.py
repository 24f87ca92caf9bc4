"""Reading a consumer: pull requests of our own, overlapped, and the credit that limits them.

A broker sends only what was asked for, so a slow reader is never flooded: at most `batch` messages
are requested or in the caller's hands, and `Pull.done` gives credit back. Requests that the broker
has forgotten (a restart, a new leader, a deleted consumer) are sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.router import tasks, wire
from opsmesh.router.wire import Received

#: Messages requested or in the caller's hands at most.
BATCH = 256
#: Bytes that one request brings at most: the broker cuts off a client that has more than 64 MB of
#: unread messages. No message is as large (topology.MAX_MESSAGE).
MAX_BYTES = 8 * 2**20
#: Seconds between signs of life from the broker while a request waits (idle_heartbeat).
HEARTBEAT = 5.0
#: Seconds after which the broker answers a request with what it has.
EXPIRES = 30.0
#: Heartbeats that may be missed before a request counts as lost.
MISSED_HEARTBEATS = 2
#: Seconds between looks at a connection that has broken, or that cannot tell.
TICK = 1.0
#: Seconds before a lost consumer is asked again: the first time, and at most.
RETRY_FIRST, RETRY_MAX = 0.1, 5.0
#: Seconds that `stop` waits for messages that are already on their way.
STOP_PATIENCE = 1.0

#: Statuses that only say that a request has ended (ADR-37): no messages, or its time is over.
_ENDED = ("404", "408")
#: Reasons of status 409 that likewise end nothing but a request.
_ENDED_409 = ("Batch Completed", "Message Size Exceeds MaxBytes")


#: By the number of tokens in a reply subject, where its facts begin.
_FIRST = {9: 2, 11: 4, 12: 4}


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """What the reply subject of a message says about it; `timestamp_ns` is when it was stored."""

    stream: str
    consumer: str
    num_delivered: int
    stream_seq: int
    consumer_seq: int
    timestamp_ns: int
    pending: int


def delivery(reply: str) -> Delivery:
    """The facts in a reply subject `$JS.ACK.…`; ValueError when it is none.

    ADR-15: nine tokens, or with domain and account hash in third and fourth place eleven and then
    perhaps a random one.
    """
    tokens = reply.split(".")
    first = _FIRST.get(len(tokens))
    if first is None or tokens[0] != "$JS" or tokens[1] != "ACK":
        raise ValueError(f"reply subject {reply!r} is no JetStream acknowledgement subject")
    stream, consumer, *numbers = tokens[first : first + 7]
    return Delivery(stream, consumer, *map(int, numbers))


class Pull:
    """Messages of one consumer, each handed to `on_message` (synchronous and cheap), in order.

    `on_lost` hears that requests were lost and why: the connection broke, the consumer was deleted,
    its leader changed. What the broker had sent may be lost too, so a caller that needs every
    message without redelivery makes its consumer anew. The pull itself goes on asking, unless it is
    told `once`: then nothing more is asked of a consumer that may be somebody else's by now.
    `on_rest` hears how many messages the consumer has sent in all, to whomever, when there are no
    more (a sign of life of the broker).
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        consumer: str,
        *,
        on_message: Callable[[Received], None],
        on_lost: Callable[[str], None] | None = None,
        on_rest: Callable[[int], None] | None = None,
        once: bool = False,
        batch: int = BATCH,
        heartbeat_s: float = HEARTBEAT,
        expires_s: float = EXPIRES,
    ) -> None:
        self._client = client
        self._subject = wire.road(client, f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_rest = on_rest
        self._once = once
        self._batch = batch
        self._silence = heartbeat_s * MISSED_HEARTBEATS
        self._terms = {
            "expires": round(expires_s * 1e9),
            "idle_heartbeat": round(heartbeat_s * 1e9),
            "max_bytes": MAX_BYTES,
        }
        self._inbox = client.new_inbox()
        self._asked = 0
        self._held = 0
        self._request = 0
        self._oldest = 0
        self._heard = 0.0
        self._not_before = 0.0
        self._retry = RETRY_FIRST
        self._wake = asyncio.Event()
        self._reconnects = 0
        self._broken = False
        self._unbreak: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._listening: wire.Listening | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to ask; PermissionDenied when that is not allowed."""
        wire.checker(self._client)(self._subject)
        self._listening = await wire.listen(self._client, f"{self._inbox}.*", self._receive)
        self._reconnects = self._client.stats["reconnects"]
        self._unbreak = wire.on_break(self._client, self._break)
        await self._ask()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ask no more; what is on its way is still handed over, so that it can be settled."""
        if self._task is not None:
            await tasks.end([self._task])
            self._task = None
        if self._unbreak is not None:
            self._unbreak()
            self._unbreak = None
        listening, self._listening = self._listening, None
        if listening is None:
            return
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(STOP_PATIENCE):
                await listening.end(drain=self._client.is_connected)

    def done(self, count: int) -> None:
        """The caller has room for `count` more messages."""
        self._held = max(0, self._held - count)
        if self._wanted():
            self._wake.set()

    def _wanted(self) -> int:
        """How many to ask for now: worth a request, or 0."""
        room = self._batch - self._asked - self._held
        return room if room >= max(1, self._batch // 4) or not self._asked else 0

    async def _run(self) -> None:
        while not self._client.is_closed:
            if self._not_before <= self._loop.time() and self._client.is_connected:
                await self._ask()
            # not wait_for: Python 3.11's swallows a cancellation that meets the event
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience()):
                    await self._wake.wait()
            self._wake.clear()
            if not self._client.is_connected:
                continue
            if self._client.stats["reconnects"] != self._reconnects:
                self._reconnects = self._client.stats["reconnects"]
                self._broken = False
                self._lose("the connection was interrupted")
            elif self._asked and self._loop.time() - self._heard > self._silence:
                self._lose(f"no sign of life for {self._silence:g} s")

    def _patience(self) -> float:
        """Seconds until something has to be looked at. A reader at rest sleeps from one sign of
        life to the next: there may be hundreds of them in one process."""
        now = self._loop.time()
        if self._not_before > now and not self._once:
            return self._not_before - now
        if self._broken or self._unbreak is None:
            return TICK
        return max(0.0, self._heard + self._silence - now) + HEARTBEAT / 10

    def _break(self) -> None:
        self._broken = True
        self._wake.set()

    async def _ask(self) -> None:
        count = self._wanted()
        if count <= 0:
            return
        if not self._asked:
            self._heard = self._loop.time()
        self._asked += count
        self._request += 1
        body = json.dumps({"batch": count, **self._terms}).encode()
        reply = f"{self._inbox}.{self._request}"
        # what fails here was written to a connection that is gone: asked again after the reconnect
        with contextlib.suppress(NatsError, OSError):
            await wire.send(self._client, wire.publication(self._subject, body, reply=reply))

    def _receive(self, msg: Received) -> None:
        self._heard = self._loop.time()
        if msg.reply:
            self._asked = max(0, self._asked - 1)
            self._held += 1
            self._retry = RETRY_FIRST
            self._on_message(msg)
        else:
            self._status(msg)

    def _status(self, msg: Received) -> None:
        if int(msg.subject.rpartition(".")[2]) <= self._oldest:
            return  # an answer to a request that has been given up already
        headers = msg.headers or {}
        code, reason = headers.get("Status", ""), headers.get("Description", "")
        if code == "100":
            self._retry = RETRY_FIRST
            if self._on_rest is not None:
                self._on_rest(int(headers.get("Nats-Last-Consumer", "0")))
            return
        if code in _ENDED or reason in _ENDED_409:
            unsent = headers.get("Nats-Pending-Messages", str(self._asked))
            self._asked = max(0, self._asked - int(unsent))
            self._wake.set()
            return
        self._lose("no such consumer" if code == "503" else reason or f"status {code}")

    def _lose(self, reason: str) -> None:
        self._asked = 0
        self._oldest = self._request
        self._not_before = math.inf if self._once else self._loop.time() + self._retry
        self._retry = min(self._retry * 2, RETRY_MAX)
        self._wake.set()
        if self._on_lost is not None:
            self._on_lost(reason)
