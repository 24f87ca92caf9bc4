"""Profiles over past events, in memory: what would be decided, and, when asked, done again.

Nothing here touches the ledger, the windows or the DLQ of the live mesh. Time is the time at which
each event was stored, so that a burst of last week is debounced as it was last week.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from opsmesh.handlers.actions.contract import Mesh, NoMesh, Question, Recent, Reply, no_stream
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs import asking
from opsmesh.handlers.runs.ledger import Held, Replied, Run
from opsmesh.handlers.runs.steps import Failure, Paused, Surroundings, attempt
from opsmesh.router.decide import Decision
from opsmesh.router.decider import Decider
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event

#: How a question of a step, by the step's id, ends.
Replies = Callable[[str, Question], Reply]


def nobody(_step: str, _question: Question) -> Reply:
    """Nobody answers in time: each step says itself what is done `otherwise`."""
    return Reply(verdict="expired")


class Rehearsal:
    """Decides events for some profiles, with windows of its own."""

    def __init__(self, profiles: Iterable[Profile], *, host: str) -> None:
        self._deciders = [(profile, Decider(profile.rule, host=host)) for profile in profiles]
        self._seen: set[tuple[str, str]] = set()

    def decide(self, event: Event, stored_us: int, seq: int) -> list[tuple[Profile, Decision]]:
        """What was due by then, and one decision for each profile that listens to the topic."""
        decisions: list[tuple[Profile, Decision]] = []
        for profile, decider in self._deciders:
            found = list(decider.advance(stored_us))
            handled = (profile.name, event.id) in self._seen
            one = decider.decide(event, seq=seq, stored_us=stored_us, handled=handled)
            if one is not None:
                found.append(one)
            decisions += [(profile, decision) for decision in found]
        return self._noted(decisions)

    def advance(self, now_us: int) -> list[tuple[Profile, Decision]]:
        """What is due by `now_us` without a further event."""
        return self._noted(
            [(profile, d) for profile, decider in self._deciders for d in decider.advance(now_us)]
        )

    def _noted(self, decisions: list[tuple[Profile, Decision]]) -> list[tuple[Profile, Decision]]:
        self._seen |= {(p.name, d.event_id) for p, d in decisions if d.outcome == "fire"}
        return decisions


class _Unrecorded(Held):
    """A run of a rehearsal: the ledger never hears of it."""

    def __init__(self, run: Run) -> None:
        self.run = run

    async def save(self, now_us: int) -> None:
        self.run.updated_us = now_us


async def act(
    profile: Profile,
    events: Sequence[Event],
    data: bytes,
    *,
    host: str,
    rehearsal_id: str,
    workdir: Path,
    bundles: Path,
    publish: Callable[[Event], Awaitable[None]],
    replies: Replies = nobody,
    recent: Recent = no_stream,
    mesh: Mesh | None = None,
    stored_us: int = 0,
) -> tuple[Run, Failure | None]:
    """Run the profile's steps once for past events, the run's own the last of them, with its bytes
    in `data`; no retries, no ledger, no dead letter. `replies` answers what its steps ask, and
    `mesh` is what they reach of it."""
    event = events[-1]
    now_us = times.now_us()
    run = Run(
        run_id=ids.derived(now_us // 1000, rehearsal_id, profile.name, event.id),
        profile=profile.name,
        profile_hash=profile.hash,
        event_id=event.id,
        topic=event.topic,
        correlation_id=event.correlation_id,
        host=host,
        stream_seq=0,
        created_us=now_us,
        updated_us=now_us,
        trigger="replay",
        trigger_id=rehearsal_id,
        attempt=1,
        state="running",
    )
    around = Surroundings(
        event=event,
        events=events,
        data=data,
        host=host,
        folder=workdir,
        bundles=bundles,
        publish=publish,
        recent=recent,
        workdirs=workdir.parent,
        mesh=mesh or NoMesh(),
        stored_us=stored_us,
    )
    began = time.monotonic()
    held, key = _Unrecorded(run), secrets.token_bytes()
    try:
        while isinstance(failure := await attempt(profile, held, around), Paused):
            asking.put(run, failure.record, failure.question, key=key, now_us=times.now_us())
            reply = replies(failure.record.id, failure.question)
            replied = Replied(
                verdict=reply.verdict,
                at_us=reply.at_us or times.now_us(),
                answer=reply.answer,
                by=reply.by,
                host=reply.host,
                comment=reply.comment,
            )
            asking.end(failure.record, replied)
    finally:
        await around.shared.aclose()
    run.duration_ms = round((time.monotonic() - began) * 1e3, 3)
    run.state = "succeeded" if failure is None else "deadlettered"
    return run, failure
