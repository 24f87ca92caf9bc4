"""Feedback: what people say of runs, and the budget of false positives that a profile may have.

Judgements are events, `automation.feedback.recorded`; the newest of a run counts. A run that nobody
judged counts as fine, and a run that was asked for by hand, or never began, does not count at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Literal, get_args

import msgspec
from nats.aio.client import Client

from opsmesh.handlers.live import firing
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.spec import FalsePositivesSpec
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.handlers.runs.results import SOURCE
from opsmesh.router.publish import PubAck, Publisher
from opsmesh.router.scan import events
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event, Severity, encode, subject
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.redact import Redactor

Verdict = Literal["false_positive", "useful"]
VERDICTS: Final[tuple[str, ...]] = get_args(Verdict)

RECORDED: Final = "automation.feedback.recorded"
OVER_BUDGET: Final = "automation.profile.over_budget"
#: Runs that are looked at, where a profile has no budget that says how many.
OF_LAST: Final = 50


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody said of a run, and when that was stored."""

    run: str
    profile: str
    verdict: Verdict
    at_us: int


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """False positives among runs."""

    runs: int
    false_positives: int

    @property
    def share(self) -> float:
        """0 to 1; 0 without runs."""
        return self.false_positives / self.runs if self.runs else 0.0


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What a judgement led to.

    `rate` is None for a profile without a budget, or one that was not given. `told` is the event
    that says it is over, when this judgement took it there; `shadowed`: it acts no more here.
    """

    event: Event
    rate: Rate | None = None
    over: bool = False
    told: Event | None = None
    shadowed: bool = False


async def record(
    client: Client,
    run: Run,
    verdict: Verdict,
    *,
    host: str,
    redactor: Redactor,
    profile: Profile | None = None,
    by: str = "",
    note: str = "",
    component: str = "cli",
) -> Recorded:
    """Store a judgement of a run, and hold `profile`, as it is now, to its budget.

    Returns when all is stored; NotAcknowledged when the broker does not confirm it. Doing it again
    is harmless: the person is told once.
    """
    publish = partial(_publish, Publisher(client), redactor)
    cause = await _cause(client, run)
    facts = {
        "profile": run.profile,
        "verdict": verdict,
        "run": run.run_id,
        "trigger_topic": run.topic,
        "trigger_id": run.event_id,
        "by": by,
        "comment": note,
    }
    said = Event(
        topic=RECORDED,
        ts_utc=times.format_us(times.now_us()),
        source=SOURCE,
        component=component,
        severity="info",
        correlation_id=run.correlation_id,
        host=host,
        session_id="",
        workspace=cause.workspace if cause else "",
        payload={name: value for name, value in facts.items() if value},
        run_id=run.run_id,
        id=ids.uuid7(),
        schema_version=SCHEMA_VERSION,
        causation_id=run.event_id,
        hops=cause.hops + 1 if cause else 1,
    )
    await publish(said, msg_id=said.id)
    if profile is None or profile.false_positives is None:
        return Recorded(event=said)
    return await _hold(client, publish, profile, profile.false_positives, said)


async def judgements(client: Client, profile: str | None = None) -> list[Judgement]:
    """Every judgement that is in the stream, oldest first."""
    found = [
        judgement
        async for event, stored_us in events(client, [f"evt.*.{RECORDED}"])
        if (judgement := _judgement(event, stored_us)) is not None
    ]
    return [one for one in found if profile is None or one.profile == profile]


def newest(judged: Iterable[Judgement]) -> dict[str, Verdict]:
    """The verdict that counts, by run."""
    return {one.run: one.verdict for one in judged}


def counted(runs: Iterable[Run]) -> list[Run]:
    """The runs that count, oldest first: a profile decided to begin them, and they began."""
    chosen = [run for run in runs if run.trigger == "event" and run.state != "skipped"]
    return sorted(chosen, key=lambda run: (run.created_us, run.run_id))


def rate(runs: Sequence[Run], verdicts: Mapping[str, Verdict], *, last: int | None = None) -> Rate:
    """The rate among the last of these runs, or among all."""
    chosen = runs if last is None else runs[-last:]
    false = sum(verdicts.get(run.run_id) == "false_positive" for run in chosen)
    return Rate(runs=len(chosen), false_positives=false)


def is_over(spec: FalsePositivesSpec, found: Rate) -> bool:
    """Whether a rate is beyond the budget; to use all of it is not."""
    return found.share > spec.budget


def over_since(
    spec: FalsePositivesSpec, runs: Sequence[Run], judged: Sequence[Judgement], since_us: int
) -> bool:
    """Whether the rate was beyond the budget at every moment after `since_us` at which it changed.

    `runs` are those that count; `judged` is in the order of the stream.
    """
    verdicts = newest(one for one in judged if one.at_us <= since_us)
    later = [one for one in judged if one.at_us > since_us]
    begun = sum(run.created_us <= since_us for run in runs)
    moments = sorted({*(run.created_us for run in runs[begun:]), *(one.at_us for one in later)})
    for moment in moments:
        while begun < len(runs) and runs[begun].created_us <= moment:
            begun += 1
        while later and later[0].at_us <= moment:
            one = later.pop(0)
            verdicts[one.run] = one.verdict
        if not is_over(spec, rate(runs[:begun], verdicts, last=spec.of_last)):
            return False
    return True


async def _hold(
    client: Client,
    publish: Callable[..., Awaitable[PubAck]],
    profile: Profile,
    spec: FalsePositivesSpec,
    cause: Event,
) -> Recorded:
    runs = counted([run async for run in Ledger(client).runs(profile.name)])
    judged = await judgements(client)
    found = rate(runs, newest(judged), last=spec.of_last)
    if not is_over(spec, found):
        return Recorded(event=cause, rate=found)
    before = None
    async for event, stored_us in events(client, [f"evt.*.{OVER_BUDGET}"]):
        if event.payload.get("profile") == profile.name:
            before = event, stored_us
    if (
        before is not None
        and before[0].payload.get("profile_hash") == profile.hash
        and over_since(spec, runs, judged, before[1])
    ):
        return Recorded(event=cause, rate=found, over=True)
    # the state first: when the event cannot be stored, the next judgement does both again
    shadowed = spec.then == "shadow" and _to_shadow(profile)
    told = _over_budget(profile, spec, found, cause)
    # two judgements at once tell of the same step over the line
    mark = before[0].id if before else "first"
    ack = await publish(told, msg_id=f"over:{profile.name}:{profile.hash}:{mark}")
    return Recorded(
        event=cause,
        rate=found,
        over=True,
        told=None if ack.duplicate else told,
        shadowed=shadowed,
    )


def _over_budget(profile: Profile, spec: FalsePositivesSpec, found: Rate, cause: Event) -> Event:
    severity: Severity = "warn"
    return msgspec.structs.replace(
        cause,
        topic=OVER_BUDGET,
        ts_utc=times.format_us(times.now_us()),
        component=profile.name,
        severity=severity,
        payload={
            "profile": profile.name,
            "profile_hash": profile.hash,
            "rate": round(found.share, 6),
            "budget": spec.budget,
            "runs": found.runs,
            "false_positives": found.false_positives,
            "then": spec.then,
        },
        id=ids.uuid7(),
        causation_id=cause.id,
        hops=cause.hops + 1,
    )


def _to_shadow(profile: Profile) -> bool:
    """A profile that acts is put into shadow on this host; a disabled one stays as it is."""
    if overrides.read().get(profile.name, profile.state) != "enabled":
        return False
    overrides.write(profile.name, "shadow")
    return True


async def _cause(client: Client, run: Run) -> Event | None:
    """The event of a run; None when the stream has it no more."""
    if run.data is None and run.stream_seq < 1:
        return None
    try:
        return (await firing.fetch(client, run))[-1].event
    except (firing.Gone, SchemaError):
        return None


async def _publish(
    publisher: Publisher, redactor: Redactor, event: Event, *, msg_id: str
) -> PubAck:
    data, _ = redactor.event(encode(event))
    return await publisher.publish(subject(event.host, event.topic), data, msg_id=msg_id)


def _judgement(event: Event, stored_us: int) -> Judgement | None:
    """None for what anybody may have emitted and is no judgement of a run."""
    try:
        return msgspec.convert({**event.payload, "at_us": stored_us}, Judgement)
    except msgspec.ValidationError:
        return None
