"""Verification: every kind of tampering is named with its file and line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from opsmesh.handlers.evidence import lines, segments
from opsmesh.handlers.evidence.verify import verify
from tests.evidence.made import (
    DAY,
    MORNING,
    archive,
    change,
    event,
    opened,
    paths,
    resealed,
)

Change = Callable[[list[bytes]], None]


def edit(raws: list[bytes]) -> None:
    raws[4] = raws[4].replace(b'"n":', b'"m":')


def edit_time(raws: list[bytes]) -> None:
    raws[4] = raws[4].replace(b'"time":"2026', b'"time":"2025')


def edit_prev(raws: list[bytes]) -> None:
    head, key, rest = raws[4].partition(b'"prev":"')
    raws[4] = head + key + b"f" * 64 + rest[64:]


def edit_hash(raws: list[bytes]) -> None:
    raws[4] = raws[4].replace(raws[4][-67:-3], b"0" * 64)


def edit_and_reseal(raws: list[bytes]) -> None:
    raws[4] = resealed(raws[4], b'"n":', b'"m":')


def remove(raws: list[bytes]) -> None:
    del raws[4:6]


def remove_first(raws: list[bytes]) -> None:
    del raws[0]


def insert(raws: list[bytes]) -> None:
    prev = lines.parse(raws[3])
    assert prev is not None
    raws.insert(4, lines.of_event("EVENTS", 5, prev.time, prev.hash, event(99))[0])


def insert_junk(raws: list[bytes]) -> None:
    raws.insert(4, lines.of_event("EVENTS", 5, "2026", "c" * 64, event(99))[0])


def copy(raws: list[bytes]) -> None:
    raws.insert(7, raws[3])


def swap(raws: list[bytes]) -> None:
    raws[4], raws[5] = raws[5], raws[4]


def move(raws: list[bytes]) -> None:
    raws.insert(1, raws.pop(6))


def garbage(raws: list[bytes]) -> None:
    raws[4:6] = [b"what\n", b"\xff\n"]


def cut_line(raws: list[bytes]) -> None:
    raws[4] = raws[4][:50] + b"\n"


@pytest.mark.parametrize(
    ("how", "found"),
    [
        (edit, [("edited", 5)]),
        (edit_time, [("edited", 5)]),
        (edit_prev, [("edited", 5)]),
        (edit_hash, [("edited", 5)]),
        (edit_and_reseal, [("edited", 5)]),
        (remove, [("removed", 5)]),
        (remove_first, [("removed", 1)]),
        (insert, [("inserted", 5)]),
        (insert_junk, [("inserted", 5)]),
        (copy, [("inserted", 8)]),
        (swap, [("reordered", 6)]),
        (move, [("reordered", 2)]),
        (garbage, [("unreadable", 5)]),
        (cut_line, [("unreadable", 5)]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_tampering_is_named_with_its_line(
    tmp_path: Path, how: Change, found: list[tuple[str, int]]
) -> None:
    """One change is one problem, at its own line, wherever the segment stands."""
    for middle in (0, 1):
        folder = tmp_path / str(middle)
        made = archive(folder, 60, step_us=DAY // 20)
        change(made[middle], how)
        report = verify(folder)
        assert [(p.kind, p.line) for p in report.problems] == found, report.problems
        assert {p.file for p in report.problems} == {made[middle].relative_to(folder).as_posix()}


def test_expected_and_found_hashes_are_told(tmp_path: Path) -> None:
    """A changed line is reported with the hash that it claims and the one that it has."""
    [path] = archive(tmp_path, 3)
    change(path, lambda raws: raws.__setitem__(1, raws[1].replace(b'"n":2', b'"n":7')))
    [problem] = verify(tmp_path).problems
    raw = path.read_bytes().splitlines(keepends=True)[1]
    assert (problem.expected, problem.found) == (raw[-67:-3].decode(), lines.digest(raw))


def test_goes_on_after_the_first_problem(tmp_path: Path) -> None:
    """Several changes in several files are all found."""
    made = archive(tmp_path, 60, step_us=DAY // 20)
    change(made[0], edit)
    change(made[1], remove)
    change(made[1], lambda raws: raws.__setitem__(0, resealed(raws[0], b'"n":', b'"m":')))
    change(made[2], swap)
    kinds = [(p.kind, Path(p.file).name[:2], p.line) for p in verify(tmp_path).problems]
    assert kinds == [
        ("edited", "23", 5),
        ("edited", "24", 1),
        ("removed", "24", 5),
        ("reordered", "25", 6),
    ]


def test_last_line_of_a_segment_resealed(tmp_path: Path) -> None:
    """A changed last line is named in its own file though only the next file shows it."""
    made = archive(tmp_path, 30, step_us=DAY // 10)
    count = len(made[0].read_bytes().splitlines())
    change(made[0], lambda raws: raws.__setitem__(-1, resealed(raws[-1], b'"n":', b'"m":')))
    [problem] = verify(tmp_path).problems
    assert (problem.kind, problem.file, problem.line) == (
        "edited",
        made[0].relative_to(tmp_path).as_posix(),
        count,
    )


def test_missing_segment(tmp_path: Path) -> None:
    """A file that is gone is named by its number and the sequences it held."""
    made = archive(tmp_path, 30, step_us=DAY // 10)
    made[1].unlink()
    [problem] = verify(tmp_path).problems
    assert problem.kind == "missing segment"
    assert "segment 2 before this file is missing" in problem.message
    assert (problem.file, problem.line) == (made[2].relative_to(tmp_path).as_posix(), 1)


def test_first_segment_missing(tmp_path: Path) -> None:
    """The beginning cannot go missing unseen."""
    archive(tmp_path, 30, step_us=DAY // 10)[0].unlink()
    assert [p.kind for p in verify(tmp_path).problems] == ["missing segment"]


@pytest.mark.parametrize("whole_file", [False, True])
def test_removed_end(tmp_path: Path, whole_file: bool) -> None:
    """Lines or files removed at the end are seen against the noted end."""
    made = archive(tmp_path, 30, step_us=DAY // 10)
    if whole_file:
        made[-1].unlink()
    else:
        change(made[-1], lambda raws: raws.__delitem__(-1))
    [problem] = verify(tmp_path).problems
    assert problem.kind == "truncated"
    assert "sequence 30" in problem.message


def test_everything_removed(tmp_path: Path) -> None:
    """An archive without a single file left is not intact."""
    for path in archive(tmp_path, 30, step_us=DAY // 10):
        path.unlink()
    assert [p.kind for p in verify(tmp_path).problems] == ["truncated"]


def test_very_last_line_resealed(tmp_path: Path) -> None:
    """The last line, which no other line vouches for, is vouched for by the noted end."""
    [path] = archive(tmp_path, 3)
    change(path, lambda raws: raws.__setitem__(-1, resealed(raws[-1], b'"n":', b'"m":')))
    [problem] = verify(tmp_path).problems
    assert (problem.kind, problem.line) == ("edited", 3)


def test_torn_tail_is_no_tampering(tmp_path: Path) -> None:
    """A last line without its end leaves the archive intact, and is reported as torn."""
    [path] = archive(tmp_path, 3)
    with path.open("ab") as file:
        file.write(b'{"stream":"EVENTS","seq":4')
    report = verify(tmp_path)
    assert report.intact
    assert report.torn is not None
    assert (report.torn.line, report.torn.bytes, report.lines) == (4, 26, 3)


def test_file_cut_short_in_the_middle_of_the_archive(tmp_path: Path) -> None:
    """Only the last file may end in a torn line; in an earlier one it is damage."""
    made = archive(tmp_path, 30, step_us=DAY // 10)
    data = made[0].read_bytes()
    count = len(data.splitlines())
    made[0].write_bytes(data[:-20])
    [problem] = verify(tmp_path).problems
    assert (problem.kind, problem.line) == ("unreadable", count)


def test_since_reads_only_later_days(tmp_path: Path) -> None:
    """With `since`, earlier files are not looked at, and the first line's `prev` is believed."""
    made = archive(tmp_path, 30, step_us=DAY // 10)
    change(made[0], edit)
    report = verify(tmp_path, since=date(2026, 11, 24))
    assert (report.intact, report.segments) == (True, len(made) - 1)
    assert not verify(tmp_path).intact


def test_progress_ends_with_everything(tmp_path: Path) -> None:
    """Progress is told in bytes and ends with all of them."""
    archive(tmp_path, 30, step_us=DAY // 10)
    told: list[tuple[int, int]] = []
    verify(tmp_path, progress=lambda done, total: told.append((done, total)))
    total = sum(path.stat().st_size for path in paths(tmp_path))
    assert told[-1] == (total, total)


def test_any_single_changed_byte_is_found(tmp_path: Path) -> None:
    """Whichever byte is changed, verify names its line."""
    [path] = archive(tmp_path, 3)
    data = path.read_bytes()
    second = data.index(b"\n") + 1
    third = data.index(b"\n", second) + 1
    for at in range(second, third - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert [p.line for p in verify(tmp_path).problems] == [2], at
    path.write_bytes(data)
    assert verify(tmp_path).intact


def test_head_that_is_gone_is_no_problem(tmp_path: Path) -> None:
    """Without head.json the chain is checked all the same, and the report says so."""
    archive(tmp_path, 3)
    (tmp_path / segments.HEAD).unlink()
    report = verify(tmp_path)
    assert (report.intact, report.head) == (True, False)


def with_duplicate(folder: Path) -> Path:
    """Three events, a note in the place of a fourth, and a fifth."""
    with opened(folder) as made:
        for seq in (1, 2, 3):
            made.event(seq, MORNING, event(seq))
        made.duplicate(4, MORNING, {"of": 2, "of_hash": made.hash, "id": "x"})
        made.event(5, MORNING, event(5))
        made.commit()
    [path] = paths(folder)
    return path


def test_duplicate_stands_in_the_place_of_its_message(tmp_path: Path) -> None:
    """A note of a duplicate counts like the message that it stands for."""
    with_duplicate(tmp_path)
    report = verify(tmp_path)
    assert (report.intact, report.first_seq, report.last_seq) == (True, 1, 5)
    assert [note.facts["of"] for note in report.notes] == [2]


@pytest.mark.parametrize(
    ("how", "kinds"),
    [
        (lambda raws: raws.pop(3), ["removed"]),
        (lambda raws: raws.__setitem__(3, raws[3].replace(b'"of":2', b'"of":3')), ["edited"]),
        (lambda raws: raws.insert(3, raws.pop(1)), ["reordered"]),
    ],
    ids=["removed", "edited", "reordered"],
)
def test_duplicate_cannot_be_tampered_with(
    tmp_path: Path, how: Callable[[list[bytes]], None], kinds: list[str]
) -> None:
    """A note of a duplicate that is taken out, changed or moved is found, and nothing else is."""
    change(with_duplicate(tmp_path), how)
    assert [problem.kind for problem in verify(tmp_path).problems] == kinds
