"""Disks of a test's own: one that fills up, and one whose power is cut. Both need root.

A power cut: what a file system has handed to its block device is all that is left of it. The device
is a file here (a loop device over it, ext4 on that), and a copy of the file, taken while every
process that writes is stopped, is the disk after the cut: what was written and never synced is
still in the page cache alone, and not in it. kill -9 proves nothing of that kind.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=60)


def _mounted(path: Path) -> bool:
    return os.path.ismount(path)


class Full:
    """A file system in memory that can be filled up."""

    def __init__(self, folder: Path, *, kib: int) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=0700", "opsmesh-test", folder)

    def fill(self) -> Path:
        """A file, somebody else's, that takes all the room there is."""
        path = self.folder / ".somebody-elses"
        with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        return path

    def end(self) -> None:
        """Unmount; those that use it have ended."""
        _end(self.folder)


class Fragile:
    """ext4 on a loop device, whose power can be cut."""

    def __init__(self, folder: Path, images: Path, *, mib: int = 256) -> None:
        self.folder = folder
        self._images = images
        self._image = images / "disk-0"
        self._cuts = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(mib * 2**20)
        _run("mkfs.ext4", "-q", "-F", self._image)
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop", self._image, self.folder)
        self.folder.chmod(0o700)

    def cut(self) -> Path:
        """What is on the disk now. Whoever writes to it is stopped meanwhile."""
        self._cuts += 1
        copy = self._images / f"disk-{self._cuts}"
        _run("cp", "--sparse=always", self._image, copy)
        return copy

    def become(self, image: Path) -> None:
        """The disk after the cut; those that used the old one have ended."""
        _end(self.folder)
        self._image.unlink()
        self._image = image
        self._mount()

    def end(self) -> None:
        """Unmount."""
        _end(self.folder)


def _end(folder: Path) -> None:
    if _mounted(folder):
        lazy = subprocess.run(["umount", folder], capture_output=True, check=False).returncode != 0
        if lazy:  # a process that outlived its test must not keep the others from theirs
            _run("umount", "-l", folder)


@cache
def _problem() -> str:
    """Why no disk can be made here, or nothing."""
    if os.geteuid() != 0:
        return "mounting a disk needs root"
    with tempfile.TemporaryDirectory() as name:
        try:
            full = Full(Path(name, "full"), kib=64)
            full.end()
            fragile = Fragile(Path(name, "fragile"), Path(name), mib=8)
            fragile.end()
        except (OSError, subprocess.SubprocessError) as error:
            told = getattr(error, "stderr", b"") or str(error).encode()
            return f"no disk can be made here: {told.decode(errors='replace').strip()}"
    return ""


@pytest.fixture
def mounts() -> None:
    """Skips where no disk can be made, with the reason."""
    if problem := _problem():
        pytest.skip(problem)
