"""Messages of the evidence archive for a backtest: what nobody listens to is not decoded.

Like the archive's reader it believes what it reads, and passes over lines that are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from opsmesh.handlers.backtest.backtest import topic_of
from opsmesh.handlers.evidence import segments
from opsmesh.schemas import times

#: Bytes that are read at once; progress is told after each.
BLOCK: Final = 2**20
#: Bytes that are looked at in each of so many segments, to tell which topics are frequent.
SAMPLE: Final = 256 * 1024
SAMPLED: Final = 16


class Stored(msgspec.Struct, frozen=True, gc=False):
    """One stored message; `time_us` is when the broker stored it."""

    stream: str
    seq: int
    time_us: int
    data: bytes


class _Line(msgspec.Struct, gc=False):
    stream: str
    seq: int
    time: str
    hash: str
    #: Empty when there is none: a Raw cannot be in a union.
    event: msgspec.Raw = msgspec.Raw()
    base64: bytes | None = None


_line = msgspec.json.Decoder(_Line).decode


class Source:
    """Messages stored at or after `since_us` and before `until_us`, in the archive's order."""

    def __init__(
        self, folder: Path, *, since_us: int | None = None, until_us: int | None = None
    ) -> None:
        # times as the archive writes them sort as text
        self._since = times.format_us(since_us) if since_us is not None else ""
        self._until = times.format_us(until_us) if until_us is not None else "~"
        self._segments = [
            segment
            for segment in segments.listing(folder)
            if self._since[:10] <= segment.day <= self._until[:10]
        ]
        #: Bytes to read.
        self.size = sum(segments.size(segment) for segment in self._segments)
        #: Messages in the period, wanted or not, and the time of the last, once they were read.
        self.messages = 0
        self.last_us: int | None = None

    def read(
        self, wants: Callable[[str], bool], *, tell: Callable[[int], None] | None = None
    ) -> Iterator[Stored]:
        """Messages whose topic is wanted; what has no topic is asked for as "".

        `tell` is given the bytes that are done, now and then.
        """
        done, seen, last = 0, 0, ""
        since, until = self._since, self._until
        for segment in self._segments:
            with segments.opened(segment) as file:
                while block := file.readlines(BLOCK):
                    for raw in block:
                        line = _parsed(raw)
                        if line is None or not since <= line.time < until:
                            continue
                        data = bytes(line.event) or line.base64
                        if data is None:  # a note
                            continue
                        seen += 1
                        last = line.time
                        if wants(topic_of(data)):
                            stored = _stored(line, data)
                            if stored is not None:
                                yield stored
                    done += sum(map(len, block))
                    if tell is not None:
                        tell(done)
        self.messages = seen
        self.last_us = _time_us(last)

    def frequent(self) -> Counter[str]:
        """How often each topic stands in a sample of the archive."""
        found: Counter[str] = Counter()
        for segment in self._segments[:: len(self._segments) // SAMPLED + 1]:
            with segments.opened(segment) as file:
                for raw in file.readlines(SAMPLE):
                    line = _parsed(raw)
                    if line is not None and line.event:
                        found[topic_of(line.event)] += 1
        return found


def _parsed(raw: bytes) -> _Line | None:
    try:
        return _line(raw)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return None


def _stored(line: _Line, data: bytes) -> Stored | None:
    time_us = _time_us(line.time)
    return None if time_us is None else Stored(line.stream, line.seq, time_us, data)


def _time_us(text: str) -> int | None:
    try:
        return times.parse_us(text)
    except ValueError:
        return None
