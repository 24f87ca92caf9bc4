"""How a consumer stands now: how far it is, who decides for it, and what waits."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final, Literal

import msgspec
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from opsmesh.handlers.explain.book import Reader
from opsmesh.handlers.explain.wording import count, span
from opsmesh.handlers.live.consumers import filter_subjects, runs_here
from opsmesh.handlers.live.position import Cursor, Positions
from opsmesh.handlers.live.scope import Scope, decides
from opsmesh.handlers.profiles import candidates, overrides
from opsmesh.handlers.profiles.profile import Profile, ProfileSet, load_profiles
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.times import clock

#: Seconds that an owner has for its sign of life.
PATIENCE: Final = 1.0


class Owner(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who decides for a consumer: the answer of a process, no process, one that hangs, or one at
    another broker."""

    state: Literal["answers", "none", "hangs", "elsewhere"]
    host: str = ""
    pid: int = 0
    seq: int = 0


class Told(msgspec.Struct, frozen=True):
    """A reason, and the next step."""

    text: str
    hint: str = ""


class Files:
    """The profiles of the configuration folder as they are now."""

    def __init__(self, config: Path, host: str, scope: Scope = "all") -> None:
        self.host = host
        self.scope = scope
        self.active: ProfileSet = load_profiles(config)
        self.candidates: ProfileSet = candidates.load(config)
        self.chosen = overrides.read()

    def names(self) -> set[str]:
        """Every profile that has a text."""
        return {*self.active.profiles, *self.candidates.profiles}

    def profile(self, name: str) -> Profile | None:
        """The profile in the state that a person chose for it, or else its file."""
        found = self.active.profiles.get(name)
        if found is not None and name in self.chosen:
            return found.with_state(self.chosen[name])
        return found

    def idle(self, name: str) -> Told | None:
        """Why nobody decides for a profile on this host, as far as the files tell."""
        found = self.profile(name)
        if found is None:
            if self.active.errors:
                told = f"the profile files cannot be read: {self.active.errors[0]}"
                return Told(told, "opsmesh profile validate")
            if name in self.candidates.profiles:
                return None
            return Told("there is no such profile in the files any more")
        if found.state == "disabled":
            return Told("the profile is disabled", f"opsmesh profile enable {name}")
        if not decides(self.scope, found.run_on):
            return elsewhere(self.scope, name)
        if not runs_here(found, self.host):
            return Told(f"it runs on {found.run_on}, and this is {self.host}")
        return None


def elsewhere(scope: Scope, name: str) -> Told:
    """Who decides what is not decided at the broker that is asked."""
    if scope == "host":
        return Told("it is decided at the hub", f"opsmesh --hub why-not {name}")
    return Told("it is decided on each host by itself", f"there: opsmesh why-not {name}")


async def owner(client: Client, consumer: str) -> Owner:
    """Ask who decides."""
    try:
        answer = await client.request(f"own.{consumer}", b"", timeout=PATIENCE)
    except NoRespondersError:
        return Owner(state="none")
    except NatsTimeout:
        return Owner(state="hangs")
    facts = json.loads(answer.data)
    return Owner(state="answers", host=facts["host"], pid=facts["pid"], seq=facts["seq"])


async def cursor(client: Client, consumer: str) -> Cursor | None:
    """How far its events are decided."""
    found, _ = await Positions(client).cursor(consumer)
    return found


async def waiting(
    client: Client, profile: Profile, host: str, *, after: int, before: int | None = None
) -> int:
    """Events for a profile behind the sequence `after`, and before another one."""
    subjects = filter_subjects(profile, host)
    behind = await _from(client, subjects, after + 1)
    return behind if before is None else behind - await _from(client, subjects, before)


async def undecided(
    client: Client, files: Files, reader: Reader, profile: Profile, *, seq: int
) -> Told:
    """Why the event at `seq` is not decided yet."""
    at, who = await asyncio.gather(cursor(client, reader.consumer), owner(client, reader.consumer))
    newest = reader.newest
    queue, ahead = "", 0
    if at is not None:
        ahead = await waiting(client, profile, reader.host, after=at.seq, before=seq)
        some = f"{count(ahead, 'event')} {'waits' if ahead == 1 else 'wait'} before it"
        queue = f"; {some}" if ahead else "; it is the next one"
    if who.state == "answers":
        text = f"its owner ({who.host}, pid {who.pid}) is at sequence {who.seq}{queue}"
        return Told(text, "" if ahead else "progress is noted every 2s: ask again")
    if who.state == "hangs":
        text = "its owner does not answer"
        if at is not None:
            text += f": at sequence {at.seq} for {span(times.now_us() - at.at_us)}"
        return Told(text + queue, "opsmesh status")
    if newest.state == "disabled":
        text = f"the profile is disabled since {clock(newest.at_us, millis=False)}"
        return Told(text + queue, f"opsmesh profile enable {reader.profile}")
    told = None if reader.candidate else files.idle(reader.profile)
    if told is not None:
        return Told(told.text + queue, told.hint or "opsmesh status")
    return Told(f"nobody decides for this profile{queue}", "opsmesh status")


async def _from(client: Client, subjects: list[str], seq: int) -> int:
    """Messages on these subjects from a sequence on: the broker counts them for a new consumer."""
    js = client.jetstream()
    info = await js.add_consumer(
        EVENTS,
        config=ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            filter_subjects=subjects,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=max(seq, 1),
            inactive_threshold=30.0,
            mem_storage=True,
            num_replicas=1,
        ),
    )
    await js.delete_consumer(EVENTS, info.name)
    return info.num_pending or 0
