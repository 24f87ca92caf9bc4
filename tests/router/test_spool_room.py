"""A bounded spool: the gauge, what each policy does, and losses that are counted first."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from opsmesh.router import losses, spool, spool_overflow, spool_room
from opsmesh.router.spool_reader import SpoolReader
from opsmesh.router.spool_room import BLOCK, Full, Gauge


def line(n: int, source: str = "test") -> bytes:
    at = f"2026-11-23T09:{n:02d}:00.000000Z"
    return json.dumps({"topic": "a.b", "id": str(n), "source": source, "ts_utc": at}).encode()


def left(folder: Path) -> list[str]:
    """Ids of the events that wait."""
    names = spool.names(str(folder))
    return [json.loads(one)["id"] for n in names for one in spool.read(f"{folder}/{n}")[0]]


def lost(folder: Path) -> dict[str, int]:
    """Events lost, by source."""
    return {loss.source: loss.events for loss in losses.total(str(folder))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def bound(folder: Path, files: int, policy: str) -> None:
    """Room for so many small files."""
    spool_room.set_limits(str(folder), files * BLOCK, policy)


def test_the_gauge_counts_blocks(folder: Path) -> None:
    """A small file counts one block, a larger one what it takes on disk."""
    spool.write(str(folder), [line(1)])
    spool.write(str(folder), [b'{"x":"' + b"x" * 2 * BLOCK + b'"}'])
    assert Gauge(str(folder)).used == 4 * BLOCK == spool_overflow.count(str(folder))


def test_refuse_leaves_the_event_with_its_caller(folder: Path) -> None:
    """The error names the limit and the command; what waits stays, and nothing is lost."""
    bound(folder, 2, "refuse")
    for n in range(2):
        spool.write(str(folder), [line(n)])
    with pytest.raises(Full, match=r"spool.max_bytes 8192; see: opsmesh spool ls"):
        spool.write(str(folder), [line(2)])
    assert (left(folder), lost(folder)) == (["0", "1"], {})


def test_drop_newest_counts_the_new(folder: Path) -> None:
    """What waits stays, what comes is counted by its source."""
    bound(folder, 2, "drop_newest")
    for n in range(4):
        written = spool.write(str(folder), [line(n)])
        assert bool(written) == (n < 2)
    assert (left(folder), lost(folder)) == (["0", "1"], {"test": 2})


def test_drop_oldest_makes_room(folder: Path) -> None:
    """The oldest go, a tenth of the limit at a time, and are counted; the new ones are kept."""
    bound(folder, 20, "drop_oldest")
    for n in range(30):
        spool.write(str(folder), [line(n, "old" if n < 5 else "new")])
    ids = left(folder)
    assert ids == [str(n) for n in range(30 - len(ids), 30)]
    assert len(ids) in (18, 19, 20)
    assert sum(lost(folder).values()) == 30 - len(ids)
    assert lost(folder)["old"] == 5
    assert Gauge(str(folder)).used == len(ids) * BLOCK


def test_drop_oldest_keeps_what_is_being_sent(folder: Path) -> None:
    """A file that the agent is sending is never dropped under its hands."""
    bound(folder, 3, "drop_oldest")
    first = Path(spool.write(str(folder), [line(0)])).name
    for n in range(1, 10):
        spool.write(str(folder), [line(n)], busy={first})
    assert left(folder)[0] == "0"


def test_what_never_fits_is_refused(folder: Path) -> None:
    """An event larger than the whole limit is its caller's, whatever the policy."""
    bound(folder, 2, "drop_oldest")
    spool.write(str(folder), [line(0)])
    with pytest.raises(Full):
        spool.write(str(folder), [b'{"x":"' + b"x" * 4 * BLOCK + b'"}'])
    assert left(folder) == ["0"]


def test_files_that_a_person_removed_make_room(folder: Path) -> None:
    """A gauge that says full is counted anew when it has not changed for a moment."""
    bound(folder, 2, "refuse")
    paths = [Path(spool.write(str(folder), [line(n)])) for n in range(2)]
    for path in paths:
        path.unlink()
    os.utime(folder / spool_room.GAUGE, (0, 0))
    spool.write(str(folder), [line(2)])
    assert left(folder) == ["2"]


def test_without_a_gauge_nothing_is_refused(folder: Path) -> None:
    """An event is worth more than the count of its bytes."""
    bound(folder, 1, "refuse")
    (folder / spool_room.GAUGE).mkdir()
    for n in range(3):
        spool.write(str(folder), [line(n)])
    assert left(folder) == ["0", "1", "2"]


@pytest.mark.parametrize("text", ["", "nonsense", "-5 refuse", "4096 maybe", "x" * 5000])
def test_unreadable_limits_are_the_defaults(folder: Path, text: str) -> None:
    """A damaged file of limits stops nobody."""
    (folder / spool_room.LIMITS).write_text(text)
    assert spool_room.limits(str(folder)) == (spool_room.MAX_BYTES, "refuse")


def test_a_writer_is_seen_at_once(folder: Path) -> None:
    """After `rest`, `untouched` is False as soon as anybody's `write` has returned."""
    reader = SpoolReader(str(folder))
    reader.open(1 << 30, "refuse")
    assert reader.rest()
    assert reader.untouched
    path = Path(spool.write(str(folder), [line(0)]))
    assert not reader.untouched
    assert not reader.rest()
    reader.remove(path.name)
    assert reader.rest()
    assert reader.untouched


def test_a_removed_gauge_is_noticed(folder: Path) -> None:
    """A gauge that a person has removed is never believed."""
    reader = SpoolReader(str(folder))
    reader.open(1 << 30, "refuse")
    assert reader.rest()
    (folder / spool_room.GAUGE).unlink()
    assert not reader.untouched
    assert reader.rest()
    assert reader.untouched


def test_a_counted_file_is_not_sent(folder: Path) -> None:
    """Killed between counting a file and removing it: the next agent removes it, and counts it
    once."""
    path = Path(spool.write(str(folder), [line(0)]))
    losses.record(str(folder), path.name, [line(0)], "drop_oldest")
    spool_overflow.give_up(str(folder), [path.name], "drop_oldest")  # the same, again
    path.write_text("")
    SpoolReader(str(folder)).open(1 << 30, "refuse")
    assert not path.exists()
    assert lost(folder) == {"test": 1}


def test_losses_are_added_up_once(folder: Path) -> None:
    """A closed log is in the total once, also when a crash repeats the step; a half record at the
    end of a log spoils no other."""
    for n in range(3):
        losses.record(str(folder), f"file-{n}", [line(n), line(n + 5, "other")], "drop_oldest")
    with (folder / losses.LOG).open("ab") as log:
        log.write(b'\ndeadbeef {"name":"half')
    losses.record(str(folder), "file-9", [line(9)], "drop_newest")
    losses.freeze(str(folder))
    losses.freeze(str(folder))
    (name,) = losses.frozen(str(folder))
    again = (folder / name).read_bytes()
    losses.close(str(folder), name)
    (folder / name).write_bytes(again)  # as if the removal had not reached the disk
    assert losses.frozen(str(folder)) == []
    losses.freeze(str(folder))
    assert not (folder / name).exists()
    losses.record(str(folder), "file-10", [line(10)], "drop_newest")
    found = {loss.source: loss for loss in losses.total(str(folder))}
    assert {name: loss.events for name, loss in found.items()} == {"test": 5, "other": 3}
    assert found["test"].from_time == "2026-11-23T09:00:00.000000Z"
    assert found["test"].to_time == "2026-11-23T09:10:00.000000Z"
    assert found["test"].reasons == ("drop_newest", "drop_oldest")


def test_the_log_of_losses_stays_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that grows without an agent is drawn together, and counts the same."""
    monkeypatch.setattr(losses, "MAX_LOG", 2000)
    for n in range(100):
        losses.record(str(folder), f"file-{n}", [line(n % 60)], "drop_newest")
    assert lost(folder) == {"test": 100}
    size = sum(path.stat().st_size for path in folder.glob("dropped*"))
    assert size < 100 * 60


def test_a_clock_set_back_loses_no_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log closed at an earlier time than the last one that was told is told all the same."""
    for now in (2_000_000_000, 1_000_000_000):
        monkeypatch.setattr("opsmesh.router.losses.time.time_ns", lambda now=now: now)
        losses.record(str(folder), f"file-{now}", [line(1)], "drop_newest")
        losses.freeze(str(folder))
        (name,) = losses.frozen(str(folder))
        losses.close(str(folder), name)
    assert lost(folder) == {"test": 2}
