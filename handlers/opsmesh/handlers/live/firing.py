"""A decision that fires, as a run: what its ledger entry says, and the events that it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from nats.aio.client import Client
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.steps import Step
from opsmesh.handlers.runs.ledger import Run, StepRecord
from opsmesh.router.clauses import field as event_field
from opsmesh.router.decide import EventRef
from opsmesh.router.errors import Unreadable
from opsmesh.router.topology import EVENTS
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError

#: Seconds to wait for the broker.
TIMEOUT = 5.0


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A stored event: its message's bytes and headers, and where and when it was stored."""

    event: Event
    data: bytes
    seq: int
    stored_us: int
    headers: Mapping[str, str] = field(default_factory=dict)


class Gone(Exception):
    """An event of a run lies in the stream no more, or is not to be read."""

    def __init__(self, event_id: str, seq: int, *, why: str = "") -> None:
        gone = f"event {event_id} is no longer in {EVENTS} at sequence {seq}"
        super().__init__(why or gone)
        self.event_id = event_id
        self.seq = seq


def new_run(
    profile: Profile,
    event: Event,
    *,
    consumer: str,
    host: str,
    seq: int,
    stored_us: int,
    due_us: int = 0,
    events: tuple[EventRef, ...] = (),
    trigger: Trigger | None = None,
    data: bytes = b"",
) -> Run:
    """The ledger entry of a run that has not begun. Its id is derived from what fired it: whoever
    decides the same event again means the same run. `data` are the bytes of an event that the
    stream may not keep as long as the run needs it."""
    now_us = times.now_us()
    trigger_id = trigger.id if trigger else ""
    return Run(
        run_id=ids.derived(stored_us // 1000, profile.name, event.id, trigger_id),
        profile=profile.name,
        profile_hash=profile.hash,
        event_id=event.id,
        topic=event.topic,
        correlation_id=event.correlation_id,
        host=host,
        stream_seq=seq,
        stored_us=stored_us,
        due_us=due_us,
        created_us=now_us,
        updated_us=now_us,
        trigger=trigger.kind if trigger else "event",
        trigger_id=trigger_id,
        consumer=consumer,
        events=events,
        slot=_slot(profile, event),
        data=data.decode() if data else None,
    )


def perhaps_begun(run: Run, step: Step) -> None:
    """Make it a run of which nobody knows whether its first step was begun."""
    now_us = times.now_us()
    record = StepRecord(
        id=step.id,
        action=step.action.key,
        state="unknown",
        started_us=now_us,
        unknown_us=now_us,
        on_unknown=step.on_unknown,
        error="the broker was restarted, and whoever may have begun this run is gone",
    )
    run.state, run.attempt, run.steps = "running", 1, [record]


async def fetch(client: Client, run: Run) -> list[Stored]:
    """The events of a run, its own the last; Gone when one is not there any more."""
    if run.data is not None:
        data = run.data.encode()
        event = decode(data, stored=(EVENTS, run.stream_seq, run.stored_us))
        return [Stored(event=event, data=data, seq=run.stream_seq, stored_us=run.stored_us)]
    refs = run.events or (EventRef(run.event_id, run.stream_seq),)
    return [await read(client, ref) for ref in refs]


async def read(client: Client, ref: EventRef) -> Stored:
    """One event of the stream; Gone when it is not there."""
    try:
        found = await _message(client, ref.seq)
        data = found.data or b""
        stored_us = round(found.time.timestamp() * 1e6) if found.time else 0
        event = decode(data, stored=(EVENTS, ref.seq, stored_us))
    except (NotFoundError, SchemaError) as error:
        raise Gone(ref.id, ref.seq) from error
    except Unreadable as error:
        raise Gone(ref.id, ref.seq, why=f"{error}; {error.hint}") from error
    if event.id != ref.id:
        raise Gone(ref.id, ref.seq)
    return Stored(
        event=event, data=data, seq=ref.seq, stored_us=stored_us, headers=found.headers or {}
    )


async def _message(client: Client, seq: int) -> RawStreamMsg:
    js = client.jetstream(timeout=TIMEOUT)
    try:
        return await js.get_msg(EVENTS, seq, direct=True)
    except NotFoundError:  # in a cluster a replica that is behind answers so, too: its leader knows
        return await js.get_msg(EVENTS, seq)


def _slot(profile: Profile, event: Event) -> str:
    key = profile.concurrency.key
    if not key:
        return ""
    view = event.view()
    return msgspec.json.encode([event_field(view, path) for path in key]).decode()
