"""Projects of other people: public packages as they are published, with their own suites, and
environments that hold pytest and nothing else. Fetched once, into `$XDG_CACHE_HOME/opsmesh-tests`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

#: What builds the metadata of the packages below, for pip asks for it before it hands out an sdist.
BACKENDS = ("flit_core", "setuptools")


def environment(name: str, *requirements: str, python: str = sys.executable) -> Path:
    """The Python of a virtual environment with these packages."""

    def make(folder: Path) -> None:
        _do([python, "-m", "venv", str(folder)])
        if requirements:
            _do([*_pip(folder), "install", "--quiet", *requirements])

    return _once(name, make) / "bin/python"


def sdist(requirement: str) -> Path:
    """The published source of a package, like `click==8.3.1`; copy it before a fault is put in."""
    name, _, version = requirement.partition("==")

    def make(folder: Path) -> None:
        folder.mkdir()
        tools = environment("sdists", *BACKENDS).parents[1]
        fetch = ["download", "--quiet", "--no-deps", "--no-binary=:all:", "--no-build-isolation"]
        _do([*_pip(tools), *fetch, "--dest", str(folder), requirement])
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")

    (found,) = (one for one in _once(f"{name}-{version}", make).iterdir() if one.is_dir())
    return found


def with_faults(source: Path, project: Path, *faults: tuple[str, str, str]) -> Path:
    """A copy of a project with faults in it: a file, a text of it, and what stands there now."""
    shutil.copytree(source, project)
    for name, text, fault in faults:
        before = (project / name).read_text()
        assert text in before, f"{name} does not hold {text!r}"
        (project / name).write_text(before.replace(text, fault))
    return project


def other_python(*versions: str, environments: bool = True) -> str:
    """An interpreter of one of these versions that runs, and makes environments unless told that it
    need not; skips where there is none."""
    asked = "import venv, ensurepip" if environments else "import unittest"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    for version in versions:
        for found in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")):
            if found and _runs(str(found), asked):
                return str(found)
    return missing(f"no Python {' or '.join(versions)} is here")


def missing(reason: str) -> NoReturn:
    """Skip, for a tool that cannot be had here."""
    pytest.skip(reason)


def _once(name: str, make: Callable[[Path], None]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "opsmesh-tests/foreign" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a process of xdist makes it, the others wait
        done = folder.with_name(f"{name}.done")
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def _pip(folder: Path) -> list[str]:
    return [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check"]


def _do(argv: Sequence[str]) -> None:
    # what this process runs in is not theirs
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        missing(f"{' '.join(argv[-4:])}: {done.stderr.strip()[-300:]}")


def _runs(python: str, code: str) -> bool:
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
