"""Whether each profile in force is decided: who owns it, what waits, and for how long.

The one rule: nothing here waits for long when all is well. Owners are asked all at once, and the
time of the oldest event is looked up for a profile with a backlog alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from nats.aio.client import Client
from nats.js.api import ConsumerInfo

from opsmesh.cli import output, session
from opsmesh.router import paths, running
from opsmesh.router.settings import Settings
from opsmesh.schemas import times

if TYPE_CHECKING:  # a broken installation is what `status` has to be able to tell
    from opsmesh.handlers.live.liveness import Alive, Hangs
    from opsmesh.handlers.live.position import Cursor
    from opsmesh.handlers.live.scope import Scope
    from opsmesh.handlers.profiles.profile import Profile

Verdict = Literal[
    "ok",
    "behind",
    "stuck",
    "nobody decides",
    "not in force",
    "does not answer",
    "disabled",
    "elsewhere",
]
#: Verdicts that somebody has to do something about; what is not in force is told with its file.
WRONG: Final = ("stuck", "nobody decides", "does not answer")
#: An event that waits for so many seconds, while the cursor does not move, is stuck.
STUCK_S: Final = 30.0
#: Seconds before a second look for an owner: one may be on its way, after a start or a change.
AGAIN_S: Final = 1.0
_MEND_FILE: Final = "mend the file that is broken; check it: opsmesh profile validate"


@dataclass(frozen=True, kw_only=True)
class ProfileHealth:
    """One profile, or candidate, on this host. Times are RFC 3339 in UTC."""

    profile: str
    kind: str
    state: str
    verdict: Verdict
    detail: str
    waiting: int
    oldest: str | None
    owner: dict[str, Any] | None
    consumer: str
    #: Some of the `asking` runs that wait for a person's answer.
    asks: tuple[str, ...] = ()
    asking: int = 0

    @property
    def fix(self) -> str:
        """What mends it; empty when nothing is wrong."""
        if self.verdict == "not in force":
            return _MEND_FILE
        if self.verdict not in WRONG:
            return ""
        anew = anew_with("handlers:hub" if session.asks_hub() else "handlers")
        if self.verdict == "does not answer":
            return f"another process of handlers takes over; if none does: {anew}"
        return anew


def anew_with(component: str) -> str:
    """The command that shows a component's log, then the one that starts the mesh anew."""
    state = running.mesh()
    if state is None:
        return "opsmesh up --detach"
    see = [f"{one.see}; then: " for one in state.components if one.name == component]
    return "".join([*see, state.anew])


async def check(
    client: Client, settings: Settings, infos: Mapping[str, ConsumerInfo]
) -> list[ProfileHealth]:
    """Every profile and candidate of the configuration folder; `infos` are the consumers of
    EVENTS."""
    found, broken = _wanted()
    return list(
        await asyncio.gather(
            *(_check(client, one, kind, settings.host, infos, broken=broken) for kind, one in found)
        )
    )


def _wanted() -> tuple[list[tuple[str, Profile]], bool]:
    """What the files say, and whether one of them is broken: then what is new in the others is not
    in force either."""
    from opsmesh.handlers.live.consumers import ACTIVE, CANDIDATE
    from opsmesh.handlers.profiles import candidates, overrides
    from opsmesh.handlers.profiles.profile import load_profiles

    folder, chosen = Path(paths.config_dir()), overrides.read()
    loaded = load_profiles(folder)
    active = [one.with_state(chosen.get(one.name, one.state)) for one in loaded.profiles.values()]
    shadows = [one.with_state("shadow") for one in candidates.load(folder).profiles.values()]
    found = [(ACTIVE, one) for one in active] + [(CANDIDATE, one) for one in shadows]
    return found, bool(loaded.errors)


async def _check(
    client: Client,
    profile: Profile,
    kind: str,
    host: str,
    infos: Mapping[str, ConsumerInfo],
    *,
    broken: bool,
) -> ProfileHealth:
    from opsmesh.handlers.live import backlog, liveness
    from opsmesh.handlers.live.consumers import consumer_name, runs_here
    from opsmesh.handlers.live.position import Positions
    from opsmesh.handlers.live.scope import decides

    consumer = consumer_name(profile, host, kind=kind)
    scope = session.scope()
    here, info = runs_here(profile, host, scope), infos.get(consumer)
    waiting = (info.num_pending or 0) + (info.num_ack_pending or 0) if info is not None else 0
    owner: Alive | Hangs | None = None
    cursor: Cursor | None = None
    oldest_us = None
    ours = decides(scope, profile.run_on)
    if ours and (profile.state != "disabled" or profile.run_on == "any"):
        owner = await liveness.owner(client, consumer)
        if here and owner is None and profile.state != "disabled":
            await asyncio.sleep(AGAIN_S)
            owner = await liveness.owner(client, consumer)
    if here and waiting:
        cursor, _ = await Positions(client).cursor(consumer)
    if cursor is not None:
        oldest_us = await backlog.oldest_us(client, profile, host=host, after_seq=cursor.seq)
    oldest = None if oldest_us is None else times.format_us(oldest_us)
    verdict: Verdict = "elsewhere"
    if here:
        verdict = _verdict(profile, owner, oldest_us)
    if verdict == "nobody decides" and broken:
        verdict = "not in force"
    alive = owner if isinstance(owner, liveness.Alive) else None
    other = _whose(scope, ours=ours)
    return ProfileHealth(
        profile=profile.name,
        kind=kind,
        state=profile.state,
        verdict=verdict,
        detail=_detail(profile, verdict, alive, waiting, oldest, elsewhere=other),
        waiting=waiting,
        oldest=oldest,
        owner=None if alive is None else {"host": alive.host, "pid": alive.pid, "seq": alive.seq},
        consumer=consumer,
        asks=() if alive is None else alive.asks,
        asking=0 if alive is None else alive.asking,
    )


def _whose(scope: Scope, *, ours: bool) -> str:
    """Where a leaf's profile is decided, when not at the broker that is asked."""
    if ours:
        return ""
    at_hub = "decided at the hub: opsmesh --hub profile ls"
    return at_hub if scope == "host" else "decided on each host by itself: opsmesh profile ls"


def _verdict(profile: Profile, owner: Alive | Hangs | None, oldest_us: int | None) -> Verdict:
    from opsmesh.handlers.live.liveness import Hangs

    if isinstance(owner, Hangs):
        return "does not answer"
    if owner is None:
        return "disabled" if profile.state == "disabled" else "nobody decides"
    now_us = times.now_us()
    if oldest_us is None or now_us - oldest_us < STUCK_S * 1e6:
        return "ok"
    return "stuck" if now_us - owner.at_us > STUCK_S * 1e6 else "behind"


def _detail(
    profile: Profile,
    verdict: Verdict,
    owner: Alive | None,
    waiting: int,
    oldest: str | None,
    *,
    elsewhere: str,
) -> str:
    since = f" since {output.local(oldest)}" if oldest is not None else ""
    wait = f"{waiting} {'waits' if waiting == 1 else 'wait'}{since}" if waiting else ""
    if verdict == "elsewhere" and elsewhere:
        return elsewhere
    if verdict == "elsewhere":
        there = "decided on" if owner is not None else "nobody decides now, it waits for"
        return f"{there} {profile.run_on}{f', {wait}' if wait else ''}"
    if verdict in ("nobody decides", "not in force", "disabled"):
        return f"{verdict}, {wait}" if wait else verdict
    if owner is None:
        return f"its owner does not answer{f', {wait}' if wait else ''}"
    by = f"{owner.host} (pid {owner.pid})"
    if verdict == "stuck":
        at = output.local(times.format_us(owner.at_us))
        return f"stuck: {wait}, and {by} is at sequence {owner.seq} since {at}"
    if verdict == "behind":
        return f"behind: {wait}; {by} decides, and is at sequence {owner.seq}"
    return f"{by} decides{f', {wait}' if wait else ''}"
