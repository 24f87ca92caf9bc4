"""Folders in memory: a process that is killed needs no disk, and a busy one is slow."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.clocks import broker_time, clock
from tests.faults.disks import mounts
from tests.faults.meshes import Mesh, mesh

__all__ = ["broker_time", "clock", "fault", "memory", "mounts"]


@pytest.fixture
def memory(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home in memory where there is room, on disk otherwise."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shutil.disk_usage(shm).free < 512 * 2**20:
        yield home
        return
    with tempfile.TemporaryDirectory(dir=shm, prefix="opsmesh-faults-") as folder:
        for variable in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
            (Path(folder) / variable).mkdir(mode=0o700)
            monkeypatch.setenv(variable, str(Path(folder, variable)))
        yield Path(folder)


@pytest.fixture
def fault(memory: Path) -> Iterator[Mesh]:
    """A mesh, its load's profile in place, of which nothing runs yet."""
    with mesh(memory) as made:
        made.profiles()
        yield made
