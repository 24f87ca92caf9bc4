"""Makes test runs and notebooks below a command visible, in whatever environment they run.

PYTHONPATH gets a folder that holds our plug-ins of pytest and marimo; a few lines of metadata, so
that the tools find them as they find any; and a `sitecustomize`, so that unittest tells, too.
`PYTEST_ADDOPTS=-p pytest_opsmesh` would fail the run wherever PYTHONPATH is replaced on the way
(`PYTHONPATH=src pytest` in a Makefile is common): this way, such a run is merely not seen.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from opsmesh.producers import plugins
from opsmesh.producers.host import write_atomically
from opsmesh.router import paths

#: Tells those runs where to leave a file for as long as they last.
MARKS = "OPSMESH_PYTEST_MARKS"

#: What pytest and xdist set for what a test starts.
NESTED = ("PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER")

#: What is put into reach, and the file of it that each Python is to run first.
PLUGINS = ("pytest-opsmesh", "marimo-opsmesh")
STARTUP = "pytest_opsmesh/startup.py"


@dataclass(frozen=True)
class Unfinished:
    """A process that vanished before its tests were finished, and the test that it was in."""

    pid: int
    framework: str
    test: str


def folder() -> Path:
    """The folder for PYTHONPATH, made or refreshed where it is not as it should be."""
    home = Path(paths.state_dir(), "pytest")
    texts = {home / path: data for name in PLUGINS for path, data in plugins.files(name).items()}
    texts[home / "sitecustomize.py"] = texts[home / STARTUP]
    for path, data in texts.items():
        if not path.is_file() or path.read_bytes() != data:
            write_atomically(path, data)
    for path in home.rglob("*.py"):  # an older version's
        if path not in texts:
            path.unlink()
    return home


def environment(env: Mapping[str, str], marks: str) -> dict[str, str]:
    """`env` with the package in reach of every Python below.

    A pytest within a test tells nothing by itself; here it was asked to.
    """
    before = env.get("PYTHONPATH")
    ours = str(folder())
    kept = {name: value for name, value in env.items() if name not in NESTED}
    return {**kept, "PYTHONPATH": f"{before}:{ours}" if before else ours, MARKS: marks}


class Marks:
    """The folder in which each run of tests has its mark, `<pid>.<framework>`, while it lasts."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="opsmesh-exec-")

    def unfinished(self) -> Iterator[Unfinished]:
        """The runs that vanished; not those that still run."""
        for mark in sorted(Path(self.path).iterdir()):
            pid, framework, *_ = mark.name.split(".")
            if not _runs(int(pid)):
                yield Unfinished(int(pid), framework, mark.read_text("utf-8", "replace"))

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
