"""What the handlers' log says of a run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import structlog
from tests.conftest import run
from tests.handlers.mesh import mesh

from opsmesh.router.server import EmbeddedServer

PROFILES = """
profiles:
  well:
    on: service.start.failed
    actions: [command: ["true"]]
  hopeless:
    on: service.start.failed
    retry: {{attempts: 2, initial: 1ms, jitter: 0}}
    actions: [command: ["false"]]
  single:
    on: service.start.failed
    concurrency: {{mode: single}}
    actions: [command: [sh, -c, "until test -e $0; do sleep 0.02; done", "{go}"]]
"""


@pytest.fixture
def written(log_of_before: None) -> io.StringIO:
    """What is logged, as JSON."""
    stream = io.StringIO()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    return stream


def test_every_line_of_a_run_names_its_story(
    nats_server: EmbeddedServer, written: io.StringIO, tmp_path: Path
) -> None:
    """Whatever is said of a run (that it succeeded, failed, was given up, was not begun) says which
    run it was and to which story it belongs."""

    async def body() -> set[str]:
        async with mesh(PROFILES.format(go=tmp_path / "go")) as one:
            ids = {(await one.publish()).correlation_id for _ in range(2)}
            await one.wait("automation.run.skipped")
            (tmp_path / "go").touch()  # not before: the first is under way until then
            await one.wait("automation.run.succeeded", 3)
            await one.wait("automation.run.deadlettered", 2)
        return ids

    stories = run(body())
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    of_runs = [line for line in lines if line["event"].startswith(("run.", "step."))]
    kinds = {line["event"] for line in of_runs}
    assert {"run.succeeded", "run.failed", "run.deadlettered", "run.skipped"} <= kinds
    assert [line for line in of_runs if not line.get("run_id")] == []
    assert {line.get("correlation_id") for line in of_runs} == stories
