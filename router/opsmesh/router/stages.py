"""The stages of a rule that remember: what may pass, what waits, and until when.

Each stage is a pure transition of one window, the memory of one key: `arrive` when events come,
`due` when its time has come. Times are store times in microseconds; nothing here reads a clock. At
`Window.until_us` a window is as good as none, so that forgetting it changes no decision.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

import msgspec

from opsmesh.router.topic_patterns import topic_matches

Outcome = Literal[
    "fire", "filtered", "debounced", "throttled", "collecting", "waiting", "duplicate", "suppressed"
]

#: Fields of an event that tell bursts apart, unless the profile says otherwise.
DEFAULT_KEY: Final = ("topic", "workspace")
#: Events that one collected run holds at most, unless the profile says otherwise.
COLLECT_MAX: Final = 100


class Item(msgspec.Struct, frozen=True, array_like=True):
    """An event as a window remembers it. `keys` are the names of its windows in the stages that
    tell keys apart: they can be used when the event itself is no longer at hand, and whatever
    stages the profile's text has by then."""

    id: str
    topic: str
    seq: int
    stored_us: int
    keys: tuple[str, ...]


class Window(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one stage remembers of one key.

    With `due_us` it passes on by itself at that time; `until_us` is when it can be forgotten.
    """

    opened_us: int
    last_us: int
    until_us: int
    due_us: int | None = None
    count: int = 0
    items: tuple[Item, ...] = ()
    #: Store times of what passed (throttle).
    passed_us: tuple[int, ...] = ()
    #: The newest beginnings of an ordered sequence, by their length.
    chains: tuple[tuple[Item, ...], ...] = ()


class Step(msgspec.Struct, frozen=True):
    """What a stage made of a window: the window after it (None: none), and either the items that
    pass, or the outcome of those that do not. `reason` says why; it is empty where a stage lets
    something through and is not why it fires."""

    window: Window | None
    passed: tuple[Item, ...] | None
    outcome: Outcome = "fire"
    reason: str = ""


class Debounce(msgspec.Struct, frozen=True, kw_only=True):
    """One firing a burst. A burst ends after `window_us` without an event, or after `max_wait_us`.

    A leading edge fires on its first event, a trailing one on its last, when it has ended.
    """

    name: ClassVar[str] = "debounce"
    window_us: int
    max_wait_us: int | None = None
    key: tuple[str, ...] = DEFAULT_KEY
    edge: Literal["leading", "trailing"] = "leading"

    def arrive(self, window: Window | None, items: tuple[Item, ...], now_us: int) -> Step:
        """An event joins its burst, or begins one."""
        if self.edge == "trailing":
            return self._wait(window, items, now_us)
        if window is None or self._over(window, now_us):
            fresh = Window(opened_us=now_us, last_us=now_us, until_us=now_us + self.window_us)
            return Step(fresh, items)
        last_us = max(window.last_us, now_us)
        after = msgspec.structs.replace(
            window, last_us=last_us, until_us=last_us + self.window_us, count=window.count + 1
        )
        quiet = _s(now_us - window.last_us)
        reason = f"{quiet} after the last event of its burst, the window is {_s(self.window_us)}"
        return Step(after, None, "debounced", reason)

    def due(self, window: Window) -> Step:
        """The burst has ended."""
        since = _s((window.due_us or 0) - window.last_us)
        others = f", {window.count} before it in the burst" if window.count else ""
        return Step(None, window.items, reason=f"no further event for {since}{others}")

    def _over(self, window: Window, now_us: int) -> bool:
        if now_us - window.last_us >= self.window_us:
            return True
        return self.max_wait_us is not None and now_us - window.opened_us >= self.max_wait_us

    def _wait(self, window: Window | None, items: tuple[Item, ...], now_us: int) -> Step:
        opened_us = window.opened_us if window else now_us
        due_us = now_us + self.window_us
        if self.max_wait_us is not None:
            due_us = min(due_us, opened_us + self.max_wait_us)
        after = Window(
            opened_us=opened_us,
            last_us=now_us,
            until_us=due_us,
            due_us=due_us,
            count=window.count + 1 if window else 0,
            items=items,
        )
        reason = f"waits for the burst to end, {_s(due_us - now_us)} without a further event"
        return Step(after, None, "debounced", reason)


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """At most `at_most` in any `per_us`; what is beyond is dropped, not put off."""

    name: ClassVar[str] = "throttle"
    outcome: ClassVar[Outcome] = "throttled"
    at_most: int
    per_us: int
    key: tuple[str, ...] = ()

    def arrive(self, window: Window | None, items: tuple[Item, ...], now_us: int) -> Step:
        """One more, when there is room."""
        before = window.passed_us if window else ()
        recent = tuple(at for at in before if now_us - at < self.per_us)
        if len(recent) >= self.at_most:
            reason = f"{len(recent)} in the last {_s(self.per_us)}, at most {self.at_most} pass"
            return Step(window, None, self.outcome, reason)
        after = Window(
            opened_us=recent[0] if recent else now_us,
            last_us=now_us,
            until_us=now_us + self.per_us,
            passed_us=(*recent, now_us),
        )
        return Step(after, items)

    def due(self, window: Window) -> Step:
        """A throttle has no timers."""
        raise NotImplementedError


class Limits(Throttle, frozen=True, kw_only=True):
    """The last fence: so many runs of the whole profile."""

    name: ClassVar[str] = "limits"
    outcome: ClassVar[Outcome] = "suppressed"


class Collect(msgspec.Struct, frozen=True, kw_only=True):
    """One firing for many: all events of `window_us` from the first, or `max` of them."""

    name: ClassVar[str] = "collect"
    window_us: int
    max: int = COLLECT_MAX
    key: tuple[str, ...] = ()

    def arrive(self, window: Window | None, items: tuple[Item, ...], now_us: int) -> Step:
        """Put with the others."""
        # the number is kept beside the items: a record of the wait does not carry them all
        held = window.items if window else ()
        count = (window.count if window else 0) + len(items)
        if count >= self.max:
            return Step(None, held + items, reason=f"{count} events are collected")
        opened_us = window.opened_us if window else now_us
        due_us = opened_us + self.window_us
        after = Window(
            opened_us=opened_us,
            last_us=now_us,
            until_us=due_us,
            due_us=due_us,
            count=count,
            items=held + items,
        )
        reason = f"{count} of at most {self.max} events, {_s(due_us - now_us)} to wait"
        return Step(after, None, "collecting", reason)

    def due(self, window: Window) -> Step:
        """The time for collecting is over."""
        reason = f"{window.count} events in {_s(self.window_us)}"
        return Step(None, window.items, reason=reason)


class Correlate(msgspec.Struct, frozen=True, kw_only=True):
    """Fires when an event of each part has come within `within_us`; each event is used once."""

    name: ClassVar[str] = "correlate"
    parts: tuple[str, ...]
    within_us: int
    key: tuple[str, ...] = ("host",)
    ordered: bool = False

    def arrive(self, window: Window | None, items: tuple[Item, ...], now_us: int) -> Step:
        """One part more."""
        item = items[-1]
        part = self._part(item)
        if self.ordered:
            return self._in_order(window, item, part, now_us)
        others = window.items if window else ()
        alive = tuple(
            other
            for other in others
            if now_us - other.stored_us <= self.within_us
            and self._part(other) not in (part, len(self.parts))
        )
        found = (*alive, item)
        if len(found) == len(self.parts):
            return Step(None, found, reason=self._told(found))
        after = self._window(found, now_us)
        missing = [p for p in self.parts if not any(topic_matches(p, i.topic) for i in found)]
        return Step(after, None, "collecting", f"waits for {' and '.join(missing)}")

    def due(self, window: Window) -> Step:
        """What is not complete in time is forgotten, and passes nothing."""
        raise NotImplementedError

    def _in_order(self, window: Window | None, item: Item, part: int, now_us: int) -> Step:
        # of all beginnings of a length, the one that began last lives longest: it is enough
        known = window.chains[: len(self.parts)] if window else ()
        chains = [c if self._begins(c) else () for c in known]
        chains += [()] * (len(self.parts) - len(chains))
        before = chains[part - 1] if part else ()
        if part and (not before or now_us - before[0].stored_us > self.within_us):
            reason = f"no {self.parts[part - 1]} in the {_s(self.within_us)} before it"
            return Step(window, None, "filtered", reason)
        chain = (*before, item)
        if part == len(self.parts) - 1:
            return Step(None, chain, reason=self._told(chain))
        chains[part] = chain
        newest = max(c[0].stored_us for c in chains if c)
        after = Window(
            opened_us=window.opened_us if window else now_us,
            last_us=now_us,
            until_us=newest + self.within_us + 1,
            chains=tuple(chains),
        )
        return Step(after, None, "collecting", f"waits for {self.parts[part + 1]}")

    def _part(self, item: Item) -> int:
        """Which part it is; their number when it is none: the profile had others before."""
        found = (n for n, p in enumerate(self.parts) if topic_matches(p, item.topic))
        return next(found, len(self.parts))

    def _begins(self, chain: tuple[Item, ...]) -> bool:
        return all(self._part(item) == n for n, item in enumerate(chain))

    def _window(self, items: tuple[Item, ...], now_us: int) -> Window:
        newest = max(item.stored_us for item in items)
        return Window(
            opened_us=items[0].stored_us,
            last_us=now_us,
            until_us=newest + self.within_us + 1,
            count=len(items),
            items=items,
        )

    def _told(self, items: tuple[Item, ...]) -> str:
        first, *rest = items
        after = ", ".join(f"{i.topic} {_s(i.stored_us - first.stored_us)} later" for i in rest)
        return f"{first.topic}, and {after}"


class Unless(msgspec.Struct, frozen=True, kw_only=True):
    """Fires when `within_us` go by without an event of `on`: the absence of what should come."""

    name: ClassVar[str] = "unless"
    on: tuple[str, ...]
    within_us: int
    key: tuple[str, ...] = ("host",)

    def arrive(self, window: Window | None, items: tuple[Item, ...], now_us: int) -> Step:
        """A wait begins; one that has begun goes on as it is."""
        awaited = " or ".join(self.on)
        if window is not None:
            after = msgspec.structs.replace(window, last_us=now_us, count=window.count + 1)
            left = _s(window.until_us - now_us)
            return Step(after, None, "waiting", f"{awaited} is awaited already, for {left} more")
        due_us = now_us + self.within_us
        fresh = Window(
            opened_us=now_us, last_us=now_us, until_us=due_us, due_us=due_us, items=items
        )
        return Step(fresh, None, "waiting", f"fires unless {awaited} comes in {_s(self.within_us)}")

    def due(self, window: Window) -> Step:
        """What was awaited did not come."""
        awaited = " or ".join(self.on)
        return Step(None, window.items, reason=f"no {awaited} in {_s(self.within_us)}")


Stage = Unless | Correlate | Debounce | Collect | Throttle | Limits


def remembered(stage: Stage, window: Window | None, *, fired: bool) -> Window | None:
    """The window as a record shows it: a firing shows all, a miss no more than its decision reads.

    A hundred collected events would else be written a hundred times.
    """
    if window is None or fired or not isinstance(stage, Collect):
        return window
    return msgspec.structs.replace(window, items=())


def _s(us: int) -> str:
    return f"{us / 1e6:.6g} s"
