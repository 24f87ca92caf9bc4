"""The durable consumer loop: messages in, one coroutine each, outcomes back to the broker.

This is the only module that acknowledges. A handler speaks by what it returns: an outcome at once,
or a coroutine (the work) that gives one later. Handlers are called one at a time and in order, so
that decisions are; the work runs beside them, at most `concurrency` at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field

import structlog
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from opsmesh.router import logs, tasks
from opsmesh.router.pull import Delivery, Pull, delivery
from opsmesh.router.wire import Received

#: How long the broker waits for a sign of life before it delivers a message again, in seconds.
ACK_WAIT = 30.0
#: Messages held at most by one consumer: delivered, decided or waiting for their turn.
PREFETCH = 256
#: Delay before another try when the handler itself failed, in seconds.
UNEXPECTED_DELAY = 10.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Ack:
    """Handled, or nothing to do: the broker may forget it."""


@dataclass(frozen=True)
class Retry:
    """Deliver it again after `delay` seconds."""

    delay: float


@dataclass(frozen=True)
class Reject:
    """Never deliver it again; it has been dead-lettered."""

    reason: str


Outcome = Ack | Retry | Reject
Work = Coroutine[None, None, Outcome]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One delivery, as a handler sees it."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    delivery: Delivery

    @property
    def seq(self) -> int:
        """Its sequence in the stream."""
        return self.delivery.stream_seq

    @property
    def stored_us(self) -> int:
        """When the broker stored it, in microseconds since the epoch."""
        return self.delivery.timestamp_ns // 1000


Handler = Callable[[Message], Awaitable[Outcome | Work]]


def durable(
    name: str,
    subjects: list[str],
    *,
    description: str = "",
    metadata: dict[str, str] | None = None,
    all_stored: bool = False,
) -> ConsumerConfig:
    """The configuration of a durable consumer. It starts with what comes after its creation: a new
    profile does not act on the past; `all_stored` starts at the beginning of the stream."""
    return ConsumerConfig(
        durable_name=name,
        description=description,
        filter_subjects=subjects,
        deliver_policy=DeliverPolicy.ALL if all_stored else DeliverPolicy.NEW,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT,
        max_deliver=-1,
        max_ack_pending=4 * PREFETCH,
        metadata=metadata,
    )


@dataclass(eq=False)
class _Held:
    msg: Received
    message: Message


@dataclass(eq=False)
class Consumer:
    """Runs one durable consumer until `stop`."""

    client: Client
    stream: str
    config: ConsumerConfig
    handle: Handler
    concurrency: int = 1
    _held: dict[int, _Held] = field(default_factory=dict, init=False)
    _queue: asyncio.Queue[_Held] = field(default_factory=asyncio.Queue, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _pull: Pull | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.concurrency)
        self._log = log.bind(consumer=self.config.durable_name)

    async def start(self) -> None:
        """Create or update the consumer and begin to pull."""
        await self._ensure()
        self._pull = Pull(
            self.client,
            self.stream,
            self.config.durable_name or "",
            batch=PREFETCH,
            on_message=self._receive,
            on_lost=self._lost,
        )
        await self._pull.start()
        self._loops = [asyncio.create_task(self._decide()), asyncio.create_task(self._heartbeat())]

    async def stop(self, *, grace: float = 5.0) -> None:
        """Stop pulling, give running work `grace` seconds, hand back the rest at once."""
        if self._pull is not None:
            await self._pull.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        await tasks.end([*self._loops, *self._tasks])
        for held in list(self._held.values()):
            await self._settle(held, Retry(0.0))

    async def _ensure(self) -> None:
        js = self.client.jetstream()
        await js.add_consumer(self.stream, config=self.config)

    def _receive(self, msg: Received) -> None:
        message = Message(
            subject=msg.subject,
            data=msg.data,
            headers=msg.headers or {},
            delivery=delivery(msg.reply),
        )
        # A message that is delivered again while we hold it is the same work: the newest reply
        # subject is the one whose acknowledgement counts.
        known = self._held.get(message.seq)
        if known is not None:
            known.msg = msg
            if self._pull is not None:
                self._pull.done(1)
            return
        held = _Held(msg, message)
        self._held[message.seq] = held
        self._queue.put_nowait(held)

    def _lost(self, reason: str) -> None:
        if logs.away.allows(logs.BROKER):
            self._log.warning("consumer.lost", reason=reason)
        task = asyncio.create_task(self._recreate())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _recreate(self) -> None:
        try:
            await self._ensure()
        except Exception as error:
            if logs.away.allows(logs.BROKER):
                self._log.warning("consumer.not_recreated", error=str(error))

    async def _decide(self) -> None:
        while True:
            held = await self._queue.get()
            try:
                result = await self.handle(held.message)
            except Exception:
                self._log.exception("consumer.handler_failed", seq=held.message.seq)
                result = Retry(UNEXPECTED_DELAY)
            if isinstance(result, Ack | Retry | Reject):
                await self._settle(held, result)
                continue
            task = asyncio.create_task(self._work(held, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, held: _Held, work: Work) -> None:
        try:
            async with self._slots:
                outcome = await work
        except asyncio.CancelledError:
            work.close()
            raise
        except Exception:
            self._log.exception("consumer.work_failed", seq=held.message.seq)
            outcome = Retry(UNEXPECTED_DELAY)
        await self._settle(held, outcome)

    async def _settle(self, held: _Held, outcome: Outcome) -> None:
        if isinstance(outcome, Ack):
            body = b"+ACK"
        elif isinstance(outcome, Retry):
            body = b"-NAK " + json.dumps({"delay": round(outcome.delay * 1e9)}).encode()
        else:
            body = b"+TERM " + outcome.reason.encode()
        self._held.pop(held.message.seq, None)
        try:
            await self.client.publish(held.msg.reply, body)
        except Exception as error:  # the broker is away: it will deliver the message again
            self._log.debug("consumer.not_settled", error=str(error))
        if self._pull is not None:
            self._pull.done(1)

    async def _heartbeat(self) -> None:
        """Tell the broker that everything held is still in hand."""
        while True:
            await asyncio.sleep(self.config.ack_wait / 3 if self.config.ack_wait else ACK_WAIT / 3)
            for held in list(self._held.values()):
                try:
                    await self.client.publish(held.msg.reply, b"+WPI")
                except Exception as error:
                    self._log.debug("consumer.no_heartbeat", error=str(error))
                    break
