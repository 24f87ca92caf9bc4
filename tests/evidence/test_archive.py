"""The archive on disk: rotation, crashes, a full disk, one writer."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opsmesh.handlers.errors import ArchiveDamaged
from opsmesh.handlers.evidence import segments
from opsmesh.handlers.evidence.verify import verify
from opsmesh.router.errors import AlreadyRunning
from tests.evidence.made import DAY, MORNING, archive, event, opened, parsed, paths


def test_rotation_by_size_keeps_the_chain(tmp_path: Path) -> None:
    """Segments are no larger than the limit, and the chain goes through all of them."""
    made = archive(tmp_path, 100, segment_bytes=2000)
    assert len(made) > 5
    assert all(path.stat().st_size <= 2000 for path in made)
    report = verify(tmp_path)
    assert (report.intact, report.lines, report.segments) == (True, 100, len(made))


def test_rotation_by_day(tmp_path: Path) -> None:
    """Each segment holds one UTC day and is named after it and its first sequence."""
    archive(tmp_path, 4, step_us=DAY // 2)
    names = [path.relative_to(tmp_path).as_posix() for path in paths(tmp_path)]
    assert names == [
        "2026/11/23-000001-EVENTS-000000000001.jsonl",
        "2026/11/24-000002-EVENTS-000000000002.jsonl",
        "2026/11/25-000003-EVENTS-000000000004.jsonl",
    ]
    assert verify(tmp_path).intact


def test_reopened_archive_goes_on_in_the_same_segment(tmp_path: Path) -> None:
    """A second writer continues the chain where the first one ended."""
    archive(tmp_path, 3)
    assert len(archive(tmp_path, 3)) == 1
    assert [line.seq for line in parsed(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert verify(tmp_path).intact


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    """Files are 0600 and folders 0700."""
    folder = tmp_path / "evidence"
    archive(folder, 1)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in [folder, *folder.glob("2*")]} == {0o700}


@pytest.mark.parametrize(
    "tail",
    [b'{"stream":"EVENTS","seq":4,"ti', b"\0" * 4096, b"\0" * 50 + b"x\n"],
    ids=["cut line", "zeros", "zeros before a line's end"],
)
def test_torn_end_is_set_aside(tmp_path: Path, tail: bytes) -> None:
    """What a crash left at the end is cut, kept in a .torn file, and the chain goes on."""
    [path] = archive(tmp_path, 3)
    with path.open("ab") as file:
        file.write(tail)
    archive(tmp_path, 2)
    assert [line.seq for line in parsed(tmp_path)] == [1, 2, 3, 4, 5]
    assert verify(tmp_path).intact
    [kept] = path.parent.glob("*.torn")
    assert kept.read_bytes() == tail


def test_zeros_between_whole_lines_are_torn(tmp_path: Path) -> None:
    """A page that never reached the disk is torn even when a later one did."""
    [path] = archive(tmp_path, 6)
    raws = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*raws[:3], b"\0" * len(raws[3]), *raws[4:]]))
    (tmp_path / segments.HEAD).unlink()  # it was never noted that these lines were on disk
    with opened(tmp_path) as made:
        assert made.seq == 3


def test_segment_that_never_got_a_line_is_used_again(tmp_path: Path) -> None:
    """A crash between a file's creation and its first line leaves no gap in the numbers."""
    [path] = archive(tmp_path, 3)
    (path.parent / "23-000002-EVENTS-000000000004.jsonl").write_bytes(b'{"str')
    archive(tmp_path, 3, segment_bytes=100)
    assert [segment.number for segment in segments.listing(tmp_path)] == [1, 2, 3, 4]
    assert verify(tmp_path).intact


def test_end_that_holds_no_line_is_not_continued(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """An archive whose last megabytes are garbage is an error, never silently begun anew."""
    monkeypatch.setattr(segments, "TAIL", 1000)
    [path] = archive(tmp_path, 3)
    with path.open("ab") as file:
        file.write(b"x" * 5000)
    with pytest.raises(ArchiveDamaged, match="no whole line in its last 1000 bytes"):
        opened(tmp_path)


def test_lines_removed_at_the_end_are_noted_in_the_chain(tmp_path: Path) -> None:
    """An archive that is shorter than its head says gets a note, and verify shows it for ever."""
    [path] = archive(tmp_path, 5)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    archive(tmp_path, 2)
    report = verify(tmp_path)
    assert report.intact
    assert [note.facts["kind"] for note in report.notes] == ["truncated"]
    assert [line.seq for line in parsed(tmp_path)] == [1, 2, 3, 3, 4, 5]


def test_gap_in_the_sequence_is_a_note(tmp_path: Path) -> None:
    """Messages that the stream no longer had are a line that says from where to where."""
    with opened(tmp_path) as made:
        made.event(5, MORNING, event(5))
        made.event(9, MORNING, event(9))
        made.commit()
    notes = [line.note for line in parsed(tmp_path) if line.kind == "note"]
    assert notes == [
        {"kind": "missing", "from": 1, "to": 4},
        {"kind": "missing", "from": 6, "to": 8},
    ]
    assert verify(tmp_path).intact


def test_one_writer(tmp_path: Path) -> None:
    """A second process is told who has the archive open."""
    with opened(tmp_path), pytest.raises(AlreadyRunning) as caught:
        opened(tmp_path)
    assert caught.value.pid == os.getpid()
    opened(tmp_path).close()


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size`: writes are cut short, then fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_failed_write_is_taken_back_and_can_be_repeated(tmp_path: Path) -> None:
    """A write that the disk cuts short leaves the file as it was; the lines stay staged."""
    archive(tmp_path, 2)
    [path] = paths(tmp_path)
    before = path.read_bytes()
    with opened(tmp_path) as made:
        for seq in range(3, 10):
            made.event(seq, MORNING, event(seq))
        with file_limit(len(before) + 100), pytest.raises(OSError, match="too large"):
            made.commit()
        assert path.read_bytes() == before
        assert made.uncommitted
        made.commit()
    assert [line.seq for line in parsed(tmp_path)] == list(range(1, 10))
    assert verify(tmp_path).intact
