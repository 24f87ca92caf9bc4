"""The publisher: messages into a stream, acknowledged, in order, batched when there are many.

The one rule: `publish` returns only what the broker has confirmed. NotAcknowledged means "perhaps
stored": send it again with the same id, and the broker keeps one.

An idle publisher sends at once. What arrives while something is in flight goes as the next group:
one atomic batch (NATS ADR-50), which costs the broker one sync to disk instead of one for each
message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.nuid import NUID

from opsmesh.router import wire
from opsmesh.router.errors import NotAcknowledged
from opsmesh.router.replies import Replies, Reply, acknowledgement, forget
from opsmesh.router.topology import EVENTS
from opsmesh.router.wire import Received

#: Most messages in one batch. The server's own limit is 1,000; beyond a few hundred the gain is
#: small and the first one's wait long.
MAX_BATCH: Final = 1000
#: Most bytes in one batch, of data and headers.
MAX_BATCH_BYTES: Final = 1024 * 1024
#: Callers beyond this many wait for their turn: back-pressure.
MAX_QUEUED: Final = 4096
#: Seconds to wait for the broker's acknowledgement.
ACK_TIMEOUT: Final = 5.0

#: Refusals of every batch, not of this one: the stream's flag is off, the server is too old.
_NEVER_ATOMIC: Final = frozenset({10174, 10177})
#: What can keep a message from being acknowledged.
_FAILURES: Final = (NatsError, OSError, TimeoutError, NotAcknowledged)


@dataclass(frozen=True, slots=True)
class PubAck:
    """Where the broker keeps the message; `duplicate`: it had this id already, there."""

    seq: int
    duplicate: bool


class Message(NamedTuple):
    """What `publish_all` stores."""

    subject: str
    data: bytes
    id: str
    headers: Mapping[str, str] | None = None


class _Pending:
    """A message on its way, and who waits for it."""

    __slots__ = ("acked", "data", "header", "subject")

    def __init__(
        self, subject: str, data: bytes, header: bytes, acked: asyncio.Future[PubAck]
    ) -> None:
        self.subject = subject
        self.data = data
        self.header = header
        self.acked = acked

    def frame(self, *, reply: str = "", end: bytes = b"\r\n") -> bytes:
        return wire.publication(self.subject, self.data, reply=reply, block=self.header, end=end)

    def done(self, seq: int, duplicate: bool) -> None:
        if not self.acked.done():  # the caller may have been cancelled
            self.acked.set_result(PubAck(seq, duplicate))

    def failed(self, reason: str) -> None:
        if not self.acked.done():
            self.acked.set_exception(NotAcknowledged(reason))


class Publisher:
    """Publishes into one stream over a connection that others may use too."""

    def __init__(
        self, client: Client, *, stream: str = EVENTS, ack_timeout: float = ACK_TIMEOUT
    ) -> None:
        self._client = client
        self._check = wire.checker(client)
        self._stream = stream
        self._patience = ack_timeout
        self._replies = Replies(client, timeout=ack_timeout)
        self._free = MAX_QUEUED
        self._turns: deque[asyncio.Future[None]] = deque()
        self._queue: deque[_Pending] = deque()
        self._busy = False
        self._idle: asyncio.Future[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._atomic = True
        self._ids = NUID()

    async def publish(
        self, subject: str, data: bytes, *, msg_id: str, headers: Mapping[str, str] | None = None
    ) -> PubAck:
        """Store one message; concurrent calls are stored in the order they were made.

        Raises NotAcknowledged when the broker is away, refuses, or does not answer in time;
        PermissionDenied for a subject that the credentials do not allow, ValueError for a subject
        or header that cannot be sent.
        """
        header = self._header(subject, data, msg_id, headers)
        await self._turn()
        try:
            return await self._enqueue(subject, data, header)
        finally:
            self._pass_on()

    async def publish_all(self, messages: Iterable[Message]) -> list[PubAck]:
        """Store these one after the other, as few batches; an empty list is fine.

        Raises as `publish` does: some may be stored then, and may be published again.
        """
        ready = [(m, self._header(m.subject, m.data, m.id, m.headers)) for m in messages]
        acks: list[PubAck] = []
        for start in range(0, len(ready), MAX_BATCH):
            await self._turn()
            try:
                acked = [self._enqueue(m.subject, m.data, h) for m, h in ready[start:][:MAX_BATCH]]
                acks += await asyncio.gather(*acked)
            finally:
                self._pass_on()
        return acks

    def _header(
        self, subject: str, data: bytes, msg_id: str, headers: Mapping[str, str] | None
    ) -> bytes:
        header = _header(subject, msg_id, headers)
        if (size := len(header) + len(data)) > self._client.max_payload:
            limit = self._client.max_payload
            raise ValueError(f"message of {size} bytes exceeds the broker's {limit} bytes")
        return header

    def _enqueue(self, subject: str, data: bytes, header: bytes) -> asyncio.Future[PubAck]:
        # nats-py would keep it and send it after a reconnect, when it may be in the spool already.
        # (What it holds when the connection breaks is sent late all the same: the broker drops the
        # second one by its id, within the duplicate window.)
        if not self._client.is_connected:
            raise NotAcknowledged("the broker is away")
        self._check(subject)
        loop = asyncio.get_running_loop()
        pending = _Pending(subject, data, header, loop.create_future())
        self._queue.append(pending)
        if not self._busy:
            self._busy = True
            # Not at once: what else is published in this turn of the loop goes with it.
            loop.call_soon(self._begin)
        return pending.acked

    def _begin(self) -> None:
        """Send what waits; a single message needs no task of its own."""
        if len(self._queue) != 1 or not self._send_single(self._queue[0]):
            self._sender = asyncio.create_task(self._send_all())

    def _send_single(self, pending: _Pending) -> bool:
        """Whether it is on its way."""
        if not self._replies.is_ready:
            return False
        where, reply = self._replies.expect()
        try:
            sent = wire.send_now(self._client, pending.frame(reply=where))
        except OSError:
            sent = False
        if not sent:
            forget((reply,))
            return False
        self._queue.popleft()
        reply.add_done_callback(lambda reply: self._single_answered(pending, reply))
        return True

    def _single_answered(self, pending: _Pending, reply: Reply) -> None:
        try:
            self._settle_single(pending, reply.result())
        except NotAcknowledged as error:
            self._failed((pending,), error)
        if self._queue:
            self._begin()
        else:
            self._rest()

    def _failed(self, group: Sequence[_Pending], error: Exception) -> None:
        """Whoever waits behind would wait as long for the same answer."""
        for pending in (*group, *self._queue):
            pending.failed(str(error) or type(error).__name__)
        self._queue.clear()

    def _rest(self) -> None:
        self._busy = False
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _turn(self) -> None:
        """Wait for room in the queue, first come, first served (asyncio.Semaphore, which is as
        fair, spends more time here than all the rest)."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def close(self) -> None:
        """Wait for what is in flight. The connection stays open."""
        while self._busy:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    async def _send_all(self) -> None:
        try:
            await self._replies.ready()
            while self._queue:
                group = self._next_group()
                try:
                    await self._send(group)
                except _FAILURES as error:
                    self._failed(group, error)
        finally:
            if self._queue:  # only when this task was cancelled
                self._failed((), NotAcknowledged("the publisher was stopped"))
            self._rest()

    def _next_group(self) -> list[_Pending]:
        group: list[_Pending] = []
        size = 0
        while self._queue and len(group) < (MAX_BATCH if self._atomic else MAX_QUEUED):
            size += len(self._queue[0].data) + len(self._queue[0].header)
            if group and size > MAX_BATCH_BYTES:
                break
            pending = self._queue.popleft()
            if not pending.acked.done():
                group.append(pending)
        return group

    async def _send(self, group: Sequence[_Pending]) -> None:
        if len(group) > 1 and self._atomic and await self._send_batch(group):
            return
        await self._send_singly(group)

    async def _send_batch(self, group: Sequence[_Pending]) -> bool:
        """Whether the broker took the whole batch; it has taken nothing of it otherwise."""
        batch = self._ids.next().decode()
        count = len(group)
        parts: list[bytes] = []
        for n, pending in enumerate(group[:-1], 1):
            extra = f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {n}\r\n\r\n".encode()
            parts.append(pending.frame(end=extra))
        commit = f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {count}\r\nNats-Batch-Commit: 1"
        where, reply = self._replies.expect()
        parts.append(group[-1].frame(reply=where, end=f"{commit}\r\n\r\n".encode()))
        try:
            await wire.send(self._client, b"".join(parts), within=self._patience)
            ack = acknowledgement(await reply, self._stream)
        finally:
            forget((reply,))
        if "error" in ack:
            # Most often 10201, a message id that is known already (server 2.15.1): the others of
            # this batch go singly, and the broker says which one it was.
            self._atomic = ack["error"].get("err_code") not in _NEVER_ATOMIC
            return False
        if ack.get("count") != count:  # a server that knows no batches has stored the last one
            self._atomic = False
            return False
        # Not at once: the next group goes on its way before all these callers run.
        asyncio.get_running_loop().call_soon(_settle, group, ack["seq"] - count + 1)
        return True

    async def _send_singly(self, group: Sequence[_Pending]) -> None:
        expected = [self._replies.expect() for _ in group]
        replies = [reply for _, reply in expected]
        frames = [pending.frame(reply=at) for pending, (at, _) in zip(group, expected, strict=True)]
        try:
            await wire.send(self._client, b"".join(frames), within=self._patience)
            for pending, reply in zip(group, replies, strict=True):
                self._settle_single(pending, await reply)
        finally:
            forget(replies)

    def _settle_single(self, pending: _Pending, answer: Received) -> None:
        ack = acknowledgement(answer, self._stream)
        if "error" in ack:
            pending.failed(ack["error"].get("description", "refused"))
        else:
            pending.done(ack["seq"], bool(ack.get("duplicate")))


def _settle(group: Sequence[_Pending], first: int) -> None:
    """A batch is stored as one run of sequences."""
    for n, pending in enumerate(group):
        pending.done(first + n, False)


def _header(subject: str, msg_id: str, headers: Mapping[str, str] | None) -> bytes:
    """The header block without its last line break."""
    if not subject or not subject.isprintable() or " " in subject:
        raise ValueError(f"{subject!r} is no subject")
    text = f"NATS/1.0\r\nNats-Msg-Id: {msg_id}\r\n"
    if headers:
        text += "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    lines = 2 + len(headers or ())
    if text.count("\n") != lines or text.count("\r") != lines:
        raise ValueError(f"a header of message {msg_id!r} holds a line break")
    return text.encode()
