"""Makes pytest runs below a command visible, in whatever project and environment they run.

PYTHONPATH gets a folder that holds the plugin and a few lines of package metadata, so that pytest
finds it as it finds any plugin. `PYTEST_ADDOPTS=-p pytest_opsmesh` would do too, but it fails the
run wherever PYTHONPATH is replaced on the way (`PYTHONPATH=src pytest` in a Makefile is common):
with metadata, such a run is merely not seen.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from opsmesh.producers.host import write_atomically
from opsmesh.router import paths

#: Tells the plugin where to leave a file for as long as its session runs.
MARKS = "OPSMESH_PYTEST_MARKS"

_METADATA = "Metadata-Version: 2.1\nName: pytest-opsmesh-bridge\nVersion: 1\n"
_ENTRY_POINTS = "[pytest11]\npytest_opsmesh = pytest_opsmesh\n"


@dataclass(frozen=True)
class Unfinished:
    """A pytest process that vanished before its session ended, and the test that it was in."""

    pid: int
    nodeid: str


def folder() -> Path:
    """The folder for PYTHONPATH, made or refreshed where it is not as it should be."""
    spec = find_spec("pytest_opsmesh")
    if spec is None or spec.origin is None:
        raise OSError("pytest_opsmesh is not installed beside opsmesh")
    home = Path(paths.state_dir(), "pytest")
    info = home / "pytest_opsmesh_bridge-1.dist-info"
    for path, data in (
        (home / "pytest_opsmesh.py", Path(spec.origin).read_bytes()),
        (info / "METADATA", _METADATA.encode()),
        (info / "entry_points.txt", _ENTRY_POINTS.encode()),
    ):
        if not path.is_file() or path.read_bytes() != data:
            write_atomically(path, data)
    return home


def environment(env: Mapping[str, str], marks: str) -> dict[str, str]:
    """`env` with the plugin in reach of every pytest below."""
    before = env.get("PYTHONPATH")
    ours = str(folder())
    return {**env, "PYTHONPATH": f"{before}:{ours}" if before else ours, MARKS: marks}


class Marks:
    """The folder in which each running pytest session leaves its mark."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="opsmesh-exec-")

    def unfinished(self) -> Iterator[Unfinished]:
        """The sessions that vanished; not those that still run."""
        for mark in sorted(Path(self.path).iterdir()):
            if not _runs(int(mark.name)):
                yield Unfinished(int(mark.name), mark.read_text("utf-8", "replace"))

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
