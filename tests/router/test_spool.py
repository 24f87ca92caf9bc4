"""The spool: whole files, in order, and damage that stays where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.router import spool

LINES = [b'{"topic":"a.b","n":%d}' % n for n in range(5)]


def test_read_gives_what_was_written(tmp_path: Path) -> None:
    """Every line comes back as it was, in its order."""
    assert spool.read(spool.write(str(tmp_path), LINES)) == (LINES, [])


def test_missing_folders_are_made_private(tmp_path: Path) -> None:
    """The first write makes the spool, and what is missing above it, for its owner alone."""
    folder = tmp_path / "state" / "opsmesh" / "spool"
    path = Path(spool.write(str(folder), LINES))
    for made in (folder, folder.parent, folder.parent.parent):
        assert made.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


def test_names_are_in_the_order_of_writing(tmp_path: Path) -> None:
    """Names sort as their files were written, within one clock tick too."""
    paths = [spool.write(str(tmp_path), [line]) for line in LINES * 10]
    assert [f"{tmp_path}/{name}" for name in spool.names(str(tmp_path))] == paths


def test_a_missing_spool_is_empty(tmp_path: Path) -> None:
    """A folder that was never made holds nothing."""
    assert spool.names(str(tmp_path / "none")) == []


def test_line_breaks_cannot_split_a_record(tmp_path: Path) -> None:
    """Pretty-printed JSON stays one record: a raw line break in JSON is white space."""
    path = spool.write(str(tmp_path), [b'{\n "a":\r\n 1}\n'])
    assert spool.read(path) == ([b'{  "a":   1}'], [])


def test_a_damaged_record_spoils_no_other(tmp_path: Path) -> None:
    """One flipped byte costs one record."""
    path = Path(spool.write(str(tmp_path), LINES))
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"n":2', b'"n":7'))
    good, corrupt = spool.read(str(path))
    assert good == [LINES[0], LINES[1], LINES[3], LINES[4]]
    assert len(corrupt) == 1
    assert b'"n":7' in corrupt[0]


@given(cut=st.integers(min_value=0, max_value=200))
def test_a_torn_file_keeps_its_whole_records(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """However a file is cut, the records before the cut are read, and no wrong one is."""
    folder = tmp_path_factory.mktemp("spool")
    path = Path(spool.write(str(folder), LINES))
    path.write_bytes(path.read_bytes()[:cut])
    good, _ = spool.read(str(path))
    assert good == LINES[: len(good)]
    assert len(good) >= min(5, cut // len(b"00000000 " + LINES[0] + b"\n"))


def test_set_aside_keeps_the_damaged_records(tmp_path: Path) -> None:
    """Damaged records lie in `corrupt`, outside the order; a repetition changes nothing."""
    for _ in range(2):
        kept = spool.set_aside(str(tmp_path), "x.spool", [b"bad one", b"bad two"])
        assert Path(kept).read_bytes() == b"bad one\nbad two\n"
    assert spool.names(str(tmp_path)) == []


def test_rewrite_keeps_the_place(tmp_path: Path) -> None:
    """A file with fewer events keeps its name."""
    path = spool.write(str(tmp_path), LINES)
    spool.rewrite(path, LINES[3:])
    assert spool.read(path) == (LINES[3:], [])
    assert spool.names(str(tmp_path)) == [Path(path).name]


def test_unfinished_files_are_not_read_and_go_in_time(tmp_path: Path) -> None:
    """What a process left half written is never an event; an hour later it is removed."""
    new, old = tmp_path / ".1-1-1.spool", tmp_path / ".0-1-1.spool"
    new.write_bytes(b"half")
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    spool.sweep(str(tmp_path))
    assert spool.names(str(tmp_path)) == []
    assert new.exists()
    assert not old.exists()
