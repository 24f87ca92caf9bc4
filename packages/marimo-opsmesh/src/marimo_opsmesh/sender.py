"""The thread that events leave by: what the notebook's thread pays is a put into a queue.

Whole events are made here, sent, and kept in the spool where nobody answers. A slider that is
dragged makes twenty runs a second: after the first RUNS of a notebook, those within 1/RATE seconds
are told as one event with their sums. The queue is bounded; what does not fit is counted as lost.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import time
from pathlib import Path

from . import cells
from .guard import COUNT
from .mesh import session
from .mesh.events import Events
from .mesh.outbox import Outbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

#: The `source` of every event.
SOURCE = "marimo"
#: Facts that wait, at most.
QUEUE = 1000
#: Completed runs of one notebook that are told at once, and how many more each second.
RUNS, RATE = 20, 1.0
#: Seconds that the end of a process waits for the thread, at most.
FAREWELL = 2.0
#: Cells that an event of completed runs lists, at most.
CELLS = 300

RUN = "notebook.run.completed"


class Fact:
    """An event to be. `later` gives more of the payload, on this thread."""

    __slots__ = ("later", "payload", "topic")

    def __init__(
        self,
        topic: str,
        payload: dict[str, Any],
        later: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.later = later


class Pace:
    """So many at once, and so many more each second."""

    def __init__(self, burst: int, rate: float) -> None:
        self._burst, self._rate = float(burst), rate
        self._left, self._at = self._burst, time.monotonic()

    def may(self) -> bool:
        """Whether one more may be; then it has been."""
        if self.wait() > 0:
            return False
        self._left -= 1
        return True

    def wait(self) -> float:
        """Seconds until one more may be."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (1 - self._left) / self._rate)


class Sender:
    """One for a process; its thread begins with the first fact."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._queue: queue.SimpleQueue[Fact | Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lost = 0
        # of the thread alone:
        self._ended = False
        self._events = Events(SOURCE)
        self._outbox = Outbox(SOURCE)
        self._runs: dict[str, Fact] = {}
        self._paces: dict[str, Pace] = {}

    def put(self, item: Fact | Callable[[], None]) -> None:
        """Have it sent, or called, soon. Never waits."""
        if os.getpid() != self._pid:
            return  # forked off by the notebook: the thread is not here
        if self._queue.qsize() >= QUEUE:
            self._lost += 1
            return
        self._queue.put(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="opsmesh", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """Send what is left, for FAREWELL seconds at most."""
        if self._thread is not None and os.getpid() == self._pid:
            self._queue.put(None)
            self._thread.join(FAREWELL)

    def _run(self) -> None:
        while not self._ended:
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001, RUF100 (the thread goes on)
                COUNT.add("sender", error)

    def _turn(self) -> None:
        lines: list[tuple[str, bytes]] = []
        for item in self._take():
            if isinstance(item, Fact):
                lines += self._lines(item)
            else:
                item()
        for notebook in list(self._runs):
            if self._ended or self._paces[notebook].may():
                lines.append(self._line(self._runs.pop(notebook)))
        if lines:
            self._outbox.add(*lines)
            self._outbox.finish()
        if self._lost:
            lost, self._lost = self._lost, 0
            self._outbox.broken(RuntimeError("too many facts at once"), lost)

    def _take(self) -> Iterator[Fact | Callable[[], None]]:
        """What is in the queue, once something is; nothing when a run that waits is due."""
        wait = min((self._paces[notebook].wait() for notebook in self._runs), default=None)
        with contextlib.suppress(queue.Empty):
            item = self._queue.get(timeout=wait)
            while item is not None:
                yield item
                item = self._queue.get_nowait()
            self._ended = True

    def _lines(self, fact: Fact) -> list[tuple[str, bytes]]:
        notebook = fact.payload["notebook"]
        before = self._runs.pop(notebook, None)
        if fact.topic != RUN:  # what came before is told before
            return [self._line(one) for one in (before, fact) if one is not None]
        if before is not None:
            self._runs[notebook] = _merged(before, fact)
        elif self._paces.setdefault(notebook, Pace(RUNS, RATE)).may():
            return [self._line(fact)]
        else:
            self._runs[notebook] = fact
        return []

    def _line(self, fact: Fact) -> tuple[str, bytes]:
        payload = dict(fact.payload)
        if fact.later is not None:
            try:
                payload.update(fact.later())
            except Exception as error:  # noqa: BLE001, RUF100 (the event is there without it)
                COUNT.add(fact.topic, error)
        if "ran" in payload:
            payload["ran"] = cells.listed(payload["ran"])
        notebook = payload["notebook"]
        return self._events.make(
            fact.topic,
            payload,
            component=os.path.basename(notebook),  # noqa: PTH119
            workspace=session.workspace(notebook or str(Path.cwd())),
            duration_ms=payload.get("duration_ms"),
        )


def _merged(before: Fact, after: Fact) -> Fact:
    """Two runs as one: the newer one's facts, and the sums."""
    old, new = before.payload, after.payload
    payload = {**new}
    for key in ("cells", "failed", "not_run", "duration_ms"):
        if key in old or key in new:
            payload[key] = (old.get(key) or 0) + (new.get(key) or 0)
    payload["runs"] = old.get("runs", 1) + new.get("runs", 1)
    payload["interrupted"] = old.get("interrupted", False) or new.get("interrupted", False)
    ran = [*old.get("ran", ()), *new.get("ran", ())]
    payload["ran"] = ran[-CELLS:]
    omitted = old.get("ran_omitted", 0) + new.get("ran_omitted", 0) + max(0, len(ran) - CELLS)
    if omitted:
        payload["ran_omitted"] = omitted
    return Fact(after.topic, payload, after.later)


_SHARED: list[Sender] = []
_LOCK = threading.Lock()


def shared() -> Sender:
    """The process's own; a process that was forked off has another one."""
    with _LOCK:
        if not _SHARED or _SHARED[0]._pid != os.getpid():
            _SHARED[:] = [Sender()]
        return _SHARED[0]


with contextlib.suppress(AttributeError):  # no fork, no lock that is held in it
    os.register_at_fork(after_in_child=lambda: globals().__setitem__("_LOCK", threading.Lock()))
