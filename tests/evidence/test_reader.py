"""Reading the archive: the right messages in order, and new ones as they come."""

from __future__ import annotations

import threading
from pathlib import Path

from opsmesh.handlers.evidence import reader
from tests.evidence.made import DAY, MORNING, archive, event, opened, paths


def seqs(folder: Path, **how: object) -> list[int]:
    return [item.seq for item in reader.read(folder, **how)]  # type: ignore[arg-type]


def test_reads_everything_in_order(tmp_path: Path) -> None:
    """Every message comes once, in the archive's order, with its bytes and store time."""
    archive(tmp_path, 20, segment_bytes=1000)
    found = list(reader.read(tmp_path))
    assert [item.seq for item in found] == list(range(1, 21))
    assert found[4] == reader.Archived("EVENTS", 5, MORNING + 5000, event(5))


def test_since_and_until(tmp_path: Path) -> None:
    """`since` is included, `until` is not."""
    archive(tmp_path, 10)
    assert seqs(tmp_path, since_us=MORNING + 3000, until_us=MORNING + 6000) == [3, 4, 5]


def test_other_days_are_not_opened(tmp_path: Path) -> None:
    """A segment of a day that was not asked for is not even read."""
    made = archive(tmp_path, 10, step_us=DAY)
    for path in [*made[:4], *made[6:]]:
        path.chmod(0)
        path.unlink()
        path.mkdir()  # opening it would be an error, for root too
    assert seqs(tmp_path, since_us=MORNING + 5 * DAY, until_us=MORNING + 6 * DAY + 1) == [5, 6]


def test_topics(tmp_path: Path) -> None:
    """Topics are matched with NATS wildcards; a message that is no event has none."""
    with opened(tmp_path) as made:
        for seq, data in enumerate([event(1, "a.b"), event(2, "a.c"), event(3, "b.c"), b"\0"], 1):
            made.event(seq, MORNING, data)
        made.commit()
    assert seqs(tmp_path, topics=["a.*"]) == [1, 2]
    assert seqs(tmp_path, topics=["b.>", "a.b"]) == [1, 3]
    assert seqs(tmp_path) == [1, 2, 3, 4]


def test_newest_crosses_segments(tmp_path: Path) -> None:
    """The last messages are found across files, oldest first."""
    archive(tmp_path, 30, segment_bytes=700)
    assert [item.seq for item in reader.newest(tmp_path, 7)] == list(range(24, 31))
    assert reader.newest(tmp_path, 0) == []


def test_follow(tmp_path: Path) -> None:
    """What is archived later, also in later segments, arrives once and in order."""
    archive(tmp_path, 5)
    stop = threading.Event()
    found: list[int] = []
    for item in reader.follow(tmp_path, 2, stop=stop):
        found.append(item.seq)
        if item.seq == 5:
            archive(tmp_path, 20, segment_bytes=700)
        if item.seq == 25:
            stop.set()
            break
    assert found == list(range(4, 26))
    assert len(paths(tmp_path)) > 3
