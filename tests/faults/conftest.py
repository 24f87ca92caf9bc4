"""A mesh under load, and what breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.clocks import broker_time, clock
from tests.faults.disks import mounts
from tests.faults.meshes import Mesh, mesh

__all__ = ["broker_time", "clock", "fault", "mounts"]


@pytest.fixture
def fault(home: Path) -> Iterator[Mesh]:
    """A mesh, its load's profile in place, of which nothing runs yet."""
    with mesh(home) as made:
        made.profiles()
        yield made
