"""Runs that somebody asked for: by hand, by a redrive, by a replay.

A trigger is one event for one profile. It becomes a run in the ledger, and is acknowledged then:
what follows is the run's own matter.
"""

from __future__ import annotations

import msgspec

from opsmesh.handlers import figures
from opsmesh.handlers.live import firing
from opsmesh.handlers.live.firing import Stored
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs.runs import Runs, Services
from opsmesh.router import deadletter, trigger
from opsmesh.router.consume import Ack, Message, Outcome, Reject
from opsmesh.router.decide import Decision, decide
from opsmesh.router.rule import Rule
from opsmesh.router.topology import TRIGGERS
from opsmesh.router.trigger import Trigger
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError


async def handle(
    message: Message,
    *,
    profile: Profile,
    services: Services,
    consumer: str,
    recorder: Recorder,
    runs: Runs,
) -> Outcome:
    """Decide a message of TRIGGERS, and begin its run."""
    asked = trigger.read(message.headers)
    stored = asked.origin or (TRIGGERS, message.seq, message.stored_us)
    try:
        event = services.registry.upcast(decode(message.data, stored=stored))
    except SchemaError as error:
        reason = f"undecodable: {error}"
        await refuse(services, message, profile.name, reason)
        return Reject("undecodable")
    decision = _decision(profile.rule, event, asked, stored, host=services.host)
    if decision.outcome == "fire":
        run = firing.new_run(
            profile,
            event,
            consumer=consumer,
            host=services.host,
            seq=stored[1],
            stored_us=stored[2],
            trigger=asked,
            events=asked.events,
            data=b"" if asked.events else message.data,
        )
        try:
            [held] = await runs.store([run])
        except BaseException:  # the trigger comes again, as another run of the same key
            runs.not_stored(run)
            raise
        main = Stored(
            event=event,
            data=message.data,
            seq=stored[1],
            stored_us=stored[2],
            headers=message.headers,
        )
        runs.begin(held, [] if asked.events else [main])
    await recorder.write(consumer, [(decision, 0.0)])
    return Ack()


async def refuse(services: Services, message: Message, profile: str, reason: str) -> None:
    """Keep a trigger that cannot become a run, with all that is known of its event: it can be sent
    again like any other dead letter."""
    asked = trigger.read(message.headers)
    stored = asked.origin or (TRIGGERS, message.seq, message.stored_us)
    try:
        event = decode(message.data, stored=stored)
        host, topic, event_id = event.host, event.topic, event.id
    except SchemaError:
        host, topic, event_id = services.host, "undecodable", ""
    await deadletter.write(
        services.client,
        profile=profile,
        data=message.data,
        headers=message.headers,
        reason=reason,
        # not the event's own place: its first letter may be in the broker's duplicate window still
        msg_id=f"dlq:{profile}:{TRIGGERS}:{message.seq}",
        origin=stored,
        events=asked.events,
        host=host,
        topic=topic,
        event_id=event_id,
        redactor=services.redactor,
    )
    figures.DEAD_LETTERS.add(profile)


def _decision(
    rule: Rule, event: Event, asked: Trigger, stored: tuple[str, int, int], *, host: str
) -> Decision:
    """A replay is decided by event and rule alone, without windows; a person's own always fires,
    and a step's unless the profile's state or the event's hops are against it."""
    rule = rule.without_memory()
    if asked.kind == "step":
        rule = msgspec.structs.replace(rule, on=(event.topic,), where=None, run_on="any")
    decision, _ = decide(rule, event, {}, now_us=stored[2], host=host, seq=stored[1])
    if asked.kind == "replay":
        return decision
    if asked.kind == "step" and decision.outcome != "fire":
        return msgspec.structs.replace(decision, timer=f"trigger.{asked.id}")
    return msgspec.structs.replace(
        decision,
        outcome="fire",
        clause="trigger",
        reason=f"triggered: {asked.kind}",
        values={},
        timer=f"trigger.{asked.id}",
    )
