"""The first run of a new user: `opsmesh init` on a home that is empty, and what it says to try."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsmesh.cli.init.say import TRY

pytestmark = pytest.mark.slow


@pytest.fixture
def new_user(home: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody whose home is empty, with opsmesh on the PATH."""
    found = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    }
    yield found
    subprocess.run(["opsmesh", "down"], env=found, capture_output=True, check=False)


def test_a_first_event(new_user: dict[str, str], home: Path) -> None:
    """`init --yes` starts the mesh, and the command that it says to try shows a first event and the
    run of a profile."""
    call = ["sh", "-c", "opsmesh init --yes && " + TRY]
    done = subprocess.run(
        call, env=new_user, cwd=home, capture_output=True, text=True, timeout=180, check=False
    )
    assert TRY in done.stdout, done.stderr
    shown = done.stdout.rpartition(TRY)[2]
    assert "shell.command.failed" in shown, done.stdout + done.stderr
    assert (home / "config/opsmesh/profiles.yaml").exists()
    again = subprocess.run(
        ["opsmesh", "init", "--json"], env=new_user, capture_output=True, text=True, check=False
    )
    assert '"offered": []' in again.stdout, again.stdout
