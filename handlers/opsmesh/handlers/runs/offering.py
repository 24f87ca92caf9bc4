"""Handing a run to another host that is free (ADR 0030): the owner's side.

The owner decides, counts turns, and waits for the end. What it gives away is one attempt: whoever
takes it writes itself into the ledger as its holder, with compare-and-set, before anything begins.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.handlers.live import census
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs.ledger import Held
from opsmesh.router.errands import TAKE
from opsmesh.schemas.envelope import host_token

#: Seconds for which it is believed who has places; and that nobody else has the profile at all.
BELIEVED_S, ALONE_S = 1.0, 10.0
#: Seconds in which hosts say whether they have, and that one has to take a run.
ASK_S, TAKE_S = 0.3, 3.0

log = structlog.get_logger()


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A run to be taken: as the ledger has it at `revision`, and by the text `hash`."""

    key: str
    revision: int
    hash: str


class Offers:
    """One profile's, of its owner."""

    def __init__(self, client: Client, host: str) -> None:
        self._client = client
        self._host = host
        self._free: dict[str, int] = {}
        self._believed = 0.0
        self._asking = asyncio.Lock()

    async def taken(self, held: Held, profile: Profile) -> str:
        """The host that has taken one attempt of the run; "" when none does."""
        async with self._asking:
            if time.monotonic() > self._believed:
                await self._ask(profile)
        while self._free:
            host = max(self._free, key=lambda one: self._free[one])
            if not self._free[host]:
                return ""
            self._free[host] -= 1
            if await self._take(host, held, profile):
                return host
            self._free.pop(host, None)
        return ""

    async def _ask(self, profile: Profile) -> None:
        found = await census.ask(self._client, profile.name, window_s=ASK_S)
        others = [one for one in found if one.host != self._host and one.hash == profile.hash]
        self._free = {one.host: one.free for one in others if one.free}
        self._believed = time.monotonic() + (BELIEVED_S if others else ALONE_S)

    async def _take(self, host: str, held: Held, profile: Profile) -> bool:
        await held.stored()
        offer = Offer(key=held.run.key, revision=held.revision, hash=profile.hash)
        subject = f"{TAKE}.{profile.name}.{host_token(host)}"
        try:
            said = await self._client.request(subject, msgspec.json.encode(offer), timeout=TAKE_S)
        except (NatsError, TimeoutError):
            return False
        return bool(said.data == b"true")
