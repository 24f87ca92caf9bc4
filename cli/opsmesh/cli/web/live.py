"""What is sent to a page while it is open, as server-sent events: new events, runs that changed,
and each section of the rest when it is another than before.

The one rule: a page that is slow, or a flood, costs the events in between and no memory; the page
is told how many it has not seen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from opsmesh.cli.view.follower import Follower
from opsmesh.cli.view.model import SeenEvent, View
from opsmesh.cli.web import records
from opsmesh.handlers.runs.ledger import Run
from opsmesh.schemas import times

#: Seconds between two looks, and after which a line goes out though nothing is new.
EVERY_S: Final = 0.25
AT_MOST_S: Final = 2.0
#: Microseconds between two looks at what is no event.
STATE_US: Final = 1_000_000
#: Events in one frame.
CHUNK: Final = 1000

#: JSON in one line.
encode = msgspec.json.Encoder(enc_hook=str).encode


class Live:
    """One page's stream."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._view: View = follower.view
        self._seq = 0
        #: As they were sent. Not their ids: one that is gone leaves its id to the next but one.
        self._runs: dict[str, Run] = {}
        self._sent: dict[str, bytes] = {}
        self._looked_us = 0

    async def frames(self) -> AsyncIterator[bytes]:
        """For as long as the page reads."""
        while True:
            version, said = self._view.version, False
            for frame in self._news():
                said = True
                yield frame
            if not said:
                yield b": nothing new\n\n"
            await self._follower.changed(version, at_most=AT_MOST_S, every=EVERY_S)

    def _news(self) -> list[bytes]:
        frames = self._events()
        changed = [one for one in self._view.runs.values() if self._is_new(one)]
        if changed:
            frames.append(_frame("runs", encode([records.run(one) for one in changed])))
        now_us = times.now_us()
        if now_us - self._looked_us >= STATE_US or self._view.version == 0:
            self._looked_us = now_us
            for name, value in records.sections(self._view, now_us):
                data = encode(value)
                if self._sent.get(name) != data:
                    self._sent[name] = data
                    frames.append(_frame(name, data))
        return frames

    def _is_new(self, run: Run) -> bool:
        if self._runs.get(run.run_id) is run:
            return False
        self._runs[run.run_id] = run
        if len(self._runs) > 2 * len(self._view.runs):
            self._runs = {one: each for one, each in self._runs.items() if one in self._view.runs}
        return True

    def _events(self) -> list[bytes]:
        kept = self._view.events
        if kept and kept[-1].seq < self._seq:  # the stream was begun anew
            self._seq = 0
        new: list[SeenEvent] = []
        for seen in reversed(kept):
            if seen.seq <= self._seq:
                break
            new.append(seen)
        if not new:
            return []
        new.reverse()
        frames = []
        full = len(new) == len(kept) == self._view.keep
        if self._seq and full and (missed := new[0].seq - self._seq - 1):
            frames.append(_frame("missed", encode(missed)))
        self._seq = new[-1].seq
        for start in range(0, len(new), CHUNK):
            rows = [records.event(seen) for seen in new[start : start + CHUNK]]
            frames.append(_frame("events", encode(rows)))
        return frames


def _frame(name: str, data: bytes) -> bytes:
    # JSON of msgspec is one line
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
