"""What several entries say together. Fed with findings in the journal's order; reads no clock.

- One failure makes several entries: a topic is told once for each run of a unit (INVOCATION_ID).
- A kernel's OOM line has no INVOCATION_ID: it and the unit's entry are one kill when they are near.
- A restart is an event only as the last of several within a window.

The memory is bounded, and can be written down and restored, so that a restart tells nothing twice.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from opsmesh.producers.journal.classify import (
    FLAPPING,
    OOM,
    START_FAILED,
    Entry,
    Finding,
    classify,
    number,
    process_exit,
)

#: Restarts of one unit within the window that make it a flapping one.
FLAP_RESTARTS: Final = 3
#: The window, in seconds.
FLAP_WINDOW: Final = 60.0
#: Seconds within which OOM entries of one unit are one kill; a slice echoes its unit's kill for as
#: long as the kernel takes to settle (12 s in a capture).
OOM_NEAR: Final = 10.0
OOM_ECHO: Final = 60.0
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

    def see(self, entry: Entry) -> list[Finding]:
        """The findings of this entry that are news."""
        at_us = number(entry, "__REALTIME_TIMESTAMP") or 0
        if (ended := process_exit(entry)) and ended.invocation:
            _remember(self._exits, ended.invocation, (ended.code, ended.status))
        news = (self._news(finding, at_us) for finding in classify(entry))
        return [finding for finding in news if finding is not None]

    def _news(self, finding: Finding, at_us: int) -> Finding | None:
        if finding.topic == FLAPPING:
            return self._restart(finding, at_us)
        if finding.topic == OOM and self._is_echo(finding, at_us):
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
        key = f"{finding.manager} {finding.unit}"
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

    def _is_echo(self, finding: Finding, at_us: int) -> bool:
        if finding.unit.endswith(".slice"):  # a slice has no processes: the kill was told below it
            return any(abs(at_us - us) <= OOM_ECHO * 1e6 for us in self._oom_us.values())
        key = finding.unit or str(finding.payload.get("cgroup", ""))
        before = self._oom_us.get(key)
        _remember(self._oom_us, key, at_us)
        if before is None or abs(at_us - before) > OOM_NEAR * 1e6:
            return False
        if finding.invocation:  # the same kill: what this run tells later is told already
            _remember(self._told, f"{OOM} {finding.invocation}", at_us)
        return True

    def dump(self) -> dict[str, Any]:
        """The memory as JSON values."""
        return {
            "told": dict(self._told),
            "exits": {key: list(value) for key, value in self._exits.items()},
            "restarts": {key: list(value) for key, value in self._restarts.items() if value},
            "oom_us": dict(self._oom_us),
        }

    def restore(self, memory: Mapping[str, Any]) -> None:
        """Take back what `dump` gave."""
        self._told = OrderedDict(memory["told"])
        self._exits = OrderedDict(
            (k, (code, status)) for k, (code, status) in memory["exits"].items()
        )
        self._restarts = OrderedDict((k, deque(v)) for k, v in memory["restarts"].items())
        self._oom_us = OrderedDict(memory["oom_us"])


def _remember(memory: OrderedDict[str, V], key: str, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
