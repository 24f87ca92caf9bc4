"""The Yazi producer's loop: take what the subscriber has read, emit, remember since when.

Yazi keeps no history: what it does while nobody listens is lost. When it is the same Yazi before
and after, the time between is told as a gap.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any, Final

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import OptionError, ProducerError, Refused, Unavailable
from opsmesh.producers.feed import Feed
from opsmesh.producers.host import say
from opsmesh.producers.memory import Memory
from opsmesh.producers.yazi import dds, facts
from opsmesh.producers.yazi.subscriber import Line, Listening, Subscriber
from opsmesh.router import session
from opsmesh.schemas import ids, times

#: The topic that a gap is told with.
GAP: Final = "mesh.gap.detected"
#: Lines that wait for a slow mesh, at most; then the oldest go, and are told as a gap.
QUEUE: Final = 10_000
#: Seconds between two notes of how far we are, at least; it is noted at the end as well.
STORE_EVERY: Final = 5.0
#: Seconds for what was read but not yet emitted when the end comes; the rest is told as a gap.
FAREWELL: Final = 3.0
#: Seconds that `ya --version` may take.
QUESTION: Final = 10.0
#: What to do when Yazi is missing or too old.
ADVICE: Final = "install Yazi {} or newer (https://yazi-rs.github.io/docs/installation)".format(
    ".".join(map(str, dds.OLDEST))
)


class Yazi:
    """What Yazi moved, copied and deleted, and the folders that it may not read."""

    name = "yazi"
    description = "Yazi: files moved, copied, deleted, and folders that may not be read"
    topics: Sequence[str] = (
        facts.MOVE,
        facts.COPY,
        facts.DELETE,
        facts.BATCH,
        facts.DENIED,
        GAP,
    )

    def __init__(self, *, ya: str = "ya") -> None:
        """Options as text. `ya`: Yazi's command line, a name on PATH or a path."""
        if not ya:
            raise OptionError("ya", "is empty; give a name on PATH or a path")
        self._ya = ya
        self._memory = Memory(self.name)
        self._listening: tuple[int, int] | None = None
        self._item: Line | Listening | None = None
        self._stored = 0.0
        self._skipped = 0

    def available(self) -> str | None:
        """See `contract.Producer`."""
        if shutil.which(self._ya) is None:
            return f"{self._ya} is not on PATH: {ADVICE}"
        return None

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        self._require()
        feed: Feed[Line | Listening] = Feed(QUEUE)
        subscriber = Subscriber(self._ya, feed, lambda text: say(f"{self.name}: {text}"))
        subscriber.start()
        try:
            while (item := feed.get()) is not None:
                self._item = item  # the end may come in the middle of it
                if lost := feed.lost():
                    self._gap(emit, "queue_full", lost=lost)
                self._deal(item, emit)
                self._item = None
                if time.monotonic() - self._stored >= STORE_EVERY:
                    self._store()
        finally:
            subscriber.stop()
            self._store(left=self._say_farewell(feed, emit))
        raise ProducerError("the thread that reads ya sub has ended; its reason is above")

    def _say_farewell(self, feed: Feed[Line | Listening], emit: Emit) -> int:
        """Emit what is left; the number of lines that there was no time for."""
        deadline = time.monotonic() + FAREWELL
        left = 0
        item = self._item or feed.get(0)
        while item is not None:
            if time.monotonic() < deadline:
                self._deal(item, emit)  # an event that was told already has the same id again
            else:
                left += isinstance(item, Line)
            item = feed.get(0)
        return left

    def _deal(self, item: Line | Listening, emit: Emit) -> None:
        if isinstance(item, Listening):
            self._begin(item, emit)
        else:
            self._take(item, emit)

    def _require(self) -> None:
        """Unavailable unless `ya` is Yazi's, and new enough."""
        try:
            done = subprocess.run(
                [self._ya, "--version"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=QUESTION,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(self.name, f"{self._ya} --version: {error}") from error
        said = done.stdout.decode("utf-8", "replace").strip()
        version = dds.version(said)
        if version is None:
            raise Unavailable(self.name, f"{self._ya} --version says {said[:80]!r}: {ADVICE}")
        if version < dds.OLDEST:
            raise Unavailable(self.name, f"Yazi {'.'.join(map(str, version))} is too old: {ADVICE}")

    def _begin(self, item: Listening, emit: Emit) -> None:
        if self._listening is None:
            stored = self._memory.load()
            until_us, left = stored.get("until_us"), stored.get("left")
            if isinstance(until_us, int) and (left or stored.get("socket") == list(item.socket)):
                self._gap(emit, "not_running", until_us, item.at_us, lost=left or None)
        elif item.deaf_us is not None:
            self._gap(emit, "listener_died", item.deaf_us, item.at_us)
        self._listening = item.socket
        self._store()

    def _take(self, line: Line, emit: Emit) -> None:
        message = dds.parse(line.text)
        if message is None:
            self._skipped += 1
            if self._skipped & (self._skipped - 1) == 0:  # 1, 2, 4, 8 …: a flood fills no log
                say(f"{self.name}: {self._skipped} lines skipped, the last: {line.text[:80]!r}")
            return
        first: str | None = None
        for number, fact in enumerate(facts.facts(message)):
            ms = line.at_us // 1000
            parts = (str(line.at_us), str(line.number), str(number), line.text.decode())
            id = ids.derived(ms, *parts)
            try:  # what belongs to one operation is correlated by its first event
                emit(
                    fact.topic,
                    fact.payload,
                    ts_us=line.at_us,
                    id=id,
                    correlation_id=first,
                    workspace=session.workspace(fact.place),
                )
                first = first or id
            except Refused as error:  # sending it again would change nothing: tell, and go on
                say(f"{self.name}: {error}")

    def _gap(
        self,
        emit: Emit,
        kind: str,
        from_us: int | None = None,
        to_us: int | None = None,
        *,
        lost: int | None = None,
    ) -> None:
        now = times.now_us()
        payload: dict[str, Any] = {"source": self.name, "kind": kind}
        if from_us is not None:
            payload["from_time"] = times.format_us(from_us)
        payload["to_time"] = times.format_us(to_us or now)
        if lost is not None:
            payload["lost"] = lost
        say(f"{self.name}: gap ({kind})")
        try:
            emit(GAP, payload, id=ids.derived((from_us or now) // 1000, GAP, self.name, kind))
        except Refused as error:
            say(f"{self.name}: {error}")

    def _store(self, *, left: int = 0) -> None:
        """Note until when we listened, to whom, and how many lines are left untold."""
        self._stored = time.monotonic()
        if self._listening is None:
            return
        note = {"socket": self._listening, "until_us": times.now_us(), "left": left}
        try:
            self._memory.store(note)
        except OSError as error:
            say(f"{self.name}: cannot note how far it is: {error}")
