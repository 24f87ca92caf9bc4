"""What several entries say together. Fed with findings in the journal's order; reads no clock.

- One failure makes several entries: a topic is told once for each run of a unit (INVOCATION_ID).
- An OOM kill is the exception: a unit may outlive it (OOMPolicy=continue), and be hit again in the
  same run. Entries about one unit are one kill when they are near, and what only says how the unit
  ended is no news.
- The kernel chooses a victim in one line and kills it in another: the pid joins them.
- A restart is an event only as the last of several within a window.

The memory is bounded, and can be written down and restored, so that a restart tells nothing twice.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final, TypeVar

from opsmesh.producers.journal import kernel
from opsmesh.producers.journal.classify import (
    FLAPPING,
    OOM,
    START_FAILED,
    THROTTLED,
    Finding,
    classify,
    process_exit,
)
from opsmesh.producers.journal.entry import Entry, number

#: Restarts of one unit within the window that make it a flapping one.
FLAP_RESTARTS: Final = 3
#: The window, in seconds.
FLAP_WINDOW: Final = 60.0
#: Seconds within which OOM entries of one unit are one kill; a slice, or the service of a user's
#: manager, echoes a kill below it for as long as the kernel takes to settle (12 s in a capture).
OOM_NEAR: Final = 10.0
OOM_ECHO: Final = 60.0
#: Seconds within which entries about the start limit of one unit are one refusal, and a scheduled
#: restart is the start that is refused.
LIMIT_NEAR: Final = 10.0
#: Facts remembered of each kind; the oldest goes first.
REMEMBERED: Final = 256

V = TypeVar("V")


class Tracker:
    """Turns entries into the events to emit."""

    def __init__(
        self, *, flap_restarts: int = FLAP_RESTARTS, flap_window: float = FLAP_WINDOW
    ) -> None:
        self._flap_restarts = flap_restarts
        self._flap_window_us = int(flap_window * 1e6)
        self._told: OrderedDict[str, int] = OrderedDict()
        self._exits: OrderedDict[str, tuple[str, int | None]] = OrderedDict()
        self._restarts: OrderedDict[str, deque[int]] = OrderedDict()
        self._oom_us: OrderedDict[str, int] = OrderedDict()
        self._limit_us: OrderedDict[str, int] = OrderedDict()
        self._counters: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._chosen: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def see(self, entry: Entry) -> list[Finding]:
        """The findings of this entry that are news."""
        at_us = number(entry, "__REALTIME_TIMESTAMP") or 0
        if (ended := process_exit(entry)) and ended.invocation:
            _remember(self._exits, ended.invocation, (ended.code, ended.status))
        if victim := kernel.chosen(entry):
            _remember(self._chosen, str(victim.facts["pid"]), asdict(victim))
        news = (self._news(finding, at_us) for finding in classify(entry))
        return [finding for finding in news if finding is not None]

    def _news(self, finding: Finding, at_us: int) -> Finding | None:
        if finding.topic == FLAPPING:
            return self._restart(finding, at_us)
        if finding.topic == OOM:
            finding = self._joined(finding)
            return None if self._is_echo(finding, at_us) else finding
        if finding.topic == THROTTLED and self._is_known_limit(finding, at_us):
            return None
        if finding.invocation:
            key = f"{finding.topic} {finding.invocation}"
            if key in self._told:
                return None
            _remember(self._told, key, at_us)
        if finding.topic == START_FAILED and finding.invocation in self._exits:
            code, status = self._exits[finding.invocation]
            finding.payload["exit_code"] = code
            if status is not None:
                finding.payload["exit_status"] = status
        return finding

    def _restart(self, finding: Finding, at_us: int) -> Finding | None:
        key = _key(finding)
        counter = finding.payload["restart_counter"]
        if counter is not None:
            _remember(self._counters, key, (at_us, counter))
        seen = self._restarts.get(key, deque())
        seen.append(at_us)
        while seen and at_us - seen[0] > self._flap_window_us:
            seen.popleft()
        _remember(self._restarts, key, seen)
        if len(seen) < self._flap_restarts:
            return None
        finding.payload["restarts"] = len(seen)
        finding.payload["window_s"] = self._flap_window_us / 1e6
        seen.clear()
        return finding

    def _is_known_limit(self, finding: Finding, at_us: int) -> bool:
        key = _key(finding)
        before = self._limit_us.get(key)
        if finding.follows and before is not None and _near(at_us, before, LIMIT_NEAR):
            return True
        _remember(self._limit_us, key, at_us)
        scheduled_us, counter = self._counters.get(key, (0, 0))
        if counter and _near(at_us, scheduled_us, LIMIT_NEAR):
            finding.payload["restarts"] = counter
        return False

    def _joined(self, finding: Finding) -> Finding:
        """A kernel's kill with what it said when it chose the victim."""
        victim = self._chosen.pop(str(finding.payload.get("pid")), None)
        if victim is None:
            return finding
        return replace(
            finding,
            unit=str(victim["unit"]),
            owner=str(victim["owner"]),
            manager="user" if victim["owner"] else "system",
            payload={**victim["facts"], **finding.payload},
        )

    def _is_echo(self, finding: Finding, at_us: int) -> bool:
        if _holds_others(finding):  # the kill was told of the unit below it
            return any(_near(at_us, us, OOM_ECHO) for us in self._oom_us.values())
        is_nameless = "pid" in finding.payload and "cgroup" not in finding.payload
        if is_nameless and any(_near(at_us, us, OOM_NEAR) for us in self._oom_us.values()):
            return True  # one more of a group that is killed as a whole: told with its first
        key = _key(finding) if finding.unit else str(finding.payload.get("cgroup", ""))
        before = self._oom_us.get(key)
        told = f"{OOM} {finding.invocation}"
        is_known = finding.follows and told in self._told
        if not finding.follows:
            _remember(self._oom_us, key, at_us)
        if finding.invocation:
            _remember(self._told, told, at_us)
        return is_known or (before is not None and _near(at_us, before, OOM_NEAR))

    def dump(self) -> dict[str, Any]:
        """The memory as JSON values."""
        return {
            "told": dict(self._told),
            "exits": {key: list(value) for key, value in self._exits.items()},
            "restarts": {key: list(value) for key, value in self._restarts.items() if value},
            "oom_us": dict(self._oom_us),
            "limit_us": dict(self._limit_us),
            "counters": {key: list(value) for key, value in self._counters.items()},
            "chosen": dict(self._chosen),
        }

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Take back what `dump` gave."""
        self._told = OrderedDict(memory["told"])
        self._exits = OrderedDict(
            (k, (code, status)) for k, (code, status) in memory["exits"].items()
        )
        self._restarts = OrderedDict((k, deque(v)) for k, v in memory["restarts"].items())
        self._oom_us = OrderedDict(memory["oom_us"])
        # not in what an earlier version has stored
        self._limit_us = OrderedDict(memory.get("limit_us", {}))
        self._counters = OrderedDict(
            (k, (at_us, counter)) for k, (at_us, counter) in memory.get("counters", {}).items()
        )
        self._chosen = OrderedDict(memory.get("chosen", {}))


def _key(finding: Finding) -> str:
    manager = finding.manager
    return f"{manager}{f' {finding.owner}' if finding.owner else ''} {finding.unit}"


def _near(one_us: int, other_us: int, seconds: float) -> bool:
    return abs(one_us - other_us) <= seconds * 1e6


def _holds_others(finding: Finding) -> bool:
    """A slice has no processes of its own, and `user@` holds every unit of its user's manager.

    The kernel counts a kill in every group above the victim's, so each of them tells of it.
    """
    if "pid" in finding.payload:  # the kernel's word for where the victim was
        return False
    is_manager = finding.manager == "system" and finding.unit.startswith("user@")
    return is_manager or finding.unit.endswith(".slice")


def _remember(memory: OrderedDict[str, V], key: str, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
