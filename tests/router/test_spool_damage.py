"""Damage in the spool: whatever lies in the folder is set aside and named, and blocks nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from opsmesh.router import spool
from opsmesh.router.spool_reader import SpoolReader

LINES = [b'{"topic":"a.b","n":%d}' % n for n in range(3)]
GOOD = b'{"topic":"a.b","id":"good"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spool whose agent has begun."""
    reader = SpoolReader(str(tmp_path / "spool"))
    reader.open(1 << 30, "refuse")
    return tmp_path / "spool"


def flip(position: Callable[[bytes], int]) -> Callable[[Path], None]:
    """One bit of a file, at the place that the function finds in its bytes."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[position(bytes(data))] ^= 1
        path.write_bytes(data)

    return damage


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else under the file's name."""

    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def cut(size: Callable[[bytes], int]) -> Callable[[Path], None]:
    """The file's beginning alone."""

    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: size(data)])

    return damage


def zero(path: Path) -> None:
    """What some file systems leave of a file after a power cut."""
    path.write_bytes(bytes(4096))


#: What happens to a file, and which of its events can still be read.
DAMAGE: dict[str, tuple[Callable[[Path], None], list[int]]] = {
    "a bit in a checksum": (flip(lambda _: 3), [1, 2]),
    "a bit in the space after it": (flip(lambda _: 8), [1, 2]),
    "a bit in a payload": (flip(lambda _: 12), [1, 2]),
    "a bit in a line break": (flip(lambda data: data.index(b"\n")), [2]),
    "a bit in the end": (flip(lambda data: len(data) - 2), [0, 1, 2]),
    "cut inside a record": (cut(lambda data: data.index(b"\n") + 5), [0]),
    "cut between records": (cut(lambda data: data.index(b"\n") + 1), [0]),
    "without its end": (cut(lambda data: data.rindex(b"\n", 0, -1) + 1), [0, 1, 2]),
    "empty": (cut(lambda _: 0), []),
    "zeros": (zero, []),
    "a folder": (replaced(lambda path: path.mkdir()), []),
    "a folder with something in it": (replaced(lambda path: (path / "x").mkdir(parents=True)), []),
    "a link": (replaced(lambda path: path.symlink_to("/etc/hostname")), []),
    "a link to nothing": (replaced(lambda path: path.symlink_to("nothing")), []),
    "a pipe": (replaced(os.mkfifo), []),
}


@pytest.mark.parametrize("kind", list(DAMAGE))
def test_damage_is_set_aside_and_the_rest_goes_on(folder: Path, kind: str) -> None:
    """What can be read of the file is sent, what cannot lies in `corrupt`, and its neighbours
    are as they were; the next look finds nothing wrong any more."""
    damage, left = DAMAGE[kind]
    path = Path(spool.write(str(folder), LINES))
    damage(path)
    spool.write(str(folder), [GOOD])
    reader = SpoolReader(str(folder))
    files, rest = reader.read(reader.names())
    assert [line for file in files for line in file.lines] == [*(LINES[n] for n in left), GOOD]
    assert not rest
    assert [found.name for found in (folder / "corrupt").iterdir()] == [path.name]
    for file in files:
        assert spool.read(f"{folder}/{file.name}") == (file.lines, [])
        reader.remove(file.name)
    assert reader.rest()


def test_a_file_without_permission_is_set_aside() -> None:
    """An agent that may not read a file moves it away, for whom may."""
    with tempfile.TemporaryDirectory() as outside:  # the folders of pytest are root's alone
        folder = Path(outside, "spool")
        path = Path(spool.write(str(folder), LINES))
        spool.write(str(folder), [GOOD])
        path.chmod(0)
        code = f"""
import os
from opsmesh.router.spool_reader import SpoolReader
if os.getuid() == 0:  # who may read everything
    for name in ("", "spool", *("spool/" + name for name in os.listdir({str(folder)!r}))):
        os.chown(os.path.join({outside!r}, name), 65534, 65534)
    os.seteuid(65534)
reader = SpoolReader({str(folder)!r})
print([file.lines for file in reader.read(reader.names())[0]])
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.stdout.splitlines()[-1:] == [str([[GOOD]])], done.stderr
        assert [found.name for found in (folder / "corrupt").iterdir()] == [path.name]


def test_damage_is_named_once(folder: Path) -> None:
    """The log names the file and where it lies now; the next looks say nothing."""
    path = Path(spool.write(str(folder), LINES))
    flip(lambda _: 12)(path)
    reader = SpoolReader(str(folder))
    with capture_logs() as said:
        for _ in range(3):
            reader.read(reader.names())
    [line] = [one for one in said if one["event"] == "spool.corrupt"]
    assert f"corrupt/{path.name}" in str(line)


def test_what_cannot_be_set_aside_blocks_nothing(folder: Path) -> None:
    """With no way to move it, a damaged file is left out, named once, and tried again later."""
    path = Path(spool.write(str(folder), LINES))
    flip(lambda _: 12)(path)
    (folder / "corrupt").write_text("not a folder")
    spool.write(str(folder), [GOOD])
    reader = SpoolReader(str(folder))
    for _ in range(3):
        files, _ = reader.read(reader.names())
        assert [file.lines for file in files] == [[GOOD]]
    assert path.exists()
    assert reader.facts()["unreadable"] == [path.name]


def test_too_many_open_files_is_no_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not the file's own stops this look, and nothing is set aside."""
    spool.write(str(folder), LINES)

    def too_many(path: str) -> None:
        raise OSError(24, "Too many open files", path)

    monkeypatch.setattr(spool, "read", too_many)
    reader = SpoolReader(str(folder))
    with pytest.raises(OSError, match="Too many open files"):
        reader.read(reader.names())
    assert not (folder / "corrupt").exists()
