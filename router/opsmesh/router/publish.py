"""The publisher: messages into a stream, acknowledged, in order, batched when there are many.

The one rule: `publish` returns only what the broker has confirmed. NotAcknowledged means "perhaps
stored": send it again with the same id, and the broker keeps one.

An idle publisher sends at once. What arrives while a group is in flight goes as the next group: one
atomic batch (NATS ADR-50), which costs the broker one sync to disk instead of one for each message.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.nuid import NUID

from opsmesh.router.errors import NotAcknowledged
from opsmesh.router.topology import EVENTS

#: Most messages in one batch. The server's own limit is 1,000; beyond a few hundred the gain is
#: small and the first one's wait long.
MAX_BATCH: Final = 1000
#: Most bytes in one batch, of data and headers.
MAX_BATCH_BYTES: Final = 1024 * 1024
#: Callers beyond this many wait for their turn: back-pressure.
MAX_QUEUED: Final = 4096
#: Seconds to wait for the broker's acknowledgement.
ACK_TIMEOUT: Final = 5.0
#: Seconds between looks at the connection while an acknowledgement is awaited.
LOOK: Final = 0.05

#: Refusals of every batch, not of this one: the stream's flag is off, the server is too old.
_NEVER_ATOMIC: Final = frozenset({10174, 10177})


@dataclass(frozen=True, slots=True)
class PubAck:
    """Where the broker keeps the message; `duplicate`: it had this id already, there."""

    seq: int
    duplicate: bool


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
        self._stream = stream
        self._ack_timeout = ack_timeout
        self._free = MAX_QUEUED
        self._turns: deque[asyncio.Future[None]] = deque()
        self._queue: deque[_Pending] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._atomic = True
        self._inbox = client.new_inbox()
        self._subscribed = False
        self._replies: dict[str, asyncio.Future[Msg]] = {}
        self._tokens = 0
        self._ids = NUID()

    async def publish(
        self, subject: str, data: bytes, *, msg_id: str, headers: Mapping[str, str] | None = None
    ) -> PubAck:
        """Store one message; concurrent calls are stored in the order they were made.

        Raises NotAcknowledged when the broker is away, refuses, or does not answer in time;
        ValueError for a subject or header that cannot be sent.
        """
        header = _header(subject, msg_id, headers)
        if (size := len(header) + len(data)) > self._client.max_payload:
            limit = self._client.max_payload
            raise ValueError(f"message of {size} bytes exceeds the broker's {limit} bytes")
        await self._turn()
        try:
            # nats-py would keep it and send it after a reconnect, when it may be in the spool
            # already. (What it holds when the connection breaks is sent late all the same: the
            # broker drops the second one by its id, within the duplicate window.)
            if not self._client.is_connected:
                raise NotAcknowledged("the broker is away")
            pending = _Pending(subject, data, header, asyncio.get_running_loop().create_future())
            self._queue.append(pending)
            if self._sender is None:
                self._sender = asyncio.create_task(self._send_all())
            return await pending.acked
        finally:
            self._pass_on()

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
        if self._sender is not None:
            await self._sender

    async def _send_all(self) -> None:
        try:
            while self._queue:
                group = self._next_group()
                try:
                    await self._send(group)
                except (NatsError, OSError, TimeoutError, NotAcknowledged) as error:
                    # Whoever waits behind would wait as long for the same answer.
                    for pending in (*group, *self._queue):
                        pending.failed(str(error) or type(error).__name__)
                    self._queue.clear()
        finally:
            self._sender = None
            while self._queue:  # only when this task was cancelled
                self._queue.popleft().failed("the publisher was stopped")

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
        if not self._subscribed:
            await self._client.subscribe(f"{self._inbox}.*", cb=self._on_reply)
            self._subscribed = True
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
            parts.append(_frame(pending, "", extra))
        commit = f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {count}\r\nNats-Batch-Commit: 1"
        reply, token = self._expect()
        parts.append(_frame(group[-1], token, f"{commit}\r\n\r\n".encode()))
        await self._write(parts)
        ack = await self._ack(reply)
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
        replies, parts = [], []
        for pending in group:
            reply, token = self._expect()
            replies.append(reply)
            parts.append(_frame(pending, token, b"\r\n"))
        await self._write(parts)
        try:
            for pending, reply in zip(group, replies, strict=True):
                ack = await self._ack(reply)
                if "error" in ack:
                    pending.failed(ack["error"].get("description", "refused"))
                else:
                    pending.done(ack["seq"], bool(ack.get("duplicate")))
        finally:
            for reply in replies:
                reply.cancel()

    def _expect(self) -> tuple[asyncio.Future[Msg], str]:
        """A future for a reply, and the subject it will come on."""
        self._tokens += 1
        subject = f"{self._inbox}.{self._tokens}"
        reply: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._replies[subject] = reply
        reply.add_done_callback(lambda _: self._replies.pop(subject, None))
        return reply, subject

    async def _on_reply(self, msg: Msg) -> None:
        reply = self._replies.get(msg.subject)
        if reply is not None and not reply.done():
            reply.set_result(msg)

    async def _write(self, frames: Sequence[bytes]) -> None:
        # Client.publish validates, formats and queues each message for itself; a group written as
        # one command is 2.5 times as fast. These two methods are private: test_publish guards them.
        await self._client._send_command(b"".join(frames))
        await self._client._flush_pending()

    async def _ack(self, reply: asyncio.Future[Msg]) -> dict[str, Any]:
        """The broker's answer; NotAcknowledged when none comes, or the connection breaks."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._ack_timeout
        connection = self._client.stats["reconnects"]
        while not reply.done():
            left = deadline - loop.time()
            if left <= 0:
                reply.cancel()
                raise NotAcknowledged(f"no acknowledgement within {self._ack_timeout:g} s")
            await asyncio.wait((reply,), timeout=min(left, LOOK))
            same = self._client.stats["reconnects"] == connection and self._client.is_connected
            if not same and not reply.done():
                reply.cancel()
                raise NotAcknowledged("the connection to the broker broke")
        msg = reply.result()
        if not msg.data:  # 503: no stream listens on the subject, or JetStream is not ready
            raise NotAcknowledged(f"nothing stores {self._stream}'s subjects at the broker")
        ack: dict[str, Any] = json.loads(msg.data)
        if "error" not in ack and ack.get("stream") != self._stream:
            raise NotAcknowledged(f"stored in {ack.get('stream')}, expected {self._stream}")
        return ack


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


def _frame(pending: _Pending, reply: str, end: bytes) -> bytes:
    """One HPUB command (NATS client protocol)."""
    size = len(pending.header) + len(end)
    total = size + len(pending.data)
    command = f"HPUB {pending.subject} {reply} {size} {total}\r\n".encode()
    return b"".join((command, pending.header, end, pending.data, b"\r\n"))
