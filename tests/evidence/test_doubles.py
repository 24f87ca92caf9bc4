"""The index of ids and what is found with it, without a broker."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from opsmesh.handlers.evidence import gaps, ids, segments
from opsmesh.handlers.evidence.doubles import CLOCKS, FRESH, Doubles, Stamped
from opsmesh.handlers.evidence.ids import Ids
from opsmesh.schemas.ids import derived, uuid7
from tests.evidence.made import DAY, MORNING, opened

HOUR = 3_600_000_000
SECOND = 1_000_000


def body(id: str, n: int = 0) -> bytes:
    return b'{"topic":"a.b","n":%d,"id":"%s"}' % (n, id.encode())


def message(seq: int, id: str, n: int = 0, *, stored_us: int = MORNING) -> Stamped:
    data = body(id, n)
    return seq, stored_us, data, gaps.stamp(data)


def doubles_of(index: Ids, *, window_s: float = 900) -> Doubles:
    return Doubles(index, window_s=window_s, same=lambda one, other, _: one == other)


class Written:
    """An archive with an index, written as the sink does."""

    def __init__(self, folder: Path, *, segment_bytes: int = 3000) -> None:
        self.archive = opened(folder, segment_bytes=segment_bytes)
        number, size = self.archive.end
        self.index = Ids(folder, number=number, size=size)

    def add(self, *names: str, time_us: int = MORNING) -> None:
        for id in names:
            self.archive.event(self.archive.seq + 1, time_us, body(id))
            self.index.add(id, self.archive.number, self.archive.offset)
        self.archive.commit()
        self.index.write()

    def seqs(self, *names: str, day: str = "") -> list[list[int]]:
        """The sequences of the lines that are found for each id."""
        places = self.index.find(dict.fromkeys(names, day))
        lines = dict(self.index.read([p for found in places.values() for p in found]))
        return [
            [lines[p].seq for p in places.get(id, ()) if p in lines and ids.id_of(lines[p]) == id]
            for id in names
        ]


NAMES = [derived((MORNING + n) // 1000, str(n)) for n in range(200)]


def test_every_id_is_found(tmp_path: Path) -> None:
    """An id is found in segments that ended and in the one being written, and no other id is."""
    made = Written(tmp_path)
    made.add(*NAMES[:150])
    made.add(*NAMES[150:])
    assert len(segments.listing(tmp_path)) > 10
    assert made.seqs(*NAMES) == [[n + 1] for n in range(200)]
    assert made.seqs("", "not-there", uuid7()) == [[], [], []]


def test_index_is_made_again_when_it_is_missing(tmp_path: Path) -> None:
    """An index that is gone, empty or no index is made anew from its segment."""
    made = Written(tmp_path)
    made.add(*NAMES)
    first, second, third, *_ = [ids.path(s) for s in segments.listing(tmp_path)]
    before = first.read_bytes()
    first.unlink()
    second.write_bytes(b"")
    third.write_bytes(b"\0" * 80)
    assert made.seqs(*NAMES) == [[n + 1] for n in range(200)]
    assert first.read_bytes() == before


def test_restart_knows_what_was_written_before(tmp_path: Path) -> None:
    """A new process finds ids of the segment that it goes on with, and its index is whole."""
    made = Written(tmp_path)
    made.add(*NAMES[:95])
    made.archive.close()
    again = Written(tmp_path)
    again.add(*NAMES[95:100])
    assert again.seqs(*NAMES[:100]) == [[n + 1] for n in range(100)]
    again.archive.close()
    third = Written(tmp_path)
    third.add(*NAMES[100:])  # ends the segment without a search in it
    assert third.seqs(*NAMES) == [[n + 1] for n in range(200)]


def test_runs_are_merged(tmp_path: Path) -> None:
    """Searching between small writes keeps few runs, and finds everything."""
    made = Written(tmp_path, segment_bytes=2**20)
    for id in NAMES:
        made.add(id)
        assert made.seqs(id) == [[made.archive.seq]]
    assert len(made.index._runs) < 10


def test_earlier_days_are_left_out(tmp_path: Path) -> None:
    """A search from a day on opens no segment before it."""
    made = Written(tmp_path)
    made.add(NAMES[0])
    made.add(NAMES[1], time_us=MORNING + DAY)
    assert made.seqs(NAMES[0], day="2026-11-24") == [[]]
    assert made.seqs(NAMES[1], day="2026-11-24") == [[2]]


def test_place_is_confirmed_by_its_line(tmp_path: Path) -> None:
    """Lines of every length are read from the places that the index gives."""
    made = Written(tmp_path, segment_bytes=2**20)
    choose = random.Random(7)
    for n, id in enumerate(NAMES):
        data = b'{"id":"%s","x":"%s"}' % (id.encode(), b"y" * choose.randrange(300))
        made.archive.event(n + 1, MORNING, data)
        made.index.add(id, made.archive.number, made.archive.offset)
    made.archive.commit()
    assert made.seqs(*NAMES) == [[n + 1] for n in range(200)]


def test_damaged_segment_is_passed_over(tmp_path: Path) -> None:
    """A segment that cannot be read costs its own events, and no search."""
    made = Written(tmp_path)
    made.add(*NAMES)
    first = segments.listing(tmp_path)[0]
    ids.path(first).unlink()
    first.path.unlink()
    first.path.mkdir()
    assert made.seqs(NAMES[0], NAMES[-1]) == [[], [200]]


@pytest.mark.parametrize(
    ("made_us", "suspicious"),
    [
        (0, False),
        (-30 * SECOND, False),
        (30 * SECOND, False),
        (-90 * SECOND, True),
        (90 * SECOND, True),
        (-HOUR, True),
        (HOUR, True),
    ],
)
def test_only_ids_of_another_age_are_looked_up(
    tmp_path: Path, made_us: int, suspicious: bool
) -> None:
    """An id that was made about when its event was stored costs no search."""
    doubles = doubles_of(Ids(tmp_path))
    id = uuid7((MORNING + made_us) // 1000)
    assert doubles.suspicious(id, MORNING) is suspicious


@pytest.mark.parametrize(
    "id", ["build-42", "6f1f0a34-7c5e-4d0a-9a1f-0f3c2b11aa55", "01A20AF3-5D52-7E10-AE32-25DF3FD2"]
)
def test_foreign_ids_are_looked_up(tmp_path: Path, id: str) -> None:
    """An id that tells no time is always looked up."""
    assert doubles_of(Ids(tmp_path)).suspicious(id, MORNING)


def test_short_window_of_the_broker_shortens_what_is_fresh(tmp_path: Path) -> None:
    """With a duplicate window of 1 s, an id of 600 ms ago is looked up."""
    doubles = doubles_of(Ids(tmp_path), window_s=1)
    assert doubles.suspicious(uuid7((MORNING - 600_000) // 1000), MORNING)
    assert not doubles.suspicious(uuid7((MORNING - 300_000) // 1000), MORNING)


def test_copy_of_an_event_from_the_future_is_not_fresh(tmp_path: Path) -> None:
    """A producer's clock was an hour ahead. An hour later, its event's copy looks as if it had just
    been made; it is looked up all the same, and later nothing is any more."""
    doubles = doubles_of(Ids(tmp_path))
    id = uuid7((MORNING + HOUR) // 1000)
    assert doubles.suspicious(id, MORNING)
    assert doubles.suspicious(id, MORNING + HOUR)
    later_us = MORNING + HOUR + 2 * round(FRESH * 1e6)
    assert not doubles.suspicious(uuid7(later_us // 1000), later_us)


def test_vigilance_has_an_end(tmp_path: Path) -> None:
    """An id from the year 9999 makes the sink look twice for a day, not for ever."""
    doubles = doubles_of(Ids(tmp_path))
    doubles.suspicious(uuid7(253_370_764_800_000), MORNING)
    assert doubles.vigilant_us <= MORNING + CLOCKS + round(FRESH * 1e6)


def test_same_bytes_are_a_duplicate_and_others_are_not(tmp_path: Path) -> None:
    """The original's line is found; another event under the same id is told apart."""
    made = Written(tmp_path)
    made.add(*NAMES)
    doubles = doubles_of(made.index)
    asked = [message(201, NAMES[3]), message(202, NAMES[150], n=9), message(203, uuid7())]
    found = doubles.find(asked, asked)
    assert (found[201].seq, found[201].same) == (4, True)
    assert (found[202].seq, found[202].same) == (151, False)
    assert 203 not in found
    assert not doubles.suspicious(NAMES[150], MORNING + HOUR)  # an id that is none is left alone


def test_copies_in_one_batch(tmp_path: Path) -> None:
    """An original that goes to disk together with its copies is found, and is none itself."""
    made = Written(tmp_path)
    asked = [message(1, NAMES[0]), message(2, NAMES[1]), message(3, NAMES[0])]
    found = doubles_of(made.index).find(asked, asked)
    assert list(found) == [3]
    assert (found[3].seq, found[3].hash, found[3].same) == (1, "", True)
