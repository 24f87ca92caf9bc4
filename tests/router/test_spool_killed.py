"""kill -9 at any instruction: at every call to the kernel, and in the middle of every write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: At how many calls a child of each scene is killed at least; fewer would mean that the calls are
#: not seen any more.
SCENES = {"writing": 30, "overflowing": 40, "mending": 30, "telling": 10}


@pytest.mark.parametrize("scene", list(SCENES))
def test_killed_at_every_call(scene: str) -> None:
    """What was reported as kept is there or counted; nothing is half, nothing is there twice."""
    driver = Path(__file__).with_name("killed_writer.py")
    done = subprocess.run(
        [sys.executable, driver, scene], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= SCENES[scene]
