"""Entry points are looked through once, and a package that comes or goes is seen."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from opsmesh.schemas import plugins

GROUP = "acme.things"


def names() -> set[str]:
    """The entry points of the group."""
    return {point.name for point in plugins.entry_points(GROUP)}


def package(folder: Path, name: str) -> Path:
    """A distribution with one entry point, as pip would lay it out."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {name}:X\n")
    return info


def settle(folder: Path) -> None:
    """Nothing has happened in the folder for an hour."""
    then = time.time() - 3600
    os.utime(folder, (then, then))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one place that packages lie in."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def test_looked_through_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that are as they were are not looked through again, for any group."""
    package(folder, "one")
    settle(folder)
    assert names() == {"one"}
    monkeypatch.setattr(plugins, "look", lambda: pytest.fail("looked again"))
    assert names() == {"one"}
    assert not plugins.entry_points("acme.others")


def test_installed_and_removed_meanwhile(folder: Path) -> None:
    """A package that comes is found at once, and one that goes is not."""
    settle(folder)
    assert names() == set()
    info = package(folder, "one")
    assert names() == {"one"}
    settle(folder)
    assert names() == {"one"}
    shutil.rmtree(info)
    assert names() == set()


def test_half_installed(folder: Path) -> None:
    """What an installer writes into a package's folder after it made it is seen, though the folder
    around it is as it was."""
    info = package(folder, "one")
    (info / "entry_points.txt").unlink()
    assert names() == set()
    changed = folder.stat().st_mtime_ns
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nlate = one:X\n")
    assert folder.stat().st_mtime_ns == changed
    assert names() == {"late"}
