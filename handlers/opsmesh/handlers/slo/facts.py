"""What recorded events say of runs: the same from the stream and from the archive.

The one rule: an event that is read twice, or in another order, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from opsmesh.handlers.slo.objectives import Fact
from opsmesh.schemas.envelope import Event, host_token

RUNS: Final = "automation.run."
FEEDBACK: Final = "automation.feedback.recorded"
#: Topics that say something of runs.
TOPICS: Final = (f"{RUNS}>", FEEDBACK)
#: How a run can end that was not called off.
ENDS: Final = {"succeeded": True, "deadlettered": False}
#: Milliseconds that nothing takes: thirty years.
NEVER_MS: Final = 1e12


class _Said(msgspec.Struct, frozen=True):
    """What of such a payload is read; anybody may have emitted one."""

    profile: str
    trigger: str = "event"
    waited_ms: float | None = None
    #: The next attempt, of a failed one.
    next_attempt_in_s: float | None = None
    #: Of feedback.
    run: str = ""
    verdict: str = ""


class Facts:
    """Runs by what is known of them."""

    def __init__(self) -> None:
        self._runs: dict[str, Fact] = {}
        self._judged: dict[str, tuple[int, bool]] = {}

    def add(self, event: Event, stored_us: int) -> bool:
        """Take an event in; whether it says something of a run that a profile decided to begin."""
        if not (event.topic.startswith(RUNS) or event.topic == FEEDBACK):
            return False
        try:
            said = msgspec.convert(event.payload, _Said)
        except msgspec.ValidationError:
            return False
        if event.topic == FEEDBACK:
            known = self._judged.get(said.run, (-1, False))
            self._judged[said.run] = max(known, (stored_us, said.verdict == "false_positive"))
            return bool(said.run)
        if not event.run_id or said.trigger != "event":
            return False
        self._note(event, said, stored_us)
        return True

    def of(self, profile: str, *, host: str | None = None) -> Iterator[Fact]:
        """A profile's; with `host` (a token of a subject) the runs of that host alone."""
        for fact in self._runs.values():
            if fact.profile == profile and host in (None, fact.host):
                _, false = self._judged.get(fact.run, (0, False))
                yield msgspec.structs.replace(fact, false_positive=false)

    def forget(self, before_us: int) -> None:
        """Let go of what was stored before that."""
        self._runs = {run: fact for run, fact in self._runs.items() if fact.at_us >= before_us}
        self._judged = {run: one for run, one in self._judged.items() if run in self._runs}

    def _note(self, event: Event, said: _Said, stored_us: int) -> None:
        run = event.run_id or ""
        known = self._runs.get(run)
        good = ENDS.get(event.topic.removeprefix(RUNS))
        changes: dict[str, Any] = {"at_us": max(stored_us, known.at_us if known else 0)}
        if (waited_us := _us(said.waited_ms)) is not None:
            changes["waited_us"] = waited_us
        if good is not None:
            changes["good"] = good
        if (took_us := _us(event.duration_ms)) is not None:
            changes["took_us"] = took_us
        fact = known or Fact(run=run, profile=said.profile, host=host_token(event.host), at_us=0)
        self._runs[run] = msgspec.structs.replace(fact, **changes)


def _us(ms: float | None) -> int | None:
    """Microseconds; None of what is no time, however it got into an event."""
    return round(ms * 1e3) if ms is not None and 0 <= ms < NEVER_MS else None
