"""Profiles and actions of yours against a mesh in memory, for your own tests.

What is decided is what the live mesh would decide of the same events at the same times. Actions run
for real, once, and what they publish is in the mesh.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from opsmesh.handlers import rehearse
from opsmesh.handlers.actions.contract import Followed, Reply
from opsmesh.handlers.live.recent import of_events
from opsmesh.handlers.profiles.profile import Profile, load_file
from opsmesh.handlers.runs.ledger import Run
from opsmesh.router.decide import Decision, EventRef
from opsmesh.router.testing import MemoryMesh, Stored
from opsmesh.router.topic_patterns import listens
from opsmesh.router.topology import EVENTS
from opsmesh.router.trigger import Trigger
from opsmesh.schemas.envelope import Event, encode, subject
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.redact import built_in


class _Reach:
    """What steps reach of a mesh in memory. While a step runs nobody else says anything: what is
    there is all that comes."""

    def __init__(self, mesh: MemoryMesh) -> None:
        self._mesh = mesh

    def check(self, event: Event) -> None:
        known = self._mesh.registry.check(event.topic, event.payload)
        if known is None and self._mesh.strict_topics:
            raise SchemaError(f"topic {event.topic} is not registered, and strict_topics is set")

    async def trigger(self, profile: str, event: Event, *, id: str) -> None:
        data, _ = built_in().event(encode(event))
        headers = Trigger(kind="step", id=id).headers()
        headers.pop("Nats-Msg-Id")
        self._mesh.publish(f"trg.{profile}", data, msg_id=id, headers=headers)

    async def follow(
        self, topics: Sequence[str], *, since_us: int | None = None, after_seq: int | None = None
    ) -> AsyncIterator[Followed]:
        for stored in self._mesh.events():
            late = stored.seq > (after_seq or 0) and stored.stored_us >= (since_us or 0)
            if late and listens(topics, stored.event.topic):
                yield Followed(seq=stored.seq, stored_us=stored.stored_us, event=stored.event)

    async def newest(self) -> int:
        return max((message.seq for message in self._mesh.messages(EVENTS)), default=0)


class Profiles:
    """Some profiles before the events of a mesh in memory, from its first event on."""

    def __init__(self, profiles: Iterable[Profile], mesh: MemoryMesh) -> None:
        self._profiles = {profile.name: profile for profile in profiles}
        self._mesh = mesh
        self._rehearsal = rehearse.Rehearsal(self._profiles.values(), host=mesh.host)
        self._seen: dict[int, Stored] = {}
        self._acted = 0

    @classmethod
    def load(cls, file: Path | str, mesh: MemoryMesh) -> Self:
        """The profiles of a file; ConfigError, with its line, for the first mistake in it."""
        found = load_file(Path(file))
        if found.errors:
            raise found.errors[0]
        return cls(found.profiles.values(), mesh)

    def decide(self) -> list[Decision]:
        """Every decision since the last call, up to the mesh's clock: about its new events, and
        what was due meanwhile."""
        decisions: list[Decision] = []
        for stored in self._mesh.events():
            if stored.seq in self._seen:
                continue
            self._seen[stored.seq] = stored
            made = self._rehearsal.decide(stored.event, stored.stored_us, stored.seq)
            decisions += [decision for _, decision in made]
        made = self._rehearsal.advance(self._mesh.clock.now_us)
        return decisions + [decision for _, decision in made]

    def fired(self) -> list[Decision]:
        """Those of `decide` that fire."""
        return [decision for decision in self.decide() if decision.outcome == "fire"]

    def events(self, decision: Decision) -> list[Stored]:
        """The events that a decision is about, its own the last of them or alone."""
        refs = decision.events or (EventRef(decision.event_id, decision.event_seq),)
        return [self._seen[ref.seq] for ref in refs]

    def act(
        self,
        decision: Decision,
        *,
        replies: Mapping[str, Reply] | None = None,
        bundles: Path | None = None,
    ) -> Run:
        """Run the steps of the profile that decided, once; the run tells how each of them went.

        `replies` says by a step's id how what it asks ends; nobody answers any other in time.
        Evidence bundles are made in the folder `bundles`; without one they go when this returns.
        Not to be called where an event loop runs.
        """
        said = replies or {}
        stored = self.events(decision)
        self._acted += 1
        with tempfile.TemporaryDirectory(prefix="opsmesh-test-") as folder:
            run, _ = asyncio.run(
                rehearse.act(
                    self._profiles[decision.profile],
                    [one.event for one in stored],
                    stored[-1].data,
                    host=self._mesh.host,
                    rehearsal_id=f"test-{self._acted}",
                    workdir=Path(folder, "work"),
                    bundles=bundles or Path(folder, "bundles"),
                    publish=self._publish,
                    recent=of_events(lambda: [one.event for one in self._mesh.events()]),
                    mesh=_Reach(self._mesh),
                    stored_us=stored[-1].stored_us,
                    replies=lambda step, asked: said.get(step) or rehearse.nobody(step, asked),
                )
            )
        return run

    async def _publish(self, event: Event) -> None:
        data, _ = built_in().event(encode(event))
        self._mesh.publish(subject(event.host, event.topic), data, msg_id=event.id)
