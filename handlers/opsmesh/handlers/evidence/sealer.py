"""The sink's side of sealing: it starts the process that seals, and announces what was sealed.

The one rule: the sink itself never compresses or signs; it would hold up the evidence, and keep
the libraries for as long as it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from opsmesh.handlers import figures
from opsmesh.handlers.evidence import announce, keys, sealing
from opsmesh.router import logs

#: Seconds to the next attempt after one that failed; each one more waits twice as long, to a limit.
RETRY: Final = 15.0
RETRY_MAX: Final = 3600.0

log = structlog.get_logger()


class Sealer:
    """Seals what is closed whenever `wake` is called, until cancelled. `client` gives the
    connection to announce on, None while there is none."""

    def __init__(
        self, folder: Path, keys_folder: Path, *, host: str, client: Callable[[], Client | None]
    ) -> None:
        self._folder = folder
        self._keys = keys_folder
        self._host = host
        self._client = client
        self._wake = asyncio.Event()
        self._throttle = logs.Throttle()

    def wake(self) -> None:
        """Something was closed, or the broker is back."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; a child that is at work then ends with it."""
        loop = asyncio.get_running_loop()
        wait = RETRY
        self.wake()
        while True:
            await self._wake.wait()
            self._wake.clear()
            sealed = not await asyncio.to_thread(self._due) or await self._seal()
            if await self._announce() and sealed:
                wait = RETRY
            else:
                loop.call_later(wait, self.wake)
                wait = min(2 * wait, RETRY_MAX)

    def _due(self) -> bool:
        # the first start makes the key, so that it can be given away before anything is sealed
        return not (self._keys / keys.PRIVATE).exists() or bool(sealing.due(self._folder))

    async def _seal(self) -> bool:
        """Whether another attempt is of no use; the child says what it did, and what it did not."""
        due = len(await asyncio.to_thread(sealing.due, self._folder))
        arguments = ("-P", "-m", sealing.__name__, str(self._folder), str(self._keys))
        child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = await child.wait()
            figures.SEALED.add(by=due if code == 0 else 0)
            return code in (0, sealing.REFUSED)
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.terminate()
                await child.wait()

    async def _announce(self) -> bool:
        """Whether nothing is left to announce; while the broker is away its return is waited for,
        not the clock."""
        client = self._client()
        seal = await asyncio.to_thread(announce.pending, self._folder)
        if seal is None or client is None or not client.is_connected:
            return True
        try:
            return await announce.announce(client, self._folder, seal, host=self._host)
        except (NatsError, APIError, OSError, TimeoutError) as error:
            if self._throttle.allows("evidence.not_announced"):
                reason = f"{type(error).__name__}: {error}"
                log.warning("evidence.not_announced", segment=seal.manifest.segment, reason=reason)
            return False
