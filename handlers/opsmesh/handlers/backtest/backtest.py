"""A backtest: what profiles would have decided about stored events. Nothing is run or sent.

The one rule: it decides what the live mesh would have decided, host by host, with the engine of the
live mesh (`router.decider`) and the broker's store times for a clock. Every profile counts as
enabled, and begins without windows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from opsmesh.handlers.backtest.result import UNDECODABLE, Day, Firing, ProfileResult, Result
from opsmesh.router.conditions import Last
from opsmesh.router.decide import Decision, Newest
from opsmesh.router.decider import Decider
from opsmesh.router.rule import Rule
from opsmesh.router.topic_patterns import listens
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event, decode, host_token
from opsmesh.schemas.errors import SchemaError

if TYPE_CHECKING:  # a worker process decides without pydantic, which profiles need
    from opsmesh.handlers.profiles.profile import Profile

DAY_US: Final = 86_400_000_000

Keep = Callable[[Decision], None]
#: Brings an event's payload to today's form: `Registry.upcast`.
Upcast = Callable[[Event], Event]


class Message(Protocol):
    """One stored message, as the archive's reader gives it."""

    @property
    def stream(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def time_us(self) -> int: ...
    @property
    def data(self) -> bytes: ...


def backtest(
    profiles: Sequence[Profile],
    events: Iterable[Message],
    *,
    host: str | None,
    until_us: int | None = None,
    keep: Keep | None = None,
    upcast: Upcast | None = None,
) -> Result:
    """Decide messages in stream order for every profile, in this process.

    With `host` only what that host's handlers decide; None: every host's, where `run_on: any` is
    decided on the host of the first event. Timers run until `until_us`, or the last message's time.
    `keep` is given every decision: for a profile on one host in order, a timer's when that host's
    next event shows that its time is over.
    """
    run = Backtest([profile.rule for profile in profiles], host=host, keep=keep, upcast=upcast)
    for message in events:
        run.take(message)
    return run.end(until_us)


class Backtest:
    """Rules over one stream of messages: `take` each, then `end`."""

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        host: str | None,
        keep: Keep | None = None,
        upcast: Upcast | None = None,
    ) -> None:
        self._upcast = upcast
        self._lanes = [_Lane(rule, host=host, keep=keep) for rule in rules]
        self._routes: dict[str, tuple[_Lane, ...]] = {}
        self._messages = 0
        self._undecodable = 0
        self._last_us = 0

    def wants(self, topic: str) -> bool:
        """Whether `take` must be given messages of this topic; what has none is always wanted."""
        return not topic or bool(self._route(topic))

    def take(self, message: Message) -> None:
        """Decide one message, for every rule that listens to it."""
        self._messages += 1
        data, seq, stored_us = message.data, message.seq, message.time_us
        self._last_us = max(self._last_us, stored_us)
        topic = topic_of(data)
        if not topic:
            self._undecodable += 1
            return
        lanes = self._route(topic)
        if not lanes:
            return
        try:
            event = decode(data, stored=(message.stream, seq, stored_us))
            if self._upcast is not None:
                event = self._upcast(event)
        except SchemaError:
            for lane in lanes:
                lane.undecodable(topic, stored_us)
            return
        token = _token(event.host)
        for lane in lanes:
            lane.take(event, token, seq=seq, stored_us=stored_us)

    def end(self, until_us: int | None = None) -> Result:
        """Let timers run until then, or until the last message's time."""
        end_us = self._last_us if until_us is None else until_us
        return Result(
            profiles=[lane.end(end_us) for lane in self._lanes],
            messages=self._messages,
            undecodable=self._undecodable,
        )

    def _route(self, topic: str) -> tuple[_Lane, ...]:
        found = self._routes.get(topic)
        if found is None:
            found = tuple(lane for lane in self._lanes if lane.wants(topic))
            self._routes[topic] = found
        return found


class _Lane:
    """One rule, with a decider for each host on which the live mesh would have one.

    `run_on: origin`: each host decides its own events. A host's name: that host decides everybody's
    events. `any`: the hosts share the events and the windows, as one.
    """

    def __init__(self, rule: Rule, *, host: str | None, keep: Keep | None) -> None:
        self._rule = msgspec.structs.replace(rule, state="enabled")
        self._host = host
        self._keep = keep
        self._by_origin = rule.run_on == "origin"
        self._only = None if host is None else _token(host)
        self._absent = (
            self._only is not None
            and rule.run_on not in ("origin", "any")
            and _token(rule.run_on) != self._only
        )
        self._deciders: dict[str, Decider] = {}
        #: The newest events that `last(…, "any")` stands for: every host's decider needs them.
        self._anywhere: dict[Last, Newest] = {}
        self._shared = tuple(one for one in rule.last if one.anywhere)
        self._fired: set[str] = set()
        self._tested = ProfileResult(profile=rule.name, hash=rule.hash)
        self._days: dict[int, Day] = {}

    def wants(self, topic: str) -> bool:
        """Whether it decides the topic, or looks back at it."""
        if self._absent:
            return False
        return self._decides(topic) or any(one.topic == topic for one in self._rule.last)

    def take(self, event: Event, token: str, *, seq: int, stored_us: int) -> None:
        """One event of a topic that it wants."""
        if self._by_origin and self._only not in (None, token):
            self._tested.elsewhere += self._decides(event.topic)
        else:
            decider = self._decider(event.host, token)
            for decision in decider.advance(stored_us):
                self._note(decision)
            decided = decider.decide(
                event, seq=seq, stored_us=stored_us, handled=event.id in self._fired
            )
            if decided is not None:
                self._day(stored_us).events += 1
                self._note(decided)
            decider.take_changes()  # nobody else does, and they would be kept for ever
        for one in self._shared:
            if one.topic == event.topic:
                self._anywhere[one] = newest = Newest(seq, event)
                for other in self._deciders.values():
                    other.last[one] = newest

    def undecodable(self, topic: str, stored_us: int) -> None:
        """A message of the topic that is no event."""
        if self._decides(topic):
            day = self._day(stored_us)
            day.events += 1
            day.outcomes[UNDECODABLE] = day.outcomes.get(UNDECODABLE, 0) + 1

    def end(self, end_us: int) -> ProfileResult:
        """Let timers run until then; what still waits is open."""
        for decider in self._deciders.values():
            for decision in decider.advance(end_us):
                self._note(decision)
            waits = decider.windows.values()
            self._tested.open += sum(window.due_us is not None for window in waits)
        self._tested.days = {
            times.format_us(day * DAY_US)[:10]: found for day, found in sorted(self._days.items())
        }
        return self._tested

    def _decides(self, topic: str) -> bool:
        return listens(self._rule.decided, topic)

    def _decider(self, host: str, token: str) -> Decider:
        key = token if self._by_origin else ""
        found = self._deciders.get(key)
        if found is None:
            run_on = self._rule.run_on
            here = {"origin": host, "any": self._host or host}.get(run_on, run_on)
            found = self._deciders[key] = Decider(self._rule, host=here, last=self._anywhere)
        return found

    def _note(self, decision: Decision) -> None:
        outcomes = self._day(decision.at_us).outcomes
        outcomes[decision.outcome] = outcomes.get(decision.outcome, 0) + 1
        if decision.fires:
            self._fired.add(decision.event_id)
            self._tested.firings.append(
                Firing(
                    decision.at_us,
                    decision.event_seq,
                    decision.event_id,
                    decision.topic,
                    decision.host,
                    len(decision.events) or 1,
                )
            )
        if self._keep is not None:
            self._keep(decision)

    def _day(self, at_us: int) -> Day:
        day = at_us // DAY_US
        found = self._days.get(day)
        if found is None:
            found = self._days[day] = Day()
        return found


class _Topic(msgspec.Struct):
    topic: str = ""


_peek = msgspec.json.Decoder(_Topic).decode


def topic_of(data: bytes | msgspec.Raw) -> str:
    """The topic in a message, which may be wrong in all the rest; empty when there is none."""
    try:
        return _peek(data).topic
    except (ValueError, msgspec.DecodeError, RecursionError):
        return ""


_token = functools.lru_cache(maxsize=256)(host_token)
