"""The profiles in force in a handlers process: an owner for each, kept in step with the files.

A file that cannot be read leaves the profiles of before in force; what was saved while the broker
was away is taken up once it is back. The one rule: what another host may go on with (its position,
its versions) is not forgotten here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import watchfiles
from nats.js.errors import NotFoundError

from opsmesh.handlers.live import census, versions
from opsmesh.handlers.live.active import Active
from opsmesh.handlers.live.census import Having, Presence
from opsmesh.handlers.live.consumers import CANDIDATE, consumer_name, runs_here
from opsmesh.handlers.live.owner import GRACE, Owner
from opsmesh.handlers.live.position import Positions
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.live.scope import Scope, decides
from opsmesh.handlers.live.triggers import not_decided_here, not_in_force
from opsmesh.handlers.profiles import candidates, overrides
from opsmesh.handlers.profiles.profile import Profile, ProfileSet, load_profiles, profile_files
from opsmesh.handlers.runs.guests import Guests
from opsmesh.handlers.runs.runs import Runs
from opsmesh.handlers.runs.services import Services
from opsmesh.router import logs, paths, tasks
from opsmesh.router.connection import AWAY
from opsmesh.router.topology import EVENTS

#: The watcher is armed somewhere in its first moments: files are read again after so many seconds,
#: so that an edit between the first reading and then is not missed.
SECOND_LOOK = 1.0
#: Seconds to wait for profiles to be owned, at the start and after a change.
SETTLE = 5.0
#: Seconds until files are taken up again that could not be, for want of a broker.
RETRY = 2.0
#: Path, inode, modification time and size of each profile file.
Versions = tuple[tuple[str, int, int, int], ...]

log = structlog.get_logger()
_quiet = logs.Throttle()


class InForce:
    """Those of one process. `rejected` hears of files that are broken, once."""

    def __init__(
        self,
        services: Services,
        recorder: Recorder,
        config: Path,
        *,
        scope: Scope,
        rejected: Callable[[ProfileSet], Awaitable[None]],
    ) -> None:
        self._client = services.client
        self._host = services.host
        self._services = services
        self._recorder = recorder
        self._config = config
        self._scope = scope
        self._tell_rejected = rejected
        self._active: dict[str, Active] = {}
        self._candidates: dict[str, Owner] = {}
        #: What is to be done yet: names that are not in step, consumers to be forgotten.
        self._unfinished: set[str] = set()
        self._leaving: dict[str, Profile] = {}
        self._rejections: list[str] = []
        self._reloading = asyncio.Lock()
        self._read: Versions = ()

    @property
    def broken(self) -> bool:
        """Whether the files cannot be read as they are."""
        return bool(self._rejections)

    def all(self) -> list[Active]:
        """Every profile in force."""
        return list(self._active.values())

    def get(self, name: str) -> Profile | None:
        """The profile as it acts now; None when there is none of that name."""
        active = self._active.get(name)
        return active.profile if active is not None else None

    async def now(self, name: str) -> Active | None:
        """The same as its file is at this moment."""
        await self._up_to_date()
        return self._active.get(name)

    async def stop(self, grace: float) -> None:
        """Let go of every profile; give runs that are under way `grace` seconds."""
        await asyncio.gather(*(owner.stop() for owner in self.owners()))
        guests = [one.guests for one in self.all() if one.guests is not None]
        await asyncio.gather(
            *(one.stop(grace) for one in guests),
            *(active.runs.stop(grace) for active in self.all()),
        )

    async def reload(self) -> None:
        """Bring consumers in step with the files; a broken set changes nothing. What cannot be
        done, for the broker is away, is done by the next call."""
        self._read = _versions(self._config)
        try:
            await self._reload()
        except BaseException:
            self._read = ()
            raise

    async def _reload(self) -> None:
        found = await asyncio.to_thread(load_profiles, self._config)
        for problem in found.problems:
            log.warning("plugin.skipped", problem=str(problem))
        if found.errors:
            await self._rejected(found)
            return
        self._rejections = []
        chosen = overrides.read()
        profiles = {
            name: profile.with_state(chosen[name]) if name in chosen else profile
            for name, profile in found.profiles.items()
        }
        await self._forget_removed()
        for name in self._active.keys() - profiles.keys():
            await self._remove(name)
        for profile in profiles.values():
            await self._put(profile)
        await self._put_candidates()
        await self._settle()

    async def _settle(self) -> None:
        """Return once every profile has an owner, here or elsewhere: what is stored from then on is
        not the past of a new profile. A broker that is away is not waited for."""
        waiting = [asyncio.create_task(owner.settled()) for owner in self.owners()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=SETTLE)
            await tasks.end(late)

    def owners(self) -> list[Owner]:
        owners = [active.owner for active in self._active.values() if active.owner is not None]
        return [*owners, *self._candidates.values()]

    async def _rejected(self, found: ProfileSet) -> None:
        texts = [str(error) for error in found.errors]
        if texts == self._rejections:  # said already: an editor writes a file more than once
            return
        self._rejections = texts
        for text in texts:
            log.error("profiles.rejected", error=text, in_force=sorted(self._active))
        if self._scope != "mesh":  # the host's other handlers say it
            await self._tell_rejected(found)

    async def _put(self, profile: Profile) -> None:
        known = self._active.get(profile.name)
        same = known is not None and known.profile == profile
        if same and profile.name not in self._unfinished:
            return
        self._unfinished.add(profile.name)
        consumer = consumer_name(profile, self._host)
        if known is not None and known.consumer != consumer:
            await self._remove(profile.name)
            known = None
        if known is None:
            known = Active(profile, consumer, Runs(profile, self._services))
            ours = decides(self._scope, profile.run_on)
            if not ours:
                await self._not_ours(profile, consumer)
            self._active[profile.name] = known
            if ours:
                await self._appear(known)
        known.profile = profile
        known.runs.exchange(profile)
        wanted = profile.state != "disabled" and runs_here(profile, self._host, self._scope)
        if known.owner is None and wanted:
            known.owner = self._owner(profile, consumer, known.runs)
        elif known.owner is not None and not wanted:
            owner, known.owner = known.owner, None
            await owner.stop()
        elif known.owner is not None:
            known.owner.exchange(profile)
        if profile.state == "disabled" and runs_here(profile, self._host, self._scope):
            await self._note_disabled(profile, consumer)
        self._unfinished.discard(profile.name)

    async def _appear(self, active: Active) -> None:
        name, host = active.profile.name, self._host
        places = self._services.places
        active.presence = Presence(self._client, name, lambda: active.facts(host, places))
        if active.profile.run_on == "any":
            active.guests = Guests(self._services, lambda: active.profile)
            await active.guests.start()
        await active.presence.start()

    async def _not_ours(self, profile: Profile, consumer: str) -> None:
        """The host's other handlers decide it: what it remembers here is of a time before the host
        joined, and would be acted on when it leaves."""
        found, _ = await Positions(self._client).cursor(consumer)
        if self._scope == "host" and found is not None:
            await self._forget(profile, consumer)
            log.info("profile.handed_to_hub", profile=profile.name)

    def _owner(self, profile: Profile, consumer: str, runs: Runs | None) -> Owner:
        owner = Owner(
            profile, self._services, consumer=consumer, recorder=self._recorder, runs=runs
        )
        owner.start()
        return owner

    async def _note_disabled(self, profile: Profile, consumer: str) -> None:
        """From its cursor on nothing is decided, unless another host goes on."""
        cursor, _ = await Positions(self._client).cursor(consumer)
        if cursor is None:
            return
        if profile.run_on == "any" and await self._goes_on_elsewhere(profile.name):
            return
        await versions.write(
            self._client, profile, consumer=consumer, host=self._host, from_seq=cursor.seq + 1
        )

    async def _goes_on_elsewhere(self, name: str) -> bool:
        """Whether another process has a profile of this name in force."""

        def another(one: Having) -> bool:
            return one.state != "disabled" and (one.host, one.pid) != (self._host, os.getpid())

        return any(map(another, await census.ask(self._client, name, enough=another)))

    async def _remove(self, name: str) -> None:
        active = self._active.pop(name)
        if active.presence is not None:
            await active.presence.stop()
        if active.guests is not None:
            await active.guests.stop(GRACE)
        elsewhere = active.owner is not None and not active.owner.owned
        if active.owner is not None:
            await active.owner.stop()
        await active.runs.stop(GRACE)
        log.info("profile.removed", profile=name)
        if not elsewhere and runs_here(active.profile, self._host, self._scope):
            self._leaving[active.consumer] = active.profile
            await self._forget_removed()

    async def _forget_removed(self) -> None:
        for consumer, profile in list(self._leaving.items()):
            # another host's file may still have it
            shared = profile.run_on == "any" and consumer == consumer_name(profile, self._host)
            if not (shared and await self._goes_on_elsewhere(profile.name)):
                await self._forget(profile, consumer)
            del self._leaving[consumer]

    async def _forget(self, profile: Profile, consumer: str) -> None:
        await versions.removed(self._client, profile, consumer=consumer, host=self._host)
        await Positions(self._client).forget(consumer)
        with contextlib.suppress(NotFoundError):
            await self._client.jetstream().delete_consumer(EVENTS, consumer)

    async def _put_candidates(self) -> None:
        """Texts that decide in shadow beside those in force."""
        found = await asyncio.to_thread(candidates.load, self._config)
        for error in found.errors:
            log.error("candidate.rejected", error=str(error))
        wanted = {
            consumer_name(profile, self._host, kind=CANDIDATE): profile.with_state("shadow")
            for profile in found.profiles.values()
            if runs_here(profile, self._host, self._scope)
        }
        for consumer in self._candidates.keys() - wanted.keys():
            owner = self._candidates.pop(consumer)
            owned = owner.owned
            await owner.stop()
            if owned:
                self._leaving[consumer] = owner.profile
                await self._forget_removed()
        for consumer, profile in wanted.items():
            known = self._candidates.get(consumer)
            if known is None:
                self._candidates[consumer] = self._owner(profile, consumer, None)
            elif known.profile != profile:
                known.exchange(profile)

    async def hindrance(self, name: str, host: str) -> str:
        """Why a profile cannot be run by hand for an event of `host`; "" when it can. Another
        process may have it, and then this one says so for it."""
        active = await self.now(name)
        if active is not None and decides(self._scope, active.profile.run_on):
            if active.profile.run_on != "origin" or host in ("", self._host):
                return ""
        elif active is not None:
            return not_decided_here(self._scope, name)

        def takes(one: Having) -> bool:
            return one.run_on != "origin" or host in ("", one.host)

        found = await census.ask(self._client, name, enough=takes)
        if any(takes(one) for one in found):
            return ""
        broken = "; the profile files cannot be read: opsmesh profile validate"
        where = host if found or active is not None else self._host
        return not_in_force(name, where) + (broken if self._rejections else "")

    async def _up_to_date(self) -> None:
        """Take files up that were saved since: who mends a profile and asks for a run at once means
        the mended one, and the watcher may not have spoken yet, or be at it."""
        if self._reloading.locked() or _versions(self._config) != self._read:
            async with self._reloading:
                if _versions(self._config) != self._read:
                    await self.reload()

    async def look_again(self) -> None:
        await asyncio.sleep(SECOND_LOOK)
        await self._take_up()

    async def watch(self) -> None:
        states = overrides.path().parent
        for folder in (self._config, states):
            await asyncio.to_thread(paths.private_dir, str(folder))
        async for _ in watchfiles.awatch(
            self._config, states, watch_filter=_is_profile_file, debounce=200
        ):
            await self._take_up()

    async def _take_up(self) -> None:
        """Return once the files as they are then are in force."""
        while True:
            try:
                async with self._reloading:
                    return await self.reload()
            except Exception as error:
                if _quiet.allows("profiles.not_reloaded"):
                    told, known = f"{type(error).__name__}: {error}", isinstance(error, AWAY)
                    log.exception("profiles.not_reloaded", error=told, exc_info=not known)
            await asyncio.sleep(RETRY)


def _is_profile_file(_: watchfiles.Change, path: str) -> bool:
    return path.endswith(".yaml") or path == str(overrides.path())


def _versions(config: Path) -> Versions:
    """What the profile files are like now, without reading them."""
    found = []
    for path in (*(path for path, _ in profile_files(config)), overrides.path()):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append((str(path), stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)
