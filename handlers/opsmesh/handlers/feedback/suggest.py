"""Suggestions: a tighter `where`, a longer window or a throttle, from the runs that people judged.

The one rule: nothing is suggested that the engine did not decide. What a changed profile would have
fired for comes from a backtest of its whole text, and a suggestion keeps every useful run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any, Final, Literal

import msgspec

from opsmesh.handlers.backtest.backtest import Backtest, Message, Upcast
from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.feedback.condition_text import Path, excluding, field, joined, literal
from opsmesh.handlers.feedback.feedback import Verdict
from opsmesh.handlers.profiles.profile import Profile, from_source
from opsmesh.handlers.runs.ledger import Run
from opsmesh.router.conditions import ConditionError, Expression
from opsmesh.router.stages import DEFAULT_KEY
from opsmesh.router.topic_patterns import listens
from opsmesh.schemas import durations
from opsmesh.schemas.envelope import decode
from opsmesh.schemas.errors import SchemaError

#: False positives without which there is nothing to learn from.
FEWEST: Final = 2
#: Suggestions that are made; conditions, and keys of windows, that are backtested for them.
SHOWN: Final = 3
CLAUSES: Final = 12
KEYS: Final = 8

#: Fields of the envelope that tell false positives apart; those of the payload are found.
ENVELOPE: Final = ("component", "severity", "workspace", "source")
_DEPTH: Final = 3
#: Longest text in a clause, and most values in its list.
LONGEST: Final = 200
_LISTED: Final = 5
#: Shortest beginning or end of a text that is one.
_AFFIX: Final = 3
#: Windows as people write them, in seconds.
_SPANS: Final = (5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600)
_INT64: Final = 2**63

#: Reads the messages of the period whose topic is wanted; called twice.
Read = Callable[[Callable[[str], bool]], Iterable[Message]]
Kind = Literal["where", "debounce", "throttle"]


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Runs by what people said of them."""

    false_positives: int
    useful: int
    unjudged: int


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `removed` are the runs that would not have been; `firings` and `new` count what
    the changed profile fires for in the whole period, and what it did not fire for before."""

    kind: Kind
    clause: str
    removed: Tally
    firings: int
    new: int
    score: float
    profile: Profile


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what follows, the best first.

    `unused` are judged runs whose event is not in the period, or which the present text would not
    begin again.
    """

    runs: Tally
    unused: int
    firings: int
    suggestions: list[Suggestion]


class _Case(msgspec.Struct, frozen=True):
    event_id: str
    verdict: Verdict | None
    view: dict[str, Any]
    stored_us: int


class _Change(msgspec.Struct, frozen=True):
    """A key of the profile that gets another value; `cost` is what it takes to understand it."""

    kind: Kind
    clause: str
    value: Any
    cost: float


def suggest(
    profile: Profile,
    runs: Sequence[Run],
    verdicts: Mapping[str, Verdict],
    read: Read,
    *,
    until_us: int | None = None,
    upcast: Upcast | None = None,
) -> Report:
    """The best changes of a profile. `runs` are those that count, by `feedback.counted`."""
    before = Backtest([profile.rule], host=None, upcast=upcast)
    seen = _Seen(profile, {run.event_id: verdicts.get(run.run_id) for run in runs}, upcast)
    for message in read(before.wants):
        before.take(message)
        seen.take(message)
    fired = {firing.event_id for firing in before.end(until_us).profiles[0].firings}
    cases = [case for case in seen.cases if case.event_id in fired]
    judged = sum(run.run_id in verdicts for run in runs)
    whole = _tally(cases)
    unused = judged - whole.false_positives - whole.useful
    report = Report(runs=whole, unused=unused, firings=len(fired), suggestions=[])
    if whole.false_positives < FEWEST:
        return report
    changes = _clauses(profile, cases, seen)
    changes += [*_windows(profile, cases), *_throttles(profile, cases)]
    changed = [(c, p) for c in changes if (p := _changed(profile, c)) is not None]
    after = Backtest([p.rule for _, p in changed], host=None, upcast=upcast)
    for message in read(after.wants):
        after.take(message)
    best: dict[frozenset[str], Suggestion] = {}
    for (change, new), tested in zip(changed, after.end(until_us).profiles, strict=True):
        now = frozenset(firing.event_id for firing in tested.firings)
        found = _weighed(change, new, cases, fired, now)
        if found is not None and (now not in best or _order(found) < _order(best[now])):
            best[now] = found
    first = sorted(best.values(), key=_order)[:SHOWN]
    return msgspec.structs.replace(report, suggestions=first)


class _Seen:
    """The events of runs, and which fields events of the profile's topics have at all."""

    def __init__(
        self, profile: Profile, wanted: Mapping[str, Verdict | None], upcast: Upcast | None
    ) -> None:
        self._on = profile.on
        self._wanted = dict(wanted)
        self._upcast = upcast
        self._events = 0
        self._present: Counter[Path] = Counter()
        self._types: dict[Path, set[type]] = {}
        self.cases: list[_Case] = []

    def take(self, message: Message) -> None:
        stored = (message.stream, message.seq, message.time_us)
        try:
            event = decode(message.data, stored=stored)
            if not listens(self._on, event.topic):
                return
            if self._upcast is not None:
                event = self._upcast(event)
        except SchemaError:
            return
        view = event.view()
        self._events += 1
        for path, value in _fields(view):
            self._present[path] += 1
            kind = float if type(value) is int else type(value)
            self._types.setdefault(path, set()).add(kind)
        if event.id in self._wanted:
            verdict = self._wanted.pop(event.id)  # it may be stored twice
            self.cases.append(_Case(event.id, verdict, view, message.time_us))

    def sure(self, path: Path) -> bool:
        """Whether every event has the field."""
        return self._present[path] == self._events

    def only(self, path: Path, kind: type) -> bool:
        """Whether the field holds nothing but this: another type would make a test fail."""
        return self._types[path] == {kind}


def _clauses(profile: Profile, cases: Sequence[_Case], seen: _Seen) -> list[_Change]:
    """Conditions on fields, the most promising first and no two that keep the same runs."""
    values: dict[Path, list[tuple[_Case, Any]]] = {}
    for case in cases:
        for path, value in _fields(case.view):
            if _usable(value):
                values.setdefault(path, []).append((case, value))
    judged = [case for case in cases if case.verdict is not None]
    whole = _tally(cases)
    found: dict[frozenset[str], tuple[float, _Change]] = {}
    for path, held in values.items():
        for test, cost in _tests(path, held, seen):
            clause = excluding(path, test, sure=seen.sure(path))
            condition = Expression(clause)
            # most candidates fail for the few runs that were judged
            first = _tally(case for case in judged if not _meets(condition, case))
            if first.useful or not first.false_positives:
                continue
            lost = [case for case in cases if not _meets(condition, case)]
            cost += 0 if seen.sure(path) else 0.5
            score = _score(_tally(lost), whole, cost)
            gone = frozenset(case.event_id for case in lost)
            if score > 0 and (gone not in found or found[gone][0] < score):
                where = joined(profile.source.get("where"), clause)
                found[gone] = score, _Change("where", clause, where, cost)
    ranked = sorted(found.values(), key=lambda one: (-one[0], one[1].cost, one[1].clause))
    return [change for _, change in ranked[:CLAUSES]]


def _tests(
    path: Path, held: Sequence[tuple[_Case, Any]], seen: _Seen
) -> Iterator[tuple[str, float]]:
    """What false positives have in this field: the end of a condition, and its cost."""
    if _counts_up(held):
        return
    false = [value for case, value in held if case.verdict == "false_positive"]
    useful = {literal(value) for case, value in held if case.verdict == "useful"}
    texts = Counter(literal(value) for value in false)
    values = [text for text, _ in texts.most_common() if text not in useful]
    distinct = len({literal(value) for _, value in held})
    if distinct < len(held) or len(held) < _LISTED:  # else it names runs, and explains nothing
        yield from ((f" == {text}", 1 + len(text) / 100) for text in values[: 2 * _LISTED])
        for count in range(2, min(_LISTED, len(values)) + 1):
            listed = ", ".join(values[:count])
            yield f" in [{listed}]", count + len(listed) / 100
    if seen.only(path, str):
        known = sorted(set(false))[:30]
        for kind, method in ((1, "startsWith"), (-1, "endsWith")):
            for part in _affixes([text[::kind] for text in known]):
                yield f".{method}({literal(part[::kind])})", 1.5 + len(part) / 100
    if seen.only(path, float):
        bounds = sorted(set(false))
        for bound in bounds[:: len(bounds) // 20 + 1]:
            yield f" <= {literal(bound)}", 1.2
            yield f" >= {literal(bound)}", 1.2


def _windows(profile: Profile, cases: Sequence[_Case]) -> Iterator[_Change]:
    """Debounces under which a false positive belongs to the burst of the run before it."""
    now = profile.rule.debounce
    key = now.key if now else DEFAULT_KEY
    inner = [path for path in key if path.startswith("payload.")]
    less = [tuple(other for other in key if other != path) for path in inner]
    more = [(*key, path) for path in _telling(cases) if path not in key]
    for keys in (key, *less, *more)[:KEYS]:
        for seconds in _spans(cases):
            if now and keys == key and seconds * 1_000_000 <= now.window_us:
                continue
            told = f"window: {durations.text(seconds)}"
            value = {**(profile.source.get("debounce") or {}), "window": durations.text(seconds)}
            if keys != key:
                value["key"] = list(keys)
                told += f", key: [{', '.join(keys)}]"
            yield _Change("debounce", told, value, 1.5 + (keys != key))


def _throttles(profile: Profile, cases: Sequence[_Case]) -> Iterator[_Change]:
    for seconds in _spans(cases):
        for most in (1, 3):
            per = durations.text(seconds)
            value = {**(profile.source.get("throttle") or {}), "at_most": most, "per": per}
            yield _Change("throttle", f"at_most: {most}, per: {per}", value, 2.5)


def _changed(profile: Profile, change: _Change) -> Profile | None:
    """The whole profile with the change; None where it does not go with the rest of it."""
    try:
        return from_source(profile.name, {**profile.source, change.kind: change.value})
    except ConfigError:
        return None


def _weighed(
    change: _Change, new: Profile, cases: Sequence[_Case], before: set[str], now: frozenset[str]
) -> Suggestion | None:
    """None for a change that loses a useful run, or is not worth it."""
    removed = _tally(case for case in cases if case.event_id not in now)
    fresh = len(now - before)
    score = _score(removed, _tally(cases), change.cost, fresh)
    if removed.useful or score <= 0 or not now:
        return None
    return Suggestion(
        kind=change.kind,
        clause=change.clause,
        removed=removed,
        firings=len(now),
        new=fresh,
        score=round(score, 4),
        profile=new,
    )


def _score(removed: Tally, whole: Tally, cost: float, fresh: int = 0) -> float:
    """False positives removed, less others lost, less what makes the profile hard to read.

    0 for what does not tell them apart: it removes as large a part of the runs nobody judged.
    """
    hit = (removed.false_positives - fresh) / whole.false_positives
    miss = removed.unjudged / whole.unjudged if whole.unjudged else 0.0
    return max(hit - miss / 2 - cost * 0.03, 1e-6) if hit > miss else 0.0


def _order(found: Suggestion) -> tuple[float, int, str]:
    return -found.score, len(found.clause), found.clause


def _tally(cases: Iterable[_Case]) -> Tally:
    counts = Counter(case.verdict for case in cases)
    return Tally(
        false_positives=counts["false_positive"], useful=counts["useful"], unjudged=counts[None]
    )


def _fields(view: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    yield from (((name,), view[name]) for name in ENVELOPE)
    yield from _inner(("payload",), view["payload"])


def _inner(path: Path, value: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for name, part in value.items():
        yield (*path, name), part
        if isinstance(part, dict) and len(path) < _DEPTH:
            yield from _inner((*path, name), part)


def _usable(value: Any) -> bool:
    """Whether a clause can name the value."""
    if isinstance(value, str):
        return len(value) <= LONGEST
    return isinstance(value, int | float) and abs(value) < _INT64


def _meets(condition: Expression, case: _Case) -> bool:
    try:
        return condition.evaluate({"event": case.view}) is True
    except ConditionError:
        return False


def _counts_up(held: Sequence[tuple[_Case, Any]]) -> bool:
    """A number or time that only grows tells when a run was, not what it was about."""
    if len(held) < _LISTED or len({type(value) for _, value in held}) > 1:
        return False
    values = [value for _, value in sorted(held, key=lambda one: one[0].stored_us)]
    return all(one < other for one, other in pairwise(values))


def _affixes(texts: Sequence[str]) -> list[str]:
    """Beginnings that two of the texts share, also cut back to a separator; the widest first."""
    found: Counter[str] = Counter()
    for one, other in combinations(texts, 2):
        pairs = enumerate(zip(one, other, strict=False))
        end = next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
        cut = max((one.rfind(mark, 0, end) + 1 for mark in "/.:-_@ "), default=0)
        found.update({part for part in (one[:end], one[:cut]) if len(part) >= _AFFIX})
    return [part for part, _ in found.most_common(8)]


def _telling(cases: Sequence[_Case]) -> list[str]:
    """Fields of the payload that some runs share, as a key names them."""
    values: dict[str, list[str]] = {}
    for case in cases:
        for path, value in _inner(("payload",), case.view["payload"]):
            name = ".".join(path)
            if isinstance(value, str | int) and field(path) == f"event.{name}":
                values.setdefault(name, []).append(literal(value))
    return [name for name, all_ in values.items() if 1 < len(set(all_)) <= len(all_) / 2]


def _spans(cases: Sequence[_Case]) -> list[float]:
    """Spans that reach from false positives back to the run before: the usual, most, and all."""
    ordered = sorted(cases, key=lambda case: case.stored_us)
    gaps = sorted(
        (case.stored_us - before.stored_us) / 1e6
        for before, case in pairwise(ordered)
        if case.verdict == "false_positive"
    )
    if not gaps:
        return []
    wanted = (gaps[len(gaps) // 2], gaps[len(gaps) * 3 // 4], gaps[-1])
    longer = (next((s for s in _SPANS if s > gap), None) for gap in wanted)
    return list(dict.fromkeys(float(seconds) for seconds in longer if seconds is not None))
