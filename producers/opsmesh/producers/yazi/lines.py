"""Lines out of the pieces that a pipe gives. One without end is skipped: it never fills memory."""

from __future__ import annotations

from typing import Final

#: Bytes of one line, at most. Yazi's longest, a bulk rename of 20,000 long paths, has about 5 MB.
LONGEST: Final = 8 * 1024 * 1024


class Lines:
    """`count` is how many lines there were, `skipped` how many of them were too long."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._held: list[bytes] = []
        self._size = 0
        self.count = 0
        self.skipped = 0

    def begin(self) -> None:
        """Another writer: what the last one left unfinished is dropped."""
        self._held, self._size = [], 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now, without their ends."""
        *ends, rest = data.split(b"\n")
        lines = []
        for end in ends:
            self._hold(end)
            self.count += 1
            if self._size <= self._longest:
                lines.append(b"".join(self._held))
            else:
                self.skipped += 1
            self.begin()
        self._hold(rest)
        return lines

    def _hold(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._longest:
            self._held = []
        elif part:
            self._held.append(part)
