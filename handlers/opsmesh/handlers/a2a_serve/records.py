"""What agents have asked for: one record for each task, in the bucket `opsmesh-a2a`.

A record is there before its run is, and knows what the run does not: whose task it is, which
message it came of, and where news of it go. The one rule: one caller's message is one task, however
often it comes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from opsmesh.router import topology
from opsmesh.router.kv import Bucket, Conflict, Put
from opsmesh.router.scan import scan

#: Addresses that one task may send news to.
MAX_PUSH: Final = 5
#: Writes that are tried again when another process wrote meanwhile.
TRIES: Final = 10


class PushTo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Where news of a task go; `told` is the newest that arrived there."""

    id: str
    url: str
    token: str = ""
    scheme: str = ""
    credentials: str = ""
    told: str = ""


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A task. `message` is the first message as it came, bounded and without secrets."""

    task_id: str
    profile: str
    context_id: str
    message_id: str
    caller: str
    created_us: int
    message: dict[str, Any]
    #: The context as the message named it; empty: we made one.
    given_context: str = ""
    push: list[PushTo] = msgspec.field(default_factory=list)

    @property
    def run_key(self) -> str:
        """The key of its run in the ledger: the task's id is the event's, and the trigger's."""
        return f"{self.profile}.{self.task_id}.{self.task_id}"


class Records:
    """The bucket."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._bucket = Bucket(client, topology.A2A)

    async def create(self, record: Record) -> tuple[Record, bool]:
        """The task of this caller's message, and whether it is new."""
        same = _same(record.caller, record.message_id, record.given_context)
        task_id = record.task_id
        while True:
            with contextlib.suppress(Conflict):
                await self._bucket.put_all(
                    [
                        Put(same, task_id.encode(), revision=0),
                        Put(f"task.{task_id}", msgspec.json.encode(record), revision=0),
                    ]
                )
                return record, True
            entry = await self._bucket.get(same)
            known = await self.get(entry.value.decode()) if entry is not None else None
            if known is not None:
                return known, False

    async def get(self, task_id: str) -> Record | None:
        """The task of this id; None when there is none."""
        if not _is_token(task_id):
            return None
        entry = await self._bucket.get(f"task.{task_id}")
        return None if entry is None else msgspec.json.decode(entry.value, type=Record)

    async def all(self) -> AsyncIterator[Record]:
        """Every task that is remembered."""
        subjects = [self._bucket.subjects.removesuffix(">") + "task.*"]
        async for found in scan(
            self._client, self._bucket.stream, subjects=subjects, newest_per_subject=True
        ):
            if found.data:
                yield msgspec.json.decode(found.data, type=Record)

    async def set_push(self, task_id: str, push: PushTo) -> Record | None:
        """Keep where news go to, in place of the same id; None: no such task. ValueError when
        there are too many."""

        def change(record: Record) -> None:
            others = [one for one in record.push if one.id != push.id]
            if len(others) >= MAX_PUSH:
                raise ValueError(f"a task sends news to {MAX_PUSH} addresses at most")
            record.push = [*others, push]

        return await self._change(task_id, change)

    async def drop_push(self, task_id: str, push_id: str) -> Record | None:
        """Send no more news there."""

        def change(record: Record) -> None:
            record.push = [one for one in record.push if one.id != push_id]

        return await self._change(task_id, change)

    async def told(self, task_id: str, push_id: str, mark: str) -> None:
        """Note what has arrived."""

        def change(record: Record) -> None:
            for one in record.push:
                if one.id == push_id:
                    one.told = mark

        await self._change(task_id, change)

    async def _change(self, task_id: str, change: Any) -> Record | None:
        for _ in range(TRIES):
            entry = await self._bucket.get(f"task.{task_id}") if _is_token(task_id) else None
            if entry is None:
                return None
            record = msgspec.json.decode(entry.value, type=Record)
            change(record)
            with contextlib.suppress(Conflict):
                data = msgspec.json.encode(record)
                await self._bucket.put(entry.key, data, revision=entry.revision)
                return record
        raise Conflict(f"task.{task_id}")


def _same(caller: str, message_id: str, context: str) -> str:
    text = f"{caller}\x00{context}\x00{message_id}".encode(errors="replace")
    return f"message.{hashlib.sha256(text).hexdigest()[:32]}"


def _is_token(text: str) -> bool:
    """Whether a stranger's text is a task's id, and can stand in a key."""
    return 0 < len(text) <= 64 and text.replace("-", "").isalnum() and text.isascii()
