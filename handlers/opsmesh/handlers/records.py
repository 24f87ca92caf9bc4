"""Decision records: what every profile decided about every event it was shown.

Records are written behind the decisions, in batches; a handler that dies loses at most the last
few, and what was fired is in the ledger anyway.
"""

from __future__ import annotations

import asyncio

import structlog

from opsmesh.router.consume import Message
from opsmesh.router.decide import Decision
from opsmesh.router.errors import NotAcknowledged
from opsmesh.router.publish import Publisher
from opsmesh.schemas.envelope import host_token

#: Records that wait at most; a full queue makes deciding wait.
QUEUE = 4096
#: Seconds between attempts while the broker is away.
RETRY_S = 1.0

log = structlog.get_logger()


class Recorder:
    """Writes to DECISIONS, subject `dec.<profile>.<host>`."""

    def __init__(self, publisher: Publisher, *, host: str) -> None:
        self._publisher = publisher
        self._host = host_token(host)
        self._waiting: asyncio.Queue[tuple[Decision, int]] = asyncio.Queue(QUEUE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def record(self, decision: Decision, message: Message) -> None:
        """Note one decision; waits only when thousands of records do."""
        await self._waiting.put((decision, message.seq))

    async def run(self) -> None:
        """Write what is noted, until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while not self._waiting.empty() and len(batch) < QUEUE:
                batch.append(self._waiting.get_nowait())
            await self._write(batch)

    async def flush(self) -> None:
        """Write what is still noted, once; for the end of the process."""
        batch = []
        while not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        await asyncio.gather(*(self._publish(*item) for item in batch), return_exceptions=True)

    async def _write(self, batch: list[tuple[Decision, int]]) -> None:
        while True:
            done = await asyncio.gather(
                *(self._publish(*item) for item in batch), return_exceptions=True
            )
            failed = [
                item
                for item, result in zip(batch, done, strict=True)
                if isinstance(result, NotAcknowledged)
            ]
            for result in done:
                if isinstance(result, Exception) and not isinstance(result, NotAcknowledged):
                    log.error("decision.not_recorded", error=str(result))
            if not failed:
                return
            batch = failed
            await asyncio.sleep(RETRY_S)

    async def _publish(self, decision: Decision, seq: int) -> None:
        await self._publisher.publish(
            f"dec.{decision.profile}.{self._host}",
            decision.encode(),
            msg_id=f"{decision.profile}:{seq}:{decision.outcome}",
        )
