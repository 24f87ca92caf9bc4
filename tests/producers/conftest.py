"""What the producers' tests share: a stand-in agent on a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.producers.agent import StandInAgent, standing_in


@pytest.fixture
def agent(home: Path) -> Iterator[StandInAgent]:
    """An agent that takes every event."""
    with standing_in(home) as running:
        yield running
