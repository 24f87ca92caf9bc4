"""A key-value bucket with compare-and-set: one message per key in a stream, as NATS KV (ADR-8).

The wire format is that of every NATS KV client, so that `nats kv get` reads what is here. Values
that expire carry `Nats-TTL` (ADR-43).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass

from nats.aio.client import Client
from nats.js.api import Header, RawStreamMsg
from nats.js.errors import APIError, NotFoundError
from nats.nuid import NUID

from opsmesh.router import wire
from opsmesh.router.replies import Replies, Reply, acknowledgement, forget

#: JetStream's error code for an expected last sequence that is not the last one.
WRONG_LAST_SEQUENCE = (10071, 10164)
#: Seconds to wait for the broker.
TIMEOUT = 5.0
#: Seconds between looks for a value that is known to be there.
AGAIN = 0.05
#: Seconds that the mark of a removed key is kept.
MARK_TTL = 3600
#: Keys that `put_all` writes at most: the broker's limit for one batch.
MAX_BATCH = 1000
#: Bytes of values that are grouped at most, and what a message has beside its value.
MAX_GROUP, ROOM = 2**20, 256


class Conflict(Exception):
    """Another writer was first: read again and decide again."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} has changed since it was read")
        self.key = key


@dataclass(frozen=True)
class Entry:
    """A key's value, and the revision that a change of it has to name."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True)
class Put:
    """One key of `put_all`; None removes it. With `revision` it must stand there (0: not exist).

    What was removed leaves a mark, and counts as existing, for MARK_TTL seconds.
    """

    key: str
    value: bytes | None
    revision: int | None = None
    ttl_s: float | None = None

    def headers(self) -> dict[str, str]:
        """The headers of its message."""
        headers = {}
        if self.revision is not None:
            headers[Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value] = str(self.revision)
        if self.value is None:
            headers |= {"KV-Operation": "DEL", Header.MSG_TTL.value: str(MARK_TTL)}
        elif self.ttl_s is not None:
            headers[Header.MSG_TTL.value] = str(max(1, round(self.ttl_s)))
        return headers


_Waiting = tuple[Put, "asyncio.Future[int]"]


class Bucket:
    """One bucket; keys are NATS subject tokens joined by dots."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._check = wire.checker(client)
        self._ids = NUID()
        self._js = client.jetstream(timeout=TIMEOUT)
        self._replies = Replies(client, timeout=TIMEOUT)
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self.stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def get(self, key: str, *, after: int = 0) -> Entry | None:
        """The newest value; None when there is none.

        In a cluster any replica answers, also one that is a moment behind: who knows that the key
        was written `after` some revision is not given an older one, within TIMEOUT.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TIMEOUT
        while True:
            found: RawStreamMsg | None = None
            with contextlib.suppress(NotFoundError):
                found = await self._js.get_last_msg(self.stream, self._prefix + key, direct=True)
            known = found is not None and (found.seq or 0) > after
            if known or not after or loop.time() >= deadline:
                break
            await asyncio.sleep(AGAIN)
        # a removed key leaves a mark for a while
        if found is None or (found.headers and "KV-Operation" in found.headers):
            return None
        return Entry(key, found.data or b"", found.seq or 0)

    async def put(
        self, key: str, value: bytes, *, revision: int = 0, ttl_s: float | None = None
    ) -> int:
        """Write over `revision` (0: the key must not exist); the new revision, or Conflict.

        Calls that stand beside each other go as one batch, and share a sync to disk.
        """
        loop = asyncio.get_running_loop()
        written: asyncio.Future[int] = loop.create_future()
        self._waiting.append((Put(key, value, revision, ttl_s), written))
        if self._writer is None:
            self._writer = loop.create_task(self._write_waiting())
        return await written

    async def _write_waiting(self) -> None:
        try:
            while self._waiting:
                await self._write_group(self._next_group())
        finally:
            self._writer = None

    def _next_group(self) -> list[_Waiting]:
        """What waits, in its order; of one key only the first."""
        group: dict[str, _Waiting] = {}
        rest: list[_Waiting] = []
        size = 0
        for one in self._waiting:
            put, written = one
            size += len(put.value or b"") + ROOM
            fits = not group or (size <= MAX_GROUP and len(group) < MAX_BATCH)
            if written.done():  # its caller was cancelled
                continue
            if put.key in group or not fits or (group and not self._batches):
                rest.append(one)
            else:
                group[put.key] = one
        self._waiting = rest
        return list(group.values())

    @property
    def _batches(self) -> bool:
        """Whether the server takes batches (2.12): an older one would store them one by one."""
        version = self._client.connected_server_version
        return (version.major, version.minor) >= (2, 12)

    async def _write_group(self, group: Sequence[_Waiting]) -> None:
        if not group:
            return
        try:
            last = await self.put_all([put for put, _ in group])
        except Conflict as conflict:
            if len(group) == 1:
                _settle(group[0][1], conflict)
            else:  # the broker does not say whose: nothing is written, each tries for itself
                for one in group:
                    await self._write_group([one])
        except Exception as error:
            for _, written in group:
                _settle(written, error)
        else:  # a batch is stored as one run of sequences
            for n, (_, written) in enumerate(group, last - len(group) + 1):
                _settle(written, n)

    async def put_all(self, puts: Sequence[Put]) -> int:
        """Write all or nothing, as one atomic batch (ADR-50); the revision of the last one.

        Conflict, which names the first key with a revision, when one does not stand there.
        """
        if len(puts) > MAX_BATCH:
            raise ValueError(f"{len(puts)} keys in one batch, the broker takes {MAX_BATCH}")
        await self._replies.ready()
        where, reply = self._replies.expect()
        try:
            await wire.send(self._client, self._frames(puts, where))
            return await self._answer(puts, reply)
        finally:
            forget((reply,))

    async def _answer(self, puts: Sequence[Put], reply: Reply) -> int:
        ack = acknowledgement(await reply, self.stream)
        if "error" not in ack:
            return int(ack["seq"])
        if ack["error"].get("err_code") in WRONG_LAST_SEQUENCE:
            raise Conflict(next(p.key for p in puts if p.revision is not None))
        raise APIError.from_error(ack["error"])

    def put_now(self, put: Put) -> Coroutine[None, None, int] | None:
        """Write one key at once: the broker gets it whatever becomes of this process. What the
        broker says of it, to be awaited; None, when that cannot be done: use `put`."""
        if self._writer is not None or not self._replies.is_ready:
            return None
        where, reply = self._replies.expect()
        try:
            sure = wire.hand_over(self._client, self._frames([put], where))
        except OSError:
            sure = False
        if not sure:  # should it be stored all the same, `put` finds it
            forget((reply,))
            return None
        return self._answer([put], reply)

    def _frames(self, puts: Sequence[Put], reply: str) -> bytes:
        """The commands of one batch; of a single message, without a batch's headers."""
        batch = self._ids.next().decode() if len(puts) > 1 else ""
        frames = []
        for n, put in enumerate(puts, 1):
            self._check(self._prefix + put.key)
            lines = [f"{name}: {value}\r\n" for name, value in put.headers().items()]
            if batch:
                lines.append(f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {n}\r\n")
            last = n == len(puts)
            if batch and last:
                lines.append("Nats-Batch-Commit: 1\r\n")
            frames.append(
                wire.publication(
                    self._prefix + put.key,
                    put.value or b"",
                    reply=reply if last else "",
                    block=f"NATS/1.0\r\n{''.join(lines)}".encode() if lines else b"",
                )
            )
        return b"".join(frames)

    async def delete(self, key: str) -> None:
        """Remove the key and its past."""
        await self.purge(key)

    async def purge(self, pattern: str) -> None:
        """Remove every key that the pattern covers (NATS wildcards), and its past."""
        await self._js.purge_stream(self.stream, subject=self._prefix + pattern)

    def key(self, subject: str) -> str:
        """The key of a message's subject."""
        return subject.removeprefix(self._prefix)

    @property
    def subjects(self) -> str:
        """Every key, as a filter subject."""
        return self._prefix + ">"


def _settle(written: asyncio.Future[int], answer: int | Exception) -> None:
    if written.done():  # its caller was cancelled
        return
    if isinstance(answer, int):
        written.set_result(answer)
    else:
        written.set_exception(answer)
