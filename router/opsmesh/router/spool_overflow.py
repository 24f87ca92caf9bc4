"""A full spool: what happens to the event for which there is no room. Imported only then.

The one rule: the user's choice (`spool.when_full`) decides who bears it. `refuse`: the caller, who
gets an error and still has the event. `drop_oldest` and `drop_newest`: an event, which is counted
on disk first (`losses`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from opsmesh.router import losses, spool
from opsmesh.router.spool_room import BLOCK, DROP_NEWEST, DROP_OLDEST, Full, Gauge, blocks, limits

#: Down to what share of the limit the oldest go, and how many files at a time at most: making room
#: looks at every file, and must not be done for each event of a long outage.
LOW_WATER: Final = 0.9
MAX_DROPS: Final = 1000
#: Seconds for which the gauge of a full spool is believed: a person may have removed files.
BELIEVED: Final = 5.0


def make_room(
    spool_dir: str, gauge: Gauge, lines: Sequence[bytes], size: int, *, busy: Collection[str] = ()
) -> bool:
    """Whether these events may be written now; False: they were dropped, and counted.

    Full where the caller has to keep them. Files in `busy` stay.
    """
    max_bytes, policy = limits(spool_dir)
    wanted = blocks(size) * BLOCK
    if policy == DROP_OLDEST and wanted <= max_bytes:
        _drop_oldest(spool_dir, gauge, max_bytes - wanted, int(max_bytes * LOW_WATER), busy)
        return True
    if gauge.age > BELIEVED:
        gauge.set(count(spool_dir))
    if gauge.used + wanted <= max_bytes:
        return True
    if policy == DROP_NEWEST:
        name = f"{time.time_ns():020d}-{os.getpid()}-new"
        losses.record(spool_dir, name, lines, DROP_NEWEST)
        return False
    raise Full(gauge.used, max_bytes)


def count(spool_dir: str) -> int:
    """Bytes of all files in the spool, in whole blocks, counted one by one."""
    return sum(_size(f"{spool_dir}/{name}") for name in spool.names(spool_dir))


def give_up(spool_dir: str, names: Sequence[str], reason: str) -> None:
    """Drop these files: counted first, then removed."""
    losses.record_all(spool_dir, _held(spool_dir, names), reason)
    for name in names:
        spool.remove(f"{spool_dir}/{name}")


def _held(spool_dir: str, names: Sequence[str]) -> Iterator[tuple[str, list[bytes]]]:
    """What each of these files holds, one file in memory at a time."""
    for name in names:
        try:
            good, corrupt = spool.read(f"{spool_dir}/{name}")
        except FileNotFoundError:
            continue
        except OSError:  # nobody can say what it held
            good, corrupt = [], [b""]
        yield name, [*good, *(one for one in corrupt if not one.startswith(spool.NOTE))]


def give_up_damaged(spool_dir: str, name: str, reason: str) -> None:
    """Drop what was set aside under this name: counted, then removed."""
    path = f"{spool_dir}/{spool.CORRUPT}/{name}"
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as opened:
            records = opened.read().split(b"\n")
    except OSError:  # a folder, a link, no permission: nobody can say what it held
        records = [b"?"]
    lost = [record[9:] for record in records if record and not record.startswith(spool.NOTE)]
    if lost:
        losses.record(spool_dir, f"{spool.CORRUPT}/{name}", lost, reason)
    if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
        os.rmdir(path)  # noqa: PTH106
    else:
        spool.remove(path)


def _drop_oldest(spool_dir: str, gauge: Gauge, room: int, low: int, busy: Collection[str]) -> None:
    """Until what is left fits into `room` bytes; and down to `low` where that is soon done."""
    waiting = spool.names(spool_dir)
    sizes = {name: _size(f"{spool_dir}/{name}") for name in waiting}
    used = sum(sizes.values())
    chosen: list[str] = []
    for name in waiting:
        if used <= room and (used <= low or len(chosen) >= MAX_DROPS):
            break
        if name not in busy:
            chosen.append(name)
            used -= sizes[name]
    give_up(spool_dir, chosen, DROP_OLDEST)
    spool.sync_folder(spool_dir)
    gauge.set(used)


def _size(path: str) -> int:
    try:
        return blocks(os.stat(path, follow_symlinks=False).st_size) * BLOCK  # noqa: PTH116
    except FileNotFoundError:
        return 0
