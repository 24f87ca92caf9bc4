"""The owner of a profile: the one process that decides its events.

Whoever finds nobody that answers for a consumer takes its position (`deciding`), and answers from
then on. A process that cannot be the owner stands by, and costs the broker one small request a
second. Answers only say when to try; what keeps two owners apart is the position's fence.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any, Final

import structlog
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.nuid import NUID

from opsmesh.handlers import figures
from opsmesh.handlers.live.deciding import Deciding
from opsmesh.handlers.live.position import Cursor, Fenced, Positions
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs.runs import Runs, Services
from opsmesh.router import logs, tasks
from opsmesh.router.connection import AWAY
from opsmesh.router.errors import PermissionDenied
from opsmesh.schemas import times

#: Seconds between looks of a process that stands by whether there is still an owner.
STANDBY: Final = 1.0
#: Seconds that an owner has for its sign of life, and signs that it may miss.
PATIENCE, MISSES = 1.0, 3
#: Seconds before another try when the broker is away.
RETRY: Final = 1.0
#: Seconds that attempts may still take when the process ends.
GRACE: Final = 5.0
#: Runs that wait for a person, of which an owner tells the ids.
ASKS: Final = 5

log = structlog.get_logger()
_quiet = logs.Throttle()


def presence(consumer: str) -> str:
    """The subject on which an owner answers: with its host, pid, since when, how far it is, and
    which runs wait for a person."""
    return f"own.{consumer}"


class Owner:
    """Decides for one profile on one consumer while it can be its only decider, and stands by
    otherwise. `runs` is None for a candidate."""

    def __init__(
        self,
        profile: Profile,
        services: Services,
        *,
        consumer: str,
        recorder: Recorder,
        runs: Runs | None,
    ) -> None:
        self.profile = profile
        self.consumer = consumer
        self._services = services
        self._runs = runs
        self._id = f"{services.host}/{os.getpid()}/{NUID().next().decode()}"
        self._make: Callable[[], Deciding] = lambda: Deciding(
            self.profile,
            services,
            consumer=consumer,
            owner=self._id,
            recorder=recorder,
            runs=runs,
        )
        self._positions = Positions(services.client)
        self._deciding: Deciding | None = None
        self._since_us = 0
        self._task: asyncio.Task[None] | None = None
        self._owned = asyncio.Event()
        self._settled = asyncio.Event()
        self._log = log.bind(profile=profile.name, consumer=consumer)

    @property
    def owned(self) -> bool:
        """Whether this process decides now."""
        return self._owned.is_set()

    def start(self) -> None:
        """Begin to own, or to stand by."""
        self._task = asyncio.create_task(self._live())

    async def settled(self) -> None:
        """Return once this process is the owner, or has found another one."""
        await self._settled.wait()

    async def ready(self) -> None:
        """Return once this process is the owner."""
        await self._owned.wait()

    async def stop(self) -> None:
        """Let go; runs go on."""
        if self._task is not None:
            await tasks.end([self._task])
            self._task = None

    def exchange(self, profile: Profile) -> None:
        """Go on with a new text of the same consumer, from the next event on."""
        self.profile = profile
        if self._runs is not None:
            self._runs.exchange(profile)
        if self._deciding is not None:
            self._deciding.exchange(profile)

    async def _live(self) -> None:
        while True:
            try:
                await self._own(*await self._stand_by())
            except Fenced as fenced:
                self._log.warning("profile.fenced", reason=str(fenced))
                if self._runs is not None:  # its successor goes on with them
                    await self._runs.stop(0)
            except PermissionDenied as error:
                if _quiet.allows(f"profile.denied {self.consumer}"):
                    self._log.error("profile.denied", error=str(error), hint=error.hint)
            except AWAY as error:
                if logs.away.allows(logs.BROKER):
                    told = f"{type(error).__name__}: {error}"
                    self._log.warning("profile.interrupted", error=told)
            except Exception as error:
                if _quiet.allows("profile.interrupted"):
                    told = f"{type(error).__name__}: {error}"
                    self._log.warning("profile.interrupted", error=told, exc_info=True)
            await asyncio.sleep(RETRY)

    async def _stand_by(self) -> tuple[Cursor | None, int]:
        """Return when nobody owns it, or its owner hangs: the cursor and its revision from before
        that was known. Who takes the position at another revision has been too slow."""
        missed = 0
        while True:
            place = await self._positions.cursor(self.consumer)
            try:
                await self._services.client.request(presence(self.consumer), b"", timeout=PATIENCE)
                missed = 0
                self._settled.set()
                await asyncio.sleep(STANDBY)
            except NoRespondersError:
                return place
            except NatsTimeout:
                missed += 1
                if missed == MISSES:
                    return place

    async def _own(self, found: Cursor | None, revision: int) -> None:
        deciding = self._make()
        # before the position is taken: nobody may find it taken and its owner mute
        subscription = await self._services.client.subscribe(
            presence(self.consumer), cb=self._answer
        )
        try:
            await deciding.begin(found, revision)
            self._deciding, self._since_us = deciding, times.now_us()
            self._owned.set()
            self._count(1)
            self._settled.set()
            self._log.info("profile.owned", seq=deciding.cursor.seq, hash=self.profile.hash)
            await deciding.work()
        finally:
            if self._owned.is_set():
                self._count(0)
            self._owned.clear()
            self._deciding = None
            try:
                await asyncio.shield(deciding.end())
            finally:  # who went on to answer would take himself for another owner, for ever
                await asyncio.shield(subscription.unsubscribe())

    def _count(self, owned: int) -> None:
        if self._runs is not None:  # a candidate has the name of the profile that it is beside
            figures.OWNED.set(owned, self.profile.name)
            figures.OWNER_CHANGES.add(self.profile.name, by=owned)
            figures.begin(self.profile.name)

    async def _answer(self, msg: Msg) -> None:
        facts: dict[str, Any] = {"host": self._services.host, "pid": os.getpid()}
        if self._deciding is not None:
            cursor = self._deciding.cursor
            facts |= {"since_us": self._since_us, "seq": cursor.seq, "at_us": cursor.at_us}
        if self._runs is not None and (waiting := self._runs.waiting):
            facts |= {"asks": waiting[:ASKS], "asking": len(waiting)}
        await msg.respond(json.dumps(facts).encode())
