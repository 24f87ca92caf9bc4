"""The Makefile: what it offers, and what it says on a machine that lacks something."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.checkout import TOP

MAKE = shutil.which("make") or ""

#: What the front door offers, in the order of `make help`.
TARGETS = [
    "help",
    "init",
    "up",
    "extras",
    "down",
    "status",
    "demo",
    "compose-up",
    "compose-down",
    "compose-logs",
    "compose-test",
    "test",
    "test-all",
    "test-stopped",
    "lint",
    "format",
    "bench",
    "scale",
    "docs",
    "docs-site",
    "dist",
    "vsix",
    "clean",
]

#: The command itself, which an installation copies.
COMMAND = "cli/opsmesh/cli/launcher.sh"

pytestmark = pytest.mark.skipif(not MAKE, reason="make is not installed")


def make(*arguments: str, path: str = "/usr/bin:/bin", cwd: Path = TOP) -> tuple[int, str]:
    """Run make with nothing of this process's environment; its exit code, and all it said."""
    ran = subprocess.run(
        [MAKE, "--no-print-directory", *arguments],
        cwd=cwd,
        env={"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, Path]:
    """A checkout in a folder with a space, never installed; and a PATH with hardly anything."""
    checkout, commands = tmp_path / "a checkout", tmp_path / "bin"
    checkout.mkdir()
    commands.mkdir()
    shutil.copy(TOP / "Makefile", checkout)
    shutil.copy(TOP / "pyproject.toml", checkout)
    (checkout / COMMAND).parent.mkdir(parents=True)
    shutil.copy(TOP / COMMAND, checkout / COMMAND)
    return checkout, commands


def script(path: Path, body: str) -> None:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_help() -> None:
    """`make` alone lists every target that people call, each with a line about it."""
    code, said = make()
    assert code == 0
    assert [line.split()[:2] for line in said.splitlines()] == [["make", name] for name in TARGETS]
    assert all(len(line.split()) > 2 for line in said.splitlines())


def test_no_python(bare: tuple[Path, Path]) -> None:
    """Without a Python that runs, make names what it looked for and the next step."""
    checkout, commands = bare
    script(commands / "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    code, said = make(".venv/.runtime", path=str(commands), cwd=checkout)
    assert code != 0
    assert "error: no Python 3.11 or newer runs here" in said
    assert "make PYTHON=" in said
    assert not (checkout / ".venv").exists()


def test_old_python(bare: tuple[Path, Path]) -> None:
    """A Python that is named and does not do is an error, though another would be found."""
    checkout, commands = bare
    script(commands / "old", "exit 1  # as an assertion on sys.version_info does")
    code, said = make(".venv/.runtime", "PYTHON=old", path=str(commands), cwd=checkout)
    assert code != 0
    assert "error: no Python 3.11 or newer runs here as old" in said


def test_python_without_venv(bare: tuple[Path, Path]) -> None:
    """Debian's Python without python3-venv is named, with the package that completes it."""
    checkout, commands = bare
    script(
        commands / "python3",
        f'case "$2" in *ensurepip*) exit 1 ;; esac\nexec "{sys.executable}" "$@"',
    )
    code, said = make(".venv/.runtime", path=str(commands), cwd=checkout)
    assert code != 0
    assert "error: no venv module in: python3" in said
    assert "apt install python3-venv" in said


@pytest.mark.parametrize("changed", ["pyproject.toml", COMMAND])
def test_second_call(bare: tuple[Path, Path], changed: str) -> None:
    """What is installed already is not asked for again until pyproject.toml, or the command that an
    installation copies, is newer."""
    checkout, _ = bare
    (checkout / ".venv" / "bin").mkdir(parents=True)
    for made in (".venv/bin/python", ".venv/.runtime", ".venv/.dev"):
        (checkout / made).touch()
    assert make("--question", ".venv/.dev", cwd=checkout)[0] == 0
    newer = (checkout / ".venv" / ".dev").stat().st_mtime + 1
    os.utime(checkout / changed, (newer, newer))
    assert make("--question", ".venv/.dev", cwd=checkout)[0] == 1
