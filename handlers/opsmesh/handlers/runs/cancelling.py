"""Runs that somebody does not want any more: told to every handlers process, done by the one that
has the run. Being told is no promise: the ledger says when it is over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router.errands import CANCEL

#: Seconds that whoever has the run has to say so.
PATIENCE: Final = 3.0
#: Seconds between looks for its end.
LOOK_S: Final = 0.05
#: Characters of a reason.
MAX_REASON: Final = 500

log = structlog.get_logger()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which run, and why."""

    run: str
    reason: str = ""


class Canceller:
    """Hears for one process; `cancel` (a run, a reason) says whether the run was here."""

    def __init__(self, client: Client, cancel: Callable[[str, str], bool]) -> None:
        self._client = client
        self._cancel = cancel
        self._open: Subscription | None = None

    async def start(self) -> None:
        """Listen."""
        self._open = await self._client.subscribe(CANCEL, cb=self._heard)

    async def stop(self) -> None:
        """Listen no more."""
        if self._open is not None:
            await self._open.unsubscribe()
            self._open = None

    async def _heard(self, message: Msg) -> None:
        try:
            wanted = msgspec.json.decode(message.data, type=Wanted)
            if self._cancel(wanted.run, wanted.reason[:MAX_REASON] or "it was cancelled"):
                log.info("run.cancel_wanted", run_id=wanted.run, reason=wanted.reason[:MAX_REASON])
                await message.respond(b'{"ok":true}')
        except msgspec.DecodeError:
            with contextlib.suppress(Exception):
                await message.respond(b'{"ok":false}')


async def ask(client: Client, run_id: str, reason: str) -> bool:
    """Ask that a run be cancelled; False when nobody has it, or no handlers are running."""
    data = msgspec.json.encode(Wanted(run=run_id, reason=reason))
    try:
        answer = await client.request(CANCEL, data, timeout=PATIENCE)
    except (NoRespondersError, NatsTimeout):
        return False
    return bool(answer.data == b'{"ok":true}')


async def over(ledger: Ledger, run: Run) -> Run:
    """The run's record once it is over, or as it is after PATIENCE."""
    found = run
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while not found.finished:
                await asyncio.sleep(LOOK_S)
                held = await ledger.get(run.key)
                found = held.run if held is not None else found
    return found
