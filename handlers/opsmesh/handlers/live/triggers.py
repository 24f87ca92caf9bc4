"""Triggers find their host: where the profile acts on the event, whoever took them from the queue.

All handlers of a broker share one queue, and their profile files differ. Whoever takes a trigger
hands it on to the host that has to act (`trg.<profile>.<host>`, which that host alone reads), where
it waits until the host is there. The one rule: a trigger acts where its event would have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from nats.aio.client import Client

from opsmesh.handlers.live import census, liveness, triggering, versions
from opsmesh.handlers.live.active import Active
from opsmesh.handlers.live.census import Having
from opsmesh.handlers.live.consumers import ACTIVE
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.live.scope import Scope, decides
from opsmesh.handlers.runs.services import Services
from opsmesh.router import logs, trigger
from opsmesh.router.consume import Ack, Consumer, Message, Outcome, Reject, Retry, durable
from opsmesh.router.errors import PermissionDenied
from opsmesh.router.topology import TRIGGERS
from opsmesh.schemas.envelope import decode, host_token
from opsmesh.schemas.errors import SchemaError

#: Seconds after which a trigger is offered again to whoever decides for its profile.
RETRY_S: Final = 1.0
#: Seconds after which a trigger for a profile that nobody knows is looked at again while the
#: profile files are broken, or the hosts that have it are away.
UNKNOWN_S: Final = 5.0
#: Triggers that are taken at once.
CONCURRENCY: Final = 4

log = structlog.get_logger()
_quiet = logs.Throttle()


class Triggers:
    """The triggers of one handlers process. `known` gives a profile as its file is now, and
    `broken` says whether that file cannot be read."""

    def __init__(
        self,
        client: Client,
        services: Services,
        recorder: Recorder,
        *,
        scope: Scope,
        known: Callable[[str], Awaitable[Active | None]],
        broken: Callable[[], bool],
    ) -> None:
        self._client = client
        self._services = services
        self._recorder = recorder
        self._scope = scope
        self._known = known
        self._broken = broken
        self._consumers: list[Consumer] = []

    async def start(self) -> None:
        """Take what is in the queue of all, and in that of this host."""
        own = host_token(self._services.host)
        # in this order: an older one of all had this host's filter too
        for name, subject in (("triggers", "trg.*"), (f"triggers-on-{own}", f"trg.*.{own}")):
            consumer = Consumer(
                self._client,
                TRIGGERS,
                durable(name, [subject], all_stored=True),
                self._take,
                concurrency=CONCURRENCY,
            )
            try:
                await consumer.start()
            except PermissionDenied as denied:  # a handler of its profiles: it is handed its own
                log.info("triggers.left_to_others", queue=subject, why=str(denied))
            else:
                self._consumers.append(consumer)

    async def stop(self) -> None:
        """Take no more."""
        await asyncio.gather(*(consumer.stop() for consumer in self._consumers))
        self._consumers.clear()

    async def _take(self, message: Message) -> Outcome:
        _, name, *to = message.subject.split(".")
        active = await self._known(name)
        if active is None:
            return await self._absent(message, name, handed=bool(to))
        run_on = active.profile.run_on
        if not decides(self._scope, run_on):
            return await self._refuse(message, name, not_decided_here(self._scope, name))
        where = await self._where(message, run_on, active)
        if where is None:
            return Retry(RETRY_S)  # nobody decides it just now
        if host_token(where) != host_token(self._services.host):
            return await self._hand_on(message, name, where)
        if active.owner is not None and not active.owner.owned:
            return Retry(RETRY_S)  # for another process of this host
        return await triggering.handle(
            message,
            profile=active.profile,
            services=self._services,
            consumer=active.consumer,
            recorder=self._recorder,
            runs=active.runs,
        )

    async def _where(self, message: Message, run_on: str, active: Active | None) -> str | None:
        """The host that has to act; None when it cannot be known now."""
        if run_on == "origin":
            return self._origin(message)
        if run_on != "any":
            return run_on
        if active is not None and (active.owner is None or active.owner.owned):
            return self._services.host
        name = message.subject.split(".")[1]
        owner = await liveness.owner(self._client, f"{ACTIVE}-{name}")
        return owner.host if isinstance(owner, liveness.Alive) else None

    def _origin(self, message: Message) -> str:
        """The event's host; what is no event is refused here."""
        try:
            return decode(message.data, stored=_stored(message)).host
        except SchemaError:
            return self._services.host

    async def _absent(self, message: Message, name: str, *, handed: bool) -> Outcome:
        """A profile that is not in force here, and perhaps on other hosts."""
        if self._broken():  # it may stand in the file that cannot be read
            return Retry(UNKNOWN_S)
        if not handed:
            found = await census.ask(self._client, name, enough=lambda one: True)
            if found:
                return await self._for_others(message, name, found[0])
            if host := await self._away(name):
                if _quiet.allows(f"trigger.waits {name}"):
                    log.warning("trigger.waits", profile=name, host=host, seq=message.seq)
                return Retry(UNKNOWN_S)
        return await self._refuse(message, name, not_in_force(name, self._services.host))

    async def _for_others(self, message: Message, name: str, one: Having) -> Outcome:
        where = await self._where(message, one.run_on, None)
        if where is None:
            return Retry(RETRY_S)
        if host_token(where) == host_token(self._services.host):
            return await self._refuse(message, name, not_in_force(name, self._services.host))
        return await self._hand_on(message, name, where)

    async def _away(self, name: str) -> str:
        """Another host that has decided for a profile of this name, and has not removed it."""
        own = host_token(self._services.host)
        async for one in versions.newest_of_all(self._client):
            if one.profile == name and one.source is not None and host_token(one.host) != own:
                return one.host
        return ""

    async def _hand_on(self, message: Message, name: str, host: str) -> Outcome:
        await trigger.hand_on(
            self._client,
            name,
            host,
            message.data,
            message.headers,
            seq=message.seq,
            stored_us=message.stored_us,
        )
        log.info("trigger.handed_on", profile=name, host=host, seq=message.seq)
        return Ack()

    async def _refuse(self, message: Message, name: str, reason: str) -> Outcome:
        await triggering.refuse(self._services, message, name, reason)
        return Reject("no such profile")


def not_in_force(name: str, host: str) -> str:
    """Why nothing of this name can be run."""
    return f"no profile {name!r} is in force on {host}"


def not_decided_here(scope: Scope, name: str) -> str:
    """Why a profile that is in force is not this process's to run."""
    if scope == "host":
        return f"{name} is decided at the hub: opsmesh --hub profile trigger {name}"
    return f"{name} runs where its event came from, by that host's own handlers: trigger it there"


def _stored(message: Message) -> tuple[str, int, int]:
    origin = trigger.read(message.headers).origin
    return origin or (TRIGGERS, message.seq, message.stored_us)
