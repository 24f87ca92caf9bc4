"""Two versions of profiles over the same events: firings gained and lost, and why.

A firing is known by the event that it is about. Which ones differ is seen from two results; why is
found by deciding once more, for the profiles that differ alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from opsmesh.handlers.backtest.backtest import Backtest, Message, Upcast
from opsmesh.handlers.backtest.result import Firing, ProfileResult
from opsmesh.router.decide import Decision
from opsmesh.router.rule import Rule
from opsmesh.router.topic_patterns import listens
from opsmesh.schemas.envelope import decode
from opsmesh.schemas.errors import SchemaError

if TYPE_CHECKING:
    from opsmesh.handlers.profiles.profile import Profile


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One profile in two versions; `before` is None when it is new."""

    profile: str
    before: ProfileResult | None
    after: ProfileResult
    gained: list[Firing]
    lost: list[Firing]

    @property
    def differs(self) -> bool:
        """Whether it fires for other events than before."""
        return bool(self.gained or self.lost)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One firing that only one version has: that version's decision, and why the other has not."""

    kind: Literal["gained", "lost"]
    firing: Firing
    #: When the event was stored.
    time_us: int
    workspace: str
    fired: Decision
    #: Of the other version's decision; `none` when it has made none.
    outcome: str
    clause: str
    reason: str


def same_decisions(one: Profile, other: Profile) -> bool:
    """Whether two versions decide alike, so that one backtest stands for both."""
    return _decides(one.rule) == _decides(other.rule)


def compare(before: Mapping[str, ProfileResult], after: Sequence[ProfileResult]) -> list[Change]:
    """Every profile of `after` beside its version of the same name in `before`."""
    found = []
    for new in after:
        old = before.get(new.profile)
        old_firings = [] if old is None else old.firings
        had = {firing.event_id for firing in old_firings}
        has = {firing.event_id for firing in new.firings}
        found.append(
            Change(
                profile=new.profile,
                before=old,
                after=new,
                gained=[firing for firing in new.firings if firing.event_id not in had],
                lost=[firing for firing in old_firings if firing.event_id not in has],
            )
        )
    return found


def explain(
    changes: Iterable[Change],
    *,
    before: Mapping[str, Profile],
    after: Mapping[str, Profile],
    read: Callable[[Callable[[str], bool], int], Iterable[Message]],
    host: str | None,
    most: int | None = None,
    upcast: Upcast | None = None,
) -> dict[str, list[Difference]]:
    """Why firings differ, in the order of time: the first `most` of each profile, or all.

    `read` gives the messages of the period again: those whose topic is wanted, as `Backtest.wants`
    says, and none that was stored after a time in microseconds.
    """
    chosen = {change.profile: _first(change, most) for change in changes if change.differs}
    if not chosen:
        return {}
    rules = [side[name].rule for name in chosen for side in (before, after) if name in side]
    wanted = {(name, firing.event_id) for name, some in chosen.items() for _, firing in some}
    seqs = {firing.event_seq for some in chosen.values() for _, firing in some}
    last_us = max(firing.at_us for some in chosen.values() for _, firing in some)
    decisions: dict[tuple[str, str, str], Decision] = {}

    def keep(decision: Decision) -> None:
        if (decision.profile, decision.event_id) in wanted:
            decisions[decision.profile, decision.profile_hash, decision.event_id] = decision

    run = Backtest(rules, host=host, keep=keep, upcast=upcast)
    places: dict[str, tuple[int, str]] = {}
    for message in read(run.wants, last_us):
        if message.seq in seqs:
            places.update(_place(message))
        run.take(message)
    run.end(last_us)
    return {
        name: list(_differences(some, before.get(name), after[name], decisions, places))
        for name, some in chosen.items()
    }


def _differences(
    some: Iterable[tuple[Literal["gained", "lost"], Firing]],
    before: Profile | None,
    after: Profile,
    decisions: Mapping[tuple[str, str, str], Decision],
    places: Mapping[str, tuple[int, str]],
) -> Iterator[Difference]:
    for kind, firing in some:
        fires, other = (after, before) if kind == "gained" else (before, after)
        if fires is None:  # nothing can be lost that was not there
            continue
        fired = decisions[fires.name, fires.hash, firing.event_id]
        outcome, clause, reason = _why_not(other, firing, decisions)
        time_us, workspace = places.get(firing.event_id, (firing.at_us, ""))
        yield Difference(
            kind=kind,
            firing=firing,
            time_us=time_us,
            workspace=workspace,
            fired=fired,
            outcome=outcome,
            clause=clause,
            reason=reason,
        )


def _why_not(
    other: Profile | None, firing: Firing, decisions: Mapping[tuple[str, str, str], Decision]
) -> tuple[str, str, str]:
    if other is None:
        return "none", "profile", "there is no profile of this name"
    decision = decisions.get((other.name, other.hash, firing.event_id))
    if decision is not None:
        return decision.outcome, decision.clause, decision.reason
    if listens(other.on, firing.topic):  # on another host than the one that was asked for
        return "none", "run_on", f"runs on {other.run_on}"
    return "none", "on", f"listens to {', '.join(other.on)}, not to {firing.topic}"


def _first(change: Change, most: int | None) -> list[tuple[Literal["gained", "lost"], Firing]]:
    gained: list[tuple[Literal["gained", "lost"], Firing]]
    gained = [("gained", firing) for firing in change.gained]
    both = gained + [("lost", firing) for firing in change.lost]
    return sorted(both, key=lambda one: (one[1].at_us, one[1].event_seq))[:most]


def _place(message: Message) -> Iterator[tuple[str, tuple[int, str]]]:
    try:
        event = decode(message.data, stored=(message.stream, message.seq, message.time_us))
    except SchemaError:
        return
    yield event.id, (message.time_us, event.workspace)


def _decides(rule: Rule) -> Rule:
    return msgspec.structs.replace(rule, hash="", state="enabled")
