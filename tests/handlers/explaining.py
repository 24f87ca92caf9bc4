"""A mesh's records, made with the real engine and its real modules, but by no handlers process.

What the live half would have written is there at once, also what it writes when a time has come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from tests.handlers.mesh import write_profiles

from opsmesh.handlers.live import firing, versions
from opsmesh.handlers.live.consumers import consumer_name, filter_subjects
from opsmesh.handlers.live.position import Cursor, Positions
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.profiles.profile import Profile, load_profiles
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import paths
from opsmesh.router.decide import Decision
from opsmesh.router.decider import Decider
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode, encode, subject


@dataclass
class Records:
    """Publishes events, and decides them."""

    client: Client
    settings: Settings = field(default_factory=Settings)

    async def publish(self, topic: str, payload: dict[str, Any], **more: Any) -> Event:
        """One event, stored."""
        event_id = ids.uuid7()
        facts: dict[str, Any] = {
            "source": "test",
            "component": "test",
            "severity": "error",
            "correlation_id": event_id,
            "host": self.settings.host,
            "session_id": "",
            "workspace": "work",
            "id": event_id,
            **more,
        }
        ts_utc = times.format_us(times.now_us())
        event = Event(topic=topic, ts_utc=ts_utc, payload=payload, **facts)
        await self.client.jetstream().publish(subject(event.host, topic), encode(event))
        return event

    async def decide(
        self, profiles: str, *, from_seq: int = 1, later_s: float = 0, runs: bool = True
    ) -> list[Decision]:
        """Decide everything in the stream from `from_seq` on, as `later_s` seconds from now."""
        write_profiles(profiles)
        found = load_profiles(Path(paths.config_dir()))
        assert not found.errors, found.errors
        made = []
        for profile in found.profiles.values():
            made += await self._decide(profile, from_seq, later_s, runs=runs)
        return made

    async def _decide(
        self, profile: Profile, from_seq: int, later_s: float, *, runs: bool
    ) -> list[Decision]:
        host = self.settings.host
        consumer = consumer_name(profile, host)
        await versions.write(self.client, profile, consumer=consumer, host=host, from_seq=from_seq)
        if profile.state == "disabled":
            return []
        decider = Decider(profile.rule, host=host)
        events: dict[str, tuple[Event, int, int]] = {}
        decisions: list[Decision] = []
        last_seq = (await self.client.jetstream().stream_info(EVENTS)).state.last_seq
        on = filter_subjects(profile, host)
        async for msg in scan(self.client, EVENTS, subjects=on, start_seq=from_seq):
            where = delivery(msg.reply)
            stored_us = where.timestamp_ns // 1000
            event = decode(msg.data)
            fired = {one.event_id for one in decisions if one.outcome == "fire"}
            decisions += decider.advance(stored_us)
            decision = decider.decide(
                event,
                seq=where.stream_seq,
                stored_us=stored_us,
                handled=event.id in fired,
            )
            events.setdefault(event.id, (event, where.stream_seq, stored_us))
            if decision is not None:
                decisions.append(decision)
        decisions += decider.advance(times.now_us() + round(later_s * 1e6))
        await Recorder(self.client).write(consumer, [(decision, 41.5) for decision in decisions])
        if runs:
            for decision in decisions:
                if decision.outcome == "fire":
                    await self._run(profile, decision, consumer, *events[decision.event_id])
        await self.at(consumer, last_seq)
        return decisions

    async def at(self, consumer: str, seq: int) -> None:
        """A consumer's position, as its owner notes it."""
        positions = Positions(self.client)
        cursor, revision = await positions.cursor(consumer)
        count = cursor.count + 1 if cursor else 1
        now = Cursor(seq=seq, owner="test/1/x", count=count, at_us=times.now_us())
        await positions.write(consumer, now, revision)

    async def _run(
        self,
        profile: Profile,
        decision: Decision,
        consumer: str,
        event: Event,
        seq: int,
        stored_us: int,
    ) -> Run:
        run = firing.new_run(
            profile,
            event,
            consumer=consumer,
            host=self.settings.host,
            seq=seq,
            stored_us=stored_us,
            events=decision.events,
        )
        run.state, run.attempt, run.duration_ms = "succeeded", 1, 34.6
        await Ledger(self.client).create(run)
        return run
