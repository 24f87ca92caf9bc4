"""Events and rules for tests of the decision engine, and what was decided about them in words.

`told(rule, "a@0 a/x@12.5")` plays two events of topic t.a, the second with the key x in its
payload, and says `0=fire(1) 12.5=fire(2)`; a `!` instead of the `=` is a timer's decision.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st

from opsmesh.router.conditions import Expression, Last
from opsmesh.router.decide import Decision, Newest
from opsmesh.router.decider import Decider
from opsmesh.router.rule import Rule
from opsmesh.router.stages import (
    Collect,
    Correlate,
    Debounce,
    Limits,
    Throttle,
    Unless,
    Window,
)
from opsmesh.schemas.envelope import Event

S = 1_000_000
HOST = "laptop"
KEY = ("payload.k",)
#: Seconds after which no window of a table's rule is left.
END_S = 10_000

expression = functools.cache(Expression)


class Stored(msgspec.Struct, frozen=True):
    """An event as the stream has it."""

    event: Event
    seq: int
    stored_us: int


def event(event_id: str = "1", topic: str = "t.a", **more: Any) -> Event:
    facts: dict[str, Any] = {
        "ts_utc": "2026-11-23T09:12:00.000000Z",
        "source": "test",
        "component": "test",
        "severity": "info",
        "correlation_id": "c",
        "host": HOST,
        "session_id": "",
        "workspace": "work",
        "payload": {},
    }
    return Event(id=event_id, topic=topic, **{**facts, **more})


def rule(**more: Any) -> Rule:
    return Rule(**{"name": "p", "hash": "h", "on": ("t.a",), **more})


def stream(text: str) -> list[Stored]:
    """The events of `<letter>[/<key>]@<seconds>`; ids and sequences count from 1."""
    found = []
    for seq, word in enumerate(text.split(), 1):
        what, _, at = word.partition("@")
        letter, _, key = what.partition("/")
        one = event(str(seq), f"t.{letter}", payload={"k": key})
        found.append(Stored(one, seq, int(Decimal(at) * S)))
    return found


def play(
    decider: Decider,
    given: Iterable[Stored],
    *,
    until_us: int | None = None,
    fired: set[str] | None = None,
) -> list[Decision]:
    """Decide a stream as everything does that decides one."""
    fired = set() if fired is None else fired
    found: list[Decision] = []

    def note(decision: Decision | None) -> None:
        if decision is not None:
            found.append(decision)
            if decision.outcome == "fire":
                fired.add(decision.event_id)

    for one in given:
        for decision in decider.advance(one.stored_us):
            note(decision)
        handled = one.event.id in fired
        note(decider.decide(one.event, seq=one.seq, stored_us=one.stored_us, handled=handled))
    if until_us is not None:
        for decision in decider.advance(until_us):
            note(decision)
    return found


def told(rule: Rule, text: str, *, until: int = END_S) -> str:
    """What is decided about a stream, in words."""
    found = play(Decider(rule, host=HOST), stream(text), until_us=until * S)
    return " ".join(map(word, found))


def word(decision: Decision) -> str:
    ids = "+".join(ref.id for ref in decision.events) or decision.event_id
    at = f"{decision.at_us / S:.6f}".rstrip("0").rstrip(".")
    return f"{at}{'!' if decision.timer else '='}{decision.outcome}({ids})"


def encoded(decisions: Iterable[Decision]) -> list[bytes]:
    return [decision.encode() for decision in decisions]


def carried(decider: Decider) -> tuple[dict[str, Window], dict[Last, Newest]]:
    """What it remembers, after it went through JSON."""
    windows = msgspec.json.decode(
        msgspec.json.encode(dict(decider.windows)), type=dict[str, Window]
    )
    last = {
        one: msgspec.json.decode(msgspec.json.encode(newest), type=Newest)
        for one, newest in decider.last.items()
    }
    return windows, last


# Rules and streams are made of a seed: drawn value by value, most were too plain to fire. Times are
# a few microseconds: that events and timers meet at one time is what finds errors.
_seeds = st.integers(0, 2**32)
_KEYS = ((), KEY, KEY, ("topic",), ("workspace", "payload.k"))
_CONDITIONS = (
    "event.payload.n > 0",
    'last("t.c") == null || last("t.c").payload.n > 0',
    'last("t.y", "any").payload.n == event.payload.n',
    'now < timestamp("1970-01-01T00:00:00.000060Z")',
)


@st.composite
def rules(draw: st.DrawFn, *, state: str | None = None) -> Rule:
    """Any rule: each stage or not, with any key."""
    rng = Random(draw(_seeds))

    def span() -> int:
        return rng.randint(1, 30)

    def likely(share: float) -> bool:
        return rng.random() < share

    on = rng.choice((("t.a", "t.b"), ("t.a", "t.b", "t.c"), ("t.b", "t.*.x", "t.a")))
    first = rng.choice(("", "unless", "correlate"))
    found: dict[str, Any] = {"on": on}
    if likely(0.3):
        found["where"] = expression(rng.choice(_CONDITIONS))
    if first == "unless":
        awaited = rng.choice((("t.z",), ("t.z", "t.c"), ("t.a",)))
        found["unless"] = Unless(on=awaited, within_us=span(), key=rng.choice(_KEYS))
        if likely(0.3) or "t.a" in awaited:
            found["unless_where"] = expression(rng.choice(_CONDITIONS))
    if first == "correlate":
        on = found["on"] = rng.choice((on, ("t.a", "t.b")))
        found["correlate"] = Correlate(
            parts=on, within_us=span(), key=rng.choice(_KEYS), ordered=likely(0.5)
        )
    if likely(0.4):
        found["debounce"] = Debounce(
            window_us=span(),
            max_wait_us=rng.choice((None, rng.randint(30, 60))),
            key=rng.choice(_KEYS),
            edge=rng.choice(("leading", "trailing")),
        )
    if likely(0.4):
        found["collect"] = Collect(window_us=span(), max=rng.randint(2, 4), key=rng.choice(_KEYS))
    if likely(0.4):
        found["throttle"] = Throttle(
            at_most=rng.randint(1, 3), per_us=span(), key=rng.choice(_KEYS)
        )
    if likely(0.4):
        found["limits"] = Limits(at_most=rng.randint(1, 3), per_us=span())
    found["run_on"] = rng.choice(("origin", "any", HOST))
    found["state"] = state or rng.choice(("enabled", "enabled", "enabled", "shadow"))
    return rule(**found)


@st.composite
def streams(draw: st.DrawFn, *, repeats: bool = True) -> Sequence[Stored]:
    """Any events in the order of a stream, in bursts and with gaps; some come a second time."""
    rng = Random(draw(_seeds))
    found: list[Stored] = []
    now_us = 0
    for seq in range(1, draw(st.integers(1, 40)) + 1):
        now_us += rng.choice((0, 0, 1, 1, 2, 3, 5, 8, rng.randint(0, 80)))
        if repeats and found and rng.random() < 0.1:
            one = rng.choice(found).event
        else:
            one = event(
                f"e{seq}",
                f"t.{rng.choice('aaabbbcczy')}",
                payload={"k": rng.choice("kkl"), "n": rng.randint(0, 1)},
                host=rng.choice((HOST, HOST, HOST, HOST, "desk")),
                workspace=rng.choice(("work", "work", "play")),
            )
        found.append(Stored(one, seq, now_us))
    return found


def forget_ended(windows: Mapping[str, Window], now_us: int) -> dict[str, Window]:
    """The windows without those that are as good as none."""
    return {
        name: window
        for name, window in windows.items()
        if window.due_us is not None or window.until_us > now_us
    }
