"""Which runs wait for a person: an index, so that nobody has to read the whole ledger for it.

The ledger decides, the index only leads there: an entry is written before the record that waits,
so that none is ever missing, and one that leads to nothing is removed by whoever finds it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from nats.aio.client import Client

from opsmesh.router import topology
from opsmesh.router.kv import Bucket, Conflict, Put
from opsmesh.router.scan import scan

#: Keys of questions that are open, and of those that ended, by the question's id.
OPEN, ENDED = topology.QUESTIONS
#: Seconds for which an ended question can still be looked up.
ENDED_TTL_S: Final = 30 * 86400.0


class Index:
    """Ids of questions, and the key in the ledger of the run that asks each."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._bucket = Bucket(client, topology.WINDOWS)

    async def put(self, question_id: str, run_key: str) -> None:
        """Note a question; noting it again is harmless."""
        key = f"{OPEN}.{question_id}"
        try:
            await self._bucket.put(key, run_key.encode())
        except Conflict:
            # there, or its end left a mark: a run whose outcome is unknown may wait twice
            if await self._bucket.get(key) is None:
                await self._bucket.put_all([Put(key, run_key.encode())])

    async def end(self, question_id: str, run_key: str) -> None:
        """It is open no more."""
        with contextlib.suppress(Conflict):
            await self._bucket.put(f"{ENDED}.{question_id}", run_key.encode(), ttl_s=ENDED_TTL_S)
        await self._bucket.delete(f"{OPEN}.{question_id}")

    async def run_key(self, question_id: str) -> str | None:
        """The run that asked; None when no such question is known."""
        for kind in (OPEN, ENDED):
            if (entry := await self._bucket.get(f"{kind}.{question_id}")) is not None:
                return entry.value.decode()
        return None

    async def open(self) -> AsyncIterator[tuple[str, str]]:
        """Every question that may be open, the oldest first, and its run."""
        prefix = self._bucket.subjects.removesuffix(">") + OPEN + "."
        async for msg in scan(
            self._client,
            self._bucket.stream,
            subjects=[f"{prefix}>"],
            newest_per_subject=True,
        ):
            if msg.data and not (msg.headers and "KV-Operation" in msg.headers):
                yield msg.subject.removeprefix(prefix), msg.data.decode()
