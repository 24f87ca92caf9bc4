"""Holds the profiles of one handlers process to their objectives.

What has been told is read from the stream, as the runs are: a handler that starts tells nothing
again, and judges nobody before it has read all of it. The one rule: a profile is paused, or put
into shadow, when an objective *becomes* breached; from then on its runs count anew, so that whoever
enables it again is not overruled by old ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog
from nats.aio.client import Client

from opsmesh.handlers import figures
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.slo.book import CHANGED, Book, Told, described, followed
from opsmesh.handlers.slo.objectives import HOUR_US, Policy, Standing
from opsmesh.router import logs, tasks
from opsmesh.router.connection import AWAY
from opsmesh.router.errors import BrokerUnavailable, PermissionDenied
from opsmesh.router.rule import ProfileState
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event, Severity, host_token

#: Seconds after a run before it is looked at: what comes together is looked at together.
SETTLE_S: Final = 0.2
#: Seconds between looks without a new run: time alone ends a burst, and a window; and profiles
#: change.
LOOK_S: Final = 10.0
#: Seconds until the stream is read again after the broker was away.
AGAIN_S: Final = 1.0

_SEVERITIES: Final[dict[str, Severity]] = {
    "breached": "error",
    "burning": "warn",
    "recovered": "info",
}
_STATES: Final[dict[str, ProfileState]] = {"pause": "disabled", "shadow": "shadow"}

log = structlog.get_logger()


class Keeper:
    """`profiles` gives those that this process decides, as they are now; `notify` shows a person
    two lines, where there is a desktop."""

    def __init__(
        self,
        client: Client,
        publish: Callable[[Event], Awaitable[None]],
        profiles: Callable[[], Iterable[Profile]],
        *,
        host: str,
        notify: Callable[[Event, str, str], Awaitable[None]],
        clock: Callable[[], int] = times.now_us,
    ) -> None:
        self._client = client
        self._publish = publish
        self._profiles = profiles
        self._host = host
        self._notify = notify
        self._clock = clock
        self._book = Book()
        self._news = asyncio.Event()
        self._throttle = logs.Throttle()

    async def run(self) -> None:
        """Look for ever; nothing is read while no profile has an objective."""
        reach, reading = 0, None
        try:
            while True:
                if (longest := self._longest()) > reach:  # the first one, or one that looks further
                    reach = longest
                    await tasks.end([] if reading is None else [reading])
                    reading = asyncio.create_task(self._read(self._clock() - reach))
                await self._next()
                try:
                    await self.look()
                except Exception as error:  # a full disk: the next look does it
                    self._say("slo.not_looked", error)
        finally:
            await tasks.end([] if reading is None else [reading])

    async def look(self) -> None:
        """Tell, once, of each objective that stands otherwise than was told."""
        now_us = self._clock()
        for profile in self._kept():
            policy = profile.slo
            if policy is None:
                continue
            of = host_token(self._host) if profile.run_on == "origin" else None
            host = host_token(self._host)
            for one in self._book.standings(profile.name, policy, host=host, of=of, now_us=now_us):
                _show(profile.name, one)
                told = self._book.told(host, profile.name, one.objective.name)
                before = "recovered" if told.did else told.verdict
                verdict = {"ok": "recovered", "too_few": before}.get(one.verdict, one.verdict)
                if verdict != before:
                    await self._tell(profile, policy, one, verdict, told)
        self._book.facts.forget(now_us - self._longest())

    def _kept(self) -> Sequence[Profile]:
        return [profile for profile in self._profiles() if profile.slo is not None]

    def _longest(self) -> int:
        return max((p.slo.window_us for p in self._kept() if p.slo), default=0)

    async def _next(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._news.wait()
            await asyncio.sleep(SETTLE_S)
        except TimeoutError:
            pass
        self._news.clear()

    async def _read(self, since_us: int) -> None:
        """Everything since then, and then what comes."""
        # who may read its own host alone has only such profiles
        elsewhere = any(profile.run_on != "origin" for profile in self._kept())
        host = "*" if elsewhere else host_token(self._host)
        while True:
            try:
                async for book, changes in followed(self._client, since_us=since_us, host=host):
                    self._book = book
                    if changes:
                        self._news.set()
            except (*AWAY, BrokerUnavailable, PermissionDenied) as error:
                log.debug("slo.not_read", error=str(error))
            except Exception as error:  # nobody would hear of it, nor of a profile any more
                self._say("slo.not_read", error)
            await asyncio.sleep(AGAIN_S)

    def _say(self, what: str, error: Exception) -> None:
        if self._throttle.allows(what):
            log.error(what, error=f"{type(error).__name__}: {error}", exc_info=True)

    async def _tell(
        self, profile: Profile, policy: Policy, one: Standing, verdict: str, told: Told
    ) -> None:
        """The state first: when the event cannot be stored, the next look does both again."""
        did = ""
        if verdict == "breached" and (state := _STATES.get(policy.on_breach)) is not None:
            did = state if _hold_back(profile, state) else ""
        event = self._event(profile, policy, one, verdict, told, did)
        await self._publish(event)
        self._book.add(event, self._clock())
        log.warning("slo.changed", profile=profile.name, objective=one.objective.name, to=verdict)
        if verdict == "breached":
            await self._notify(event, *words(profile.name, one, did))

    def _event(
        self,
        profile: Profile,
        policy: Policy,
        one: Standing,
        verdict: str,
        told: Told,
        did: str,
    ) -> Event:
        now_us = self._clock()
        # two looks at one change, by a handler and the one after it, are one event
        id = ids.derived(told.at_us // 1000, profile.name, one.objective.name, verdict, told.id)
        payload = {
            **described(one),
            "profile": profile.name,
            "window_s": policy.window_us / 1e6,
            "then": policy.on_breach if verdict == "breached" else None,
            "did": did or None,
        }
        return Event(
            topic=f"{CHANGED}{verdict}",
            ts_utc=times.format_us(now_us),
            source="opsmesh",
            component=profile.name,
            severity=_SEVERITIES[verdict],
            correlation_id=id,
            host=self._host,
            session_id="",
            workspace="",
            payload={name: value for name, value in payload.items() if value is not None},
            id=id,
            schema_version=SCHEMA_VERSION,
            hops=1,
        )


def _show(profile: str, one: Standing) -> None:
    if one.left is not None:
        figures.SLO_LEFT.set(one.left, profile, one.objective.name)
    if (burn := one.burn.get(HOUR_US)) is not None:
        figures.SLO_BURN.set(burn, profile, one.objective.name)


def words(profile: str, one: Standing, did: str) -> tuple[str, str]:
    """What a person is shown: a title and a line."""
    good, wanted = 100 * (one.good or 0), 100 * one.objective.target
    share = f"{good:.4g} % of {one.runs} runs, {wanted:.4g} % wanted"
    then = {"disabled": " It is paused: its events wait.", "shadow": " It is in shadow now."}
    return f"{profile} misses {one.objective.name}", f"{share}.{then.get(did, '')}"


def _hold_back(profile: Profile, state: ProfileState) -> bool:
    """A profile that acts is put into that state on this host; another one stays as it is."""
    if overrides.read().get(profile.name, profile.state) != "enabled":
        return False
    overrides.write(profile.name, state)
    return True
