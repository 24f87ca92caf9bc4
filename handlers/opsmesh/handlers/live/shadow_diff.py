"""Where a profile and its candidate part on live events: what each fired, and why not the other.

A firing is known by the event that it is about. Only events that both have decided are compared; a
text that is behind has no opinion yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final, Literal

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.live import backlog, versions
from opsmesh.handlers.live.consumers import CANDIDATE, consumer_name
from opsmesh.handlers.live.position import Positions
from opsmesh.handlers.live.records import Record, records
from opsmesh.handlers.live.versions import Version
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.router.decide import Decision, EventRef, decide
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import decode, host_token
from opsmesh.schemas.errors import SchemaError

Side = Literal["active", "candidate"]
#: The clocks of a command's machine and of the broker may be apart by so many microseconds.
SLACK_US: Final = 60_000_000
#: Seconds to wait for the broker.
TIMEOUT: Final = 5.0


class Why(msgspec.Struct, frozen=True):
    """The other text's decision about the same event, or why there is none."""

    outcome: str
    clause: str
    reason: str


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """A firing that only one side has, and why the other has not."""

    only: Side
    fired: Decision
    other: Why

    @property
    def events(self) -> tuple[EventRef, ...]:
        """What it was about."""
        return self.fired.events or (EventRef(self.fired.event_id, self.fired.event_seq),)


class ShadowDiff(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides' firings on events `from_seq` to `until_seq`, in the order of time.

    Without an active side, `apart` holds what the profile would have fired, and `other` says that
    there is none.
    """

    profile: str
    host: str
    hash: str
    began_us: int
    from_seq: int
    until_seq: int
    both: list[Decision]
    apart: list[Apart]

    def only(self, side: Side) -> list[Apart]:
        """The firings that one side alone has."""
        return [one for one in self.apart if one.only == side]


async def compare(
    client: Client,
    candidate: Profile,
    active: Profile | None,
    *,
    host: str,
    since_us: int | None = None,
) -> ShadowDiff | None:
    """A candidate beside the profile in force; None when the candidate has not begun."""
    consumer = consumer_name(candidate, host, kind=CANDIDATE)
    began = await _began(client, consumer, candidate.hash)
    if began is None:
        return None
    until = [await _decided(client, candidate, consumer, host)]
    texts: list[Version] = []
    if active is not None:
        consumer = consumer_name(active, host)
        texts = [version async for version in versions.history(client, consumer)]
        until.append(await _decided(client, active, consumer, host))
    return await _diff(client, candidate, began, texts, min(until), host=host, since_us=since_us)


async def alone(
    client: Client, profile: Profile, *, host: str, since_us: int | None = None
) -> ShadowDiff | None:
    """What a profile that is itself in shadow would have fired since it is; None: not begun."""
    consumer = consumer_name(profile, host)
    began = await _began(client, consumer, profile.hash, state="shadow")
    if began is None:
        return None
    until_seq = await _decided(client, profile, consumer, host)
    return await _diff(client, profile, began, [], until_seq, host=host, since_us=since_us)


async def began(client: Client, candidate: Profile, *, host: str) -> Version | None:
    """The version with which the candidate began, as it is now."""
    consumer = consumer_name(candidate, host, kind=CANDIDATE)
    return await _began(client, consumer, candidate.hash)


async def _began(
    client: Client, consumer: str, digest: str, *, state: str = "shadow"
) -> Version | None:
    first = None
    async for version in versions.history(client, consumer):
        if version.hash != digest or version.state != state:
            first = None
        elif first is None:
            first = version
    return first


async def _decided(client: Client, profile: Profile, consumer: str, host: str) -> int:
    """Up to where it has decided: the stream's end, when nothing after its cursor is for it."""
    info = await client.jetstream(timeout=TIMEOUT).stream_info(EVENTS)
    cursor, _ = await Positions(client).cursor(consumer)
    if cursor is None:
        return 0
    waits = await backlog.oldest_us(client, profile, host=host, after_seq=cursor.seq)
    return max(cursor.seq, info.state.last_seq) if waits is None else cursor.seq


async def _diff(
    client: Client,
    candidate: Profile,
    began: Version,
    texts: list[Version],
    until_seq: int,
    *,
    host: str,
    since_us: int | None,
) -> ShadowDiff:
    sides: dict[Side, dict[str, Decision]] = {"active": {}, "candidate": {}}
    scan_us = max(began.at_us - SLACK_US, (since_us or 0) - SLACK_US)
    async for record in records(client, profile=candidate.name, firings=True, since_us=scan_us):
        one = record.decision
        if not began.from_seq <= one.event_seq <= until_seq or one.clause == "trigger":
            continue
        if _elsewhere(candidate, one, host) or (since_us is not None and one.at_us < since_us):
            continue
        sides[_side(began, record)].setdefault(one.event_id, one)
    active, shadow = sides["active"], sides["candidate"]
    lone: list[tuple[Side, Decision]] = []
    lone += [("candidate", one) for key, one in shadow.items() if key not in active]
    lone += [("active", one) for key, one in active.items() if key not in shadow]
    lone.sort(key=lambda found: (found[1].at_us, found[1].event_seq))
    quiet = await _quiet(client, candidate, began, host, {one.event_id for _, one in lone}, scan_us)
    apart = []
    for only, one in lone:
        other: Side = "active" if only == "candidate" else "candidate"
        recorded = quiet.get((other, one.event_id))
        if recorded is not None:
            why = Why(recorded.outcome, recorded.clause, recorded.reason)
        elif other == "candidate":
            why = await _again(client, candidate.with_state("shadow"), one, host)
        else:
            why = await _again(client, _in_force(texts, one.event_seq), one, host)
        apart.append(Apart(only=only, fired=one, other=why))
    return ShadowDiff(
        profile=candidate.name,
        host=host,
        hash=candidate.hash,
        began_us=began.at_us,
        from_seq=began.from_seq,
        until_seq=until_seq,
        both=[one for key, one in shadow.items() if key in active],
        apart=apart,
    )


def _elsewhere(profile: Profile, decision: Decision, host: str) -> bool:
    return profile.run_on != "any" and host_token(decision.host) != host_token(host)


def _side(began: Version, record: Record) -> Side:
    same = (record.consumer, record.decision.profile_hash) == (began.consumer, began.hash)
    return "candidate" if same else "active"


async def _quiet(
    client: Client,
    candidate: Profile,
    began: Version,
    host: str,
    wanted: set[str],
    since_us: int,
) -> dict[tuple[Side, str], Decision]:
    """The newest recorded decision of each side about each of these events that fired nothing."""
    found: dict[tuple[Side, str], Decision] = {}
    if not wanted:
        return found
    async for record in records(client, profile=candidate.name, firings=False, since_us=since_us):
        one = record.decision
        if one.event_id in wanted and not _elsewhere(candidate, one, host):
            found[_side(began, record), one.event_id] = one
    return found


def _in_force(texts: Iterable[Version], seq: int) -> Profile | Why:
    """The text that decided the event at `seq`."""
    version = None
    for one in texts:
        if one.from_seq <= seq:
            version = one
    if version is None:
        return Why("none", "profile", "there was no active text of it")
    if version.state == "disabled":
        return Why("none", "state", "the active text was disabled")
    try:
        return version.read()
    except ConfigError as error:
        return Why("none", "profile", f"its text of then cannot be read any more: {error}")


async def _again(client: Client, profile: Profile | Why, fired: Decision, host: str) -> Why:
    """What is not on record follows from the event and the text alone: decide it again."""
    if isinstance(profile, Why):
        return profile
    with contextlib.suppress(NotFoundError, SchemaError):
        js = client.jetstream(timeout=TIMEOUT)
        msg = await js.get_msg(EVENTS, fired.event_seq, direct=True)
        event = decode(msg.data or b"", stored=(EVENTS, fired.event_seq, fired.at_us))
        here = host if profile.run_on == "origin" else fired.host
        decision, _ = decide(
            profile.rule, event, {}, now_us=fired.at_us, host=here, seq=fired.event_seq
        )
        if decision.derivable:
            return Why(decision.outcome, decision.clause, decision.reason)
        return Why("none", "", "its decision is not on record any more")
    return Why("none", "", "the event is not in the stream any more")
