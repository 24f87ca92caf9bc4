"""A power cut: of a disk, only what reached it is left, and the spool there keeps its promise.

ext4 lies on a loop file. The writer is stopped, and the file is copied: the copy holds what the
file system had given to the disk at that moment, and nothing of what was still in memory.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opsmesh.router import losses, spool, spool_room
from opsmesh.router.spool_reader import SpoolReader

#: Events that are reported before each cut: the cuts fall at different moments of a write.
CUTS = (1, 7, 40, 150)

#: Writes for ever, and reports what is kept.
WRITER = """
import itertools, json, os, sys
from opsmesh.router import spool
for n in itertools.count():
    ids = [f"{n}-{part}" for part in range(1 + n % 3)]
    lines = [json.dumps({"topic": "a.b", "id": id, "source": "test"}).encode() for id in ids]
    if spool.write(sys.argv[1], lines):
        os.write(1, "".join(id + "\\n" for id in ids).encode())
"""


@contextmanager
def mounted(image: Path, where: Path) -> Iterator[Path]:
    where.mkdir()
    done = subprocess.run(
        ["mount", "-o", "loop", image, where], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a loop file cannot be mounted here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A small disk: its file, and where it is mounted."""
    if os.geteuid():
        pytest.skip("mounting a loop file needs root")
    if missing := [tool for tool in ("mkfs.ext4", "mount", "cp") if not shutil.which(tool)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with mounted(image, tmp_path / "mnt") as where:
        yield image, where


def reported(writer: subprocess.Popen[bytes], enough: int) -> list[str]:
    """Stop the writer once it has reported so many events; what it had reported by then."""
    assert writer.stdout is not None
    data = b""
    while data.count(b"\n") < enough:
        data += (more := os.read(writer.stdout.fileno(), 65536))
        assert more, "the writer has ended"
    writer.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
    while select.select([writer.stdout], [], [], 0)[0]:
        data += os.read(writer.stdout.fileno(), 65536)
    return data.decode().split()


@pytest.mark.parametrize("policy", ["refuse", "drop_oldest"])
def test_what_was_kept_survives_a_power_cut(
    disk: tuple[Path, Path], tmp_path: Path, policy: str
) -> None:
    """After each cut every event that `write` returned for is there or counted, in order, and
    nothing is half."""
    image, where = disk
    folder = where / "state" / "spool"
    folder.mkdir(parents=True)
    size = 16 << 20 if policy == "refuse" else 12 * spool_room.BLOCK
    spool_room.set_limits(str(folder), size, policy)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE)
    kept: list[str] = []
    try:
        for n, enough in enumerate(CUTS):
            kept += reported(writer, enough)
            copy = tmp_path / f"copy-{n}"
            subprocess.run(["cp", "--sparse=always", image, copy], check=True)
            with mounted(copy, tmp_path / f"after-{n}") as after:
                check(after / "state" / "spool", kept)
            copy.unlink()
            writer.send_signal(signal.SIGCONT)  # any sooner, and it might fill its spool meanwhile
    finally:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()


def check(folder: Path, kept: list[str]) -> None:
    where = str(folder)
    reader = SpoolReader(where)
    reader.open(1 << 30, "refuse")
    found: list[str] = []
    left = reader.names()
    while left:
        files, rest = reader.read(left)
        found += [json.loads(line)["id"] for file in files for line in file.lines]
        left = list(rest)
    assert not list(folder.glob("corrupt/*"))
    lost = sum(loss.events for loss in losses.total(where))
    assert found == sorted(found, key=lambda id: [int(part) for part in id.split("-")])
    gone = [id for id in kept if id not in set(found)]
    assert gone == kept[: len(gone)]  # the oldest alone
    assert len(gone) <= lost <= len(gone) + 3, f"{gone} are gone, {lost} are counted"
    assert spool.names(where)
