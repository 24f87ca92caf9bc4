"""Profiles over past events, in memory: what would be decided, and, when asked, done again.

Nothing here touches the ledger, the windows or the DLQ of the live mesh. Time is the time at which
each event was stored, so that a burst of last week is debounced as it was last week.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from opsmesh.handlers.ledger import Held, Run
from opsmesh.handlers.profiles import Profile
from opsmesh.handlers.steps import Failure, Surroundings, attempt
from opsmesh.router.decide import Decision, State, Window, debounce_key, decide, topic_matches
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event


class Rehearsal:
    """Decides events for some profiles, with windows of its own."""

    def __init__(self, profiles: Iterable[Profile], *, host: str) -> None:
        self._profiles = [(profile, profile.rule()) for profile in profiles]
        self._host = host
        self._windows: dict[tuple[str, str], Window | None] = {}
        self._seen: set[tuple[str, str]] = set()

    def decide(self, event: Event, stored_us: int) -> list[tuple[Profile, Decision]]:
        """One decision for each profile that listens to the event's topic."""
        decisions = []
        for profile, rule in self._profiles:
            if not any(topic_matches(pattern, event.topic) for pattern in rule.on):
                continue
            window = (rule.name, debounce_key(rule, event))
            run = (rule.name, event.id)
            state = State(seen=run in self._seen, window=self._windows.get(window))
            decision, after = decide(rule, event, state, now_us=stored_us, host=self._host)
            self._windows[window] = after.window
            if decision.outcome == "fire":
                self._seen.add(run)
            decisions.append((profile, decision))
        return decisions


class _Unrecorded(Held):
    """A run of a rehearsal: the ledger never hears of it."""

    def __init__(self, run: Run) -> None:
        self.run = run

    async def save(self, now_us: int) -> None:
        self.run.updated_us = now_us


async def act(
    profile: Profile,
    event: Event,
    data: bytes,
    *,
    host: str,
    rehearsal_id: str,
    workdir: Path,
    bundles: Path,
    publish: Callable[[Event], Awaitable[None]],
) -> tuple[Run, Failure | None]:
    """Run the profile's steps once for a past event; no retries, no ledger, no dead letter."""
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
    workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
    around = Surroundings(
        event=event, data=data, host=host, workdir=workdir, bundles=bundles, publish=publish
    )
    began = time.monotonic()
    failure = await attempt(profile, _Unrecorded(run), around)
    run.duration_ms = round((time.monotonic() - began) * 1e3, 3)
    run.state = "succeeded" if failure is None else "deadlettered"
    return run, failure
