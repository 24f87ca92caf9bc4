"""The lease of a run while a step of it is under way: renewed now and then, or the step is ended.

A short step costs no write: every write renews the lease, and the first one for its own sake comes
after a third of it. A holder that cannot renew in time ends its step while the lease still lasts. A
holder that was asleep, and finds its lease over, asks the ledger once: nobody has taken the run
over, and it goes on, or it ends the step at once.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

import structlog

from opsmesh.handlers.runs.holder import RENEW_AT, STOP_AT, clock
from opsmesh.handlers.runs.ledger import Held
from opsmesh.router.kv import Conflict
from opsmesh.schemas import times

#: Seconds between looks at the clock at most: a machine that slept notices that late.
TICK: Final = 1.0
#: Seconds that an answer may take when the lease is over already.
LAST_LOOK: Final = 2.0
#: Seconds before a step that has not ended is told again; a program has its time after TERM.
TOLD_AGAIN: Final = 5.0

log = structlog.get_logger()


class Lost(Exception):
    """The run is not ours any more, or may not be for long: its step has been ended."""


class Lease:
    """Keeps `held` while the body runs. When it is lost the body is cancelled, and the block raises
    Lost."""

    def __init__(self, held: Held, lease_s: float) -> None:
        self._held = held
        self._lease_s = lease_s
        self._body: asyncio.Task[object] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._told = 0

    async def __aenter__(self) -> Self:
        self._body = asyncio.current_task()
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()  # what it has begun to write is written before the next write
        if self._told and self._body is not None:
            for _ in range(self._told):
                others = self._body.uncancel()
            if not others and (kind is None or issubclass(kind, asyncio.CancelledError)):
                raise Lost from error

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(min(TICK, self._lease_s * RENEW_AT / 2))
            age = clock() - self._held.renewed
            if age < self._lease_s * RENEW_AT:
                continue
            left = self._lease_s * STOP_AT - age
            try:
                async with asyncio.timeout(left if left > 0 else LAST_LOOK):
                    await self._held.save(times.now_us())
            except Exception as error:
                # also what is no absence, like credentials that were revoked: whatever keeps us
                # from renewing, another handler will begin it when the lease is over
                if not isinstance(error, Conflict | TimeoutError):
                    told = f"{type(error).__name__}: {error}"
                    log.warning("lease.not_renewed", run_id=self._held.run.run_id, error=told)
                break
        while self._body is not None:
            self._told += 1
            self._body.cancel()
            await asyncio.sleep(TOLD_AGAIN)


async def sure(held: Held, lease_s: float) -> None:
    """Return when the run is ours for a while; Conflict when it is somebody else's by now."""
    if clock() - held.renewed > lease_s * RENEW_AT:
        await held.save(times.now_us())
