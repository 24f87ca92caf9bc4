"""One rule over a stream of events: its windows, its timers, in the order of time.

Time goes on with the events' store times alone: before an event, every window that was due by then
is decided, in the order of their times. An alarm clock may call `advance` earlier; it changes
nothing but how soon. Time never goes back: an event that was stored with an earlier time than the
one before it (the broker's clock was set back) counts as of that one's. So the same events give the
same decisions, live or years later.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Final

from opsmesh.router.conditions import Last
from opsmesh.router.decide import Changes, Decision, Newest, decide, due
from opsmesh.router.rule import Rule
from opsmesh.router.stages import Window
from opsmesh.router.topic_patterns import listens
from opsmesh.schemas.envelope import Event, host_token

#: Windows and timers in memory before the first look for those that can be forgotten.
SWEEP: Final = 1024


class Decider:
    """Decides for one rule on one host. `rule` may be exchanged between two events."""

    def __init__(
        self,
        rule: Rule,
        *,
        host: str,
        windows: Mapping[str, Window] | None = None,
        last: Mapping[Last, Newest] | None = None,
        latest_us: int = 0,
    ) -> None:
        self.latest_us = latest_us
        self.rule = rule
        self._host = host
        self._windows = dict(windows or {})
        self.last = dict(last or {})
        self._changes: Changes = {}
        self._forget_gone()  # the text may have changed while nobody decided
        self._dues = [(w.due_us, name) for name, w in self._windows.items() if w.due_us is not None]
        heapq.heapify(self._dues)
        self._sweep_at = SWEEP

    @property
    def windows(self) -> Mapping[str, Window]:
        """Every window that is remembered, by its name."""
        return self._windows

    def next_due(self) -> int | None:
        """When a window passes on by itself, in microseconds since the epoch."""
        while self._dues:
            at_us, name = self._dues[0]
            window = self._windows.get(name)
            if window is not None and window.due_us == at_us:
                return at_us
            heapq.heappop(self._dues)
        return None

    def advance(self, now_us: int) -> Iterator[Decision]:
        """Every decision that was due by now."""
        while (at_us := self.next_due()) is not None and at_us <= now_us:
            _, name = heapq.heappop(self._dues)
            decision, changes = due(self.rule, name, self._windows, host=self._host)
            self.latest_us = max(self.latest_us, at_us)  # though the clock is set back after it
            self._apply(changes, at_us)
            yield decision

    def misses(self, event: Event, *, stored_us: int) -> bool:
        """Whether it is certain, at a glance, that `decide` would give a decision that changes
        nothing and can be derived at any time: there is nothing to be noted of it."""
        rule = self.rule
        if rule.where is None or rule.unless is not None or rule.last:
            return False
        if rule.where.certainly(event) is not False or not listens(rule.on, event.topic):
            return False
        self.latest_us = max(self.latest_us, stored_us)
        return True

    def decide(
        self, event: Event, *, seq: int, stored_us: int, handled: bool = False
    ) -> Decision | None:
        """The decision about one event; None when it is not for this rule but for its `last(…)`.

        Call `advance(stored_us)` first.
        """
        decision = None
        wanted = [one for one in self.rule.last if one.topic == event.topic]
        if wanted or listens(self.rule.decided, event.topic):
            self.latest_us = max(self.latest_us, stored_us)
        if listens(self.rule.decided, event.topic):
            decision, changes = decide(
                self.rule,
                event,
                self._windows,
                now_us=self.latest_us,
                host=self._host,
                seq=seq,
                handled=handled,
                last=self.last,
            )
            self._apply(changes, self.latest_us)
        for one in wanted:
            if one.anywhere or host_token(event.host) == host_token(self._host):
                self.last[one] = Newest(seq, event)
        return decision

    @property
    def changed(self) -> bool:
        """Whether windows have changed since `take_changes`."""
        return bool(self._changes)

    def take_changes(self) -> Changes:
        """The windows that have changed since the last call."""
        changes, self._changes = self._changes, {}
        return changes

    def exchange(self, rule: Rule) -> None:
        """Go on with a new text. Windows of stages that it no longer has are forgotten."""
        self.last = {one: newest for one, newest in self.last.items() if one in rule.last}
        self.rule = rule
        self._forget_gone()

    def _forget_gone(self) -> None:
        names = {stage.name for stage in self.rule.stages}
        gone = [name for name in self._windows if name.partition(".")[0] not in names]
        self._changes.update(dict.fromkeys(gone))
        for name in gone:
            del self._windows[name]

    def _apply(self, changes: Changes, now_us: int) -> None:
        self._changes.update(changes)
        for name, window in changes.items():
            if window is None:
                self._windows.pop(name, None)
                continue
            self._windows[name] = window
            if window.due_us is not None:
                heapq.heappush(self._dues, (window.due_us, name))
        if len(self._windows) + len(self._dues) > self._sweep_at:
            self._sweep(now_us)

    def _sweep(self, now_us: int) -> None:
        """Forget windows that are as good as none, and times that have been put off since."""
        alive = {n: w for n, w in self._windows.items() if w.due_us or w.until_us > now_us}
        self._windows = alive
        self._dues = [(w.due_us, name) for name, w in alive.items() if w.due_us is not None]
        heapq.heapify(self._dues)
        self._sweep_at = SWEEP + 2 * (len(self._windows) + len(self._dues))
