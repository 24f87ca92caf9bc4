"""Tests that fail while the mesh is down: a real broker and agent, which come afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import eventually, mesh_client, run
from tests.producers.test_exec import words
from tests.producers.test_pytest_plugin import run_pytest
from tests.router.agent_process import agent

from opsmesh.router.scan import scan
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import Event, decode

PYTEST = "def test_{n}(): assert not {n} + 1\n"
UNITTEST = "    def test_{n}(self): self.fail()\n"


@pytest.mark.usefixtures("nats_server")
def test_what_failed_while_the_mesh_was_down_arrives_in_order(home: Path, tmp_path: Path) -> None:
    """The failures of a pytest and then of a unittest are stored in the order of the tests, each
    once, when an agent comes."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "test_it.py").write_text("".join(PYTEST.format(n=n) for n in range(5)))
    head = "import unittest\nclass It(unittest.TestCase):\n"
    (project / "cases.py").write_text(head + "".join(UNITTEST.format(n=n) for n in range(5)))
    assert run_pytest(project).returncode == 1
    command = words([sys.executable, "-m", "unittest", "cases"], watch_pytest=True)
    subprocess.run(command, cwd=project, capture_output=True, check=False)

    async def body() -> None:
        async with mesh_client() as client:
            with agent(tmp_path):

                async def stored() -> list[Event]:
                    subjects = ["evt.*.python.>"]
                    found = [decode(m.data) async for m in scan(client, EVENTS, subjects=subjects)]
                    return found if len(found) >= 10 else []

                events = await eventually(stored)
        assert [event.payload["nodeid"] for event in events] == [
            *(f"test_it.py::test_{n}" for n in range(5)),
            *(f"cases.It.test_{n}" for n in range(5)),
        ]
        assert [event.seq for event in events] == [1, 2, 3, 4, 5] * 2

    run(body())
