"""Which numbers of a source are missing: each source numbers its events from 1 in every boot.

Pure: events and times in, gaps out. The one rule: nothing is called lost that may only be late. A
hole is told some time after it was seen, for the spool and several connections bring events out of
order; what fills it later is told, too. Taking an event twice changes nothing, so that what a crash
made uncertain is simply taken again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from opsmesh.schemas import ids, times

#: Microseconds of the stream's time that a missing number may still come, and between two
#: announcements about one boot, unless told.
GRACE: Final = 60_000_000
#: Boots that are remembered; of more, those that were silent for longest are forgotten.
MOST_BOOTS: Final = 4096
#: Holes of one boot that wait or were told; of more, the oldest two become one.
MOST_HOLES: Final = 64
#: Runs of numbers in one hole; of more, the oldest are counted, and no longer known one by one.
MOST_RUNS: Final = 256
#: Microseconds that a hole which was told can still be filled.
REMEMBERED: Final = 86_400_000_000


class Stamp(msgspec.Struct, gc=False):
    """What the sink reads of an event: its id, and its number where it has one."""

    id: str = ""
    host: str = ""
    source: str = ""
    ts_utc: str = ""
    seq: int | None = None
    boot_id: str | None = None


class Hole(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Numbers that did not come: `runs`, first and last of each, and `more` that are only counted.

    `since_us` is when it was seen, or told once `gap` holds the id that it was told with. Of the
    `count` that were told, some may come late, the first since that was told at `found_us`.
    """

    runs: list[tuple[int, int]]
    since_us: int
    from_time: str
    to_time: str
    more: int = 0
    gap: str = ""
    count: int = 0
    found_us: int = 0

    @property
    def left(self) -> int:
        """How many are missing."""
        return self.more + sum(last - first + 1 for first, last in self.runs)

    def fill(self, seq: int) -> bool:
        """Take a number out; whether it was there."""
        for at, (first, last) in enumerate(self.runs):
            if first <= seq <= last:
                parts = [(first, seq - 1), (seq + 1, last)]
                self.runs[at : at + 1] = [part for part in parts if part[0] <= part[1]]
                return True
        return False


class Boot(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One life of one source: the highest number seen, when, and what is missing below it."""

    host: str
    source: str
    boot_id: str
    last: int
    ts_utc: str
    seen_us: int
    told_us: int = 0
    holes: list[Hole] = []


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be told: numbers that are lost, or, with `found`, some that came late."""

    id: str
    host: str
    source: str
    boot_id: str
    lost: int
    from_time: str
    to_time: str
    first: int = 0
    last: int = 0
    found: int = 0
    gap: str = ""


_Key = tuple[str, str, str | None]


class Numbering:
    """The numbers of every source, in bounded memory.

    `since_us` is from when on the stream is known without a break: what an older boot sent before
    it was first seen is not missed. `grace_us` is how long, in the stream's time, a number may
    still come.
    """

    def __init__(
        self, boots: list[Boot] | None = None, *, since_us: int, grace_us: int = GRACE
    ) -> None:
        self.since_us = since_us
        self._grace_us = grace_us
        self._boots: dict[_Key, Boot] = {(b.host, b.source, b.boot_id): b for b in boots or ()}
        self._open: dict[_Key, Boot] = {k: b for k, b in self._boots.items() if b.holes}

    @property
    def boots(self) -> list[Boot]:
        """All that is remembered, to be kept."""
        return list(self._boots.values())

    @property
    def waits(self) -> bool:
        """Whether the time alone will bring something to be told."""
        return bool(self._open)

    def take(self, stamp: Stamp, stored_us: int) -> None:
        """One event that has a number, in the order of the stream."""
        key = (stamp.host, stamp.source, stamp.boot_id)
        boot = self._boots.get(key)
        seq = stamp.seq
        if boot is not None and seq == boot.last + 1:  # nearly always
            boot.last = seq
            boot.ts_utc = stamp.ts_utc
            boot.seen_us = stored_us
            return
        self._out_of_turn(key, boot, stamp, stored_us)

    def ripe(self, now_us: int) -> list[Gap]:
        """What is to be told by now; it counts as told."""
        return [gap for key in list(self._open) for gap in self._ripe(key, now_us)]

    def _out_of_turn(self, key: _Key, boot: Boot | None, stamp: Stamp, stored_us: int) -> None:
        seq, boot_id = stamp.seq, stamp.boot_id
        if seq is None or seq < 1 or not boot_id:
            return
        if boot is None:
            boot = self._boots[key] = Boot(
                host=stamp.host,
                source=stamp.source,
                boot_id=boot_id,
                last=seq,
                ts_utc=stamp.ts_utc,
                seen_us=stored_us,
            )
            began_ms = ids.unix_ms(boot_id)
            if seq > 1 and began_ms is not None and began_ms * 1000 >= self.since_us:
                began = times.format_us(began_ms * 1000)
                self._miss(key, boot, (1, seq - 1), stored_us, began, stamp.ts_utc)
            self._forget()
        elif seq > boot.last:
            self._miss(key, boot, (boot.last + 1, seq - 1), stored_us, boot.ts_utc, stamp.ts_utc)
            boot.last, boot.ts_utc, boot.seen_us = seq, stamp.ts_utc, stored_us
        else:
            self._late(key, boot, seq, stored_us)

    def _miss(
        self,
        key: _Key,
        boot: Boot,
        numbers: tuple[int, int],
        stored_us: int,
        from_time: str,
        to_time: str,
    ) -> None:
        boot.holes = [
            *boot.holes,
            Hole(
                runs=[numbers],
                since_us=stored_us,
                from_time=from_time,
                to_time=to_time,
            ),
        ]
        if len(boot.holes) > MOST_HOLES:
            boot.holes = _fewer(boot.holes)
        self._open[key] = boot

    def _late(self, key: _Key, boot: Boot, seq: int, stored_us: int) -> None:
        for hole in boot.holes:
            if not hole.fill(seq):
                continue
            if hole.gap:
                hole.found_us = hole.found_us or stored_us
            elif not hole.left:
                boot.holes = [other for other in boot.holes if other is not hole]
                if not boot.holes:
                    self._open.pop(key, None)
            return

    def _ripe(self, key: _Key, now_us: int) -> Iterator[Gap]:
        boot = self._boots[key]
        ripe, others = [], []
        for hole in boot.holes:
            # a clock that was set back must not make anything wait for that time again
            hole.since_us = min(hole.since_us, now_us)
            if hole.gap:
                yield from self._late_news(boot, hole, now_us)
                if hole.left and now_us - hole.since_us < REMEMBERED:
                    others.append(hole)
            elif now_us - hole.since_us >= self._grace_us:
                ripe.append(hole)
            else:
                others.append(hole)
        boot.told_us = min(boot.told_us, now_us)
        if ripe and now_us - boot.told_us < self._grace_us:  # not an event for each hole
            others += ripe
        elif ripe:
            told = _merged(ripe)
            gap = _lost(boot, told)
            told.gap, told.count, told.since_us, boot.told_us = gap.id, gap.lost, now_us, now_us
            others.append(told)
            yield gap
        boot.holes = others
        if not others:
            del self._open[key]

    def _late_news(self, boot: Boot, hole: Hole, now_us: int) -> Iterator[Gap]:
        """What came late of a hole that was told: at once when it is whole, else after a while."""
        if not hole.found_us:
            return
        hole.found_us = min(hole.found_us, now_us)
        if hole.left and now_us - hole.found_us < self._grace_us:
            return
        hole.found_us = 0
        left = hole.left
        yield Gap(
            id=ids.derived(_ms(hole.to_time), "filled", hole.gap, str(left)),
            host=boot.host,
            source=boot.source,
            boot_id=boot.boot_id,
            lost=left,
            found=hole.count - left,
            gap=hole.gap,
            from_time=hole.from_time,
            to_time=hole.to_time,
        )

    def _forget(self) -> None:
        if len(self._boots) <= MOST_BOOTS:
            return
        oldest = sorted(self._boots, key=lambda key: self._boots[key].seen_us)
        for key in oldest[: MOST_BOOTS // 8]:
            boot = self._boots.pop(key)
            self._open.pop(key, None)
            # should it speak again it is new to us, and must not be taken for one that lost its
            # first numbers
            began_ms = ids.unix_ms(boot.boot_id)
            self.since_us = max(self.since_us, (began_ms or 0) * 1000 + 1)


def _lost(boot: Boot, hole: Hole) -> Gap:
    who = (boot.host, boot.source, boot.boot_id)
    numbers = ",".join(f"{first}-{last}" for first, last in hole.runs)
    return Gap(
        id=ids.derived(_ms(hole.to_time), "gap", *who, str(hole.more), numbers),
        host=boot.host,
        source=boot.source,
        boot_id=boot.boot_id,
        first=hole.runs[0][0] if hole.runs else 0,
        last=hole.runs[-1][1] if hole.runs else 0,
        lost=hole.left,
        from_time=hole.from_time,
        to_time=hole.to_time,
    )


def _merged(holes: list[Hole]) -> Hole:
    runs = [run for hole in holes for run in hole.runs]
    counted, known = runs[:-MOST_RUNS], runs[-MOST_RUNS:]
    return Hole(
        runs=known,
        more=sum(hole.more for hole in holes) + sum(last - first + 1 for first, last in counted),
        since_us=holes[0].since_us,
        from_time=holes[0].from_time,
        to_time=holes[-1].to_time,
    )


def _fewer(holes: list[Hole]) -> list[Hole]:
    """One hole less: of those that were told the oldest is forgotten, else the oldest two of those
    that wait become one."""
    for at, hole in enumerate(holes):
        if hole.gap:
            return [*holes[:at], *holes[at + 1 :]]
    return [_merged(holes[:2]), *holes[2:]]


def _ms(time: str) -> int:
    try:
        return max(times.parse_us(time) // 1000, 0)
    except ValueError:
        return 0
