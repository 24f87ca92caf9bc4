"""`when`: steps that are run only where something holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import run
from tests.handlers.mesh import mesh, write_profiles

from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs.ledger import Run
from opsmesh.router import paths
from opsmesh.router.server import EmbeddedServer

#: A configuration folder of each test's own.
pytestmark = pytest.mark.usefixtures("home")

TEXT = """
profiles:
  p:
    on: service.start.failed
    retry: {{attempts: 2, initial: 10ms}}
    actions:
      - id: first
        when: {first}
        command: [echo, "1"]
      - id: second
        when: {second}
        command: [echo, "2"]
"""


def _ran(first: str, second: str) -> Run:
    async def body() -> Run:
        async with mesh(TEXT.format(first=first, second=second)) as m:
            await m.publish()
            await m.wait("automation.run.*")
            [found] = await m.runs()
            return found

    found = run(body())
    assert isinstance(found, Run)
    return found


@pytest.mark.parametrize(
    ("first", "second", "states"),
    [
        ("'true'", "steps.first.ok", ["done", "done"]),
        ("event.payload.unit == 'other'", "steps.first.ok", ["skipped", "skipped"]),
        ("event.payload.unit == 'other'", "'!steps.first.ok'", ["skipped", "done"]),
        ("1 + 1", "host != ''", ["skipped", "done"]),
    ],
)
def test_states(nats_server: EmbeddedServer, first: str, second: str, states: list[str]) -> None:
    """A step is skipped where its condition is not true, and the next one sees it."""
    found = _ran(first, second)
    assert (found.state, [step.state for step in found.steps]) == ("succeeded", states)


def test_a_condition_without_an_answer(nats_server: EmbeddedServer) -> None:
    """A step whose condition cannot be answered fails, and another attempt would not help."""
    found = _ran("event.payload.nothing == 1", "'true'")
    assert (found.state, found.attempt) == ("deadlettered", 1)
    assert "event.payload.nothing" in found.errors[0].error


def test_errors_in_profiles(tmp_path: Path) -> None:
    """What is no condition is said where it stands."""
    for condition, said in (("evnt.x", "did you mean 'event'"), ("1 +", "when")):
        write_profiles(
            f"profiles: {{a: {{on: a.b, actions: [{{when: '{condition}', emit: c.d}}]}}}}"
        )
        [error] = load_profiles(Path(paths.config_dir())).errors
        assert said in str(error)
