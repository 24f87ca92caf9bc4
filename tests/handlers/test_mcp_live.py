"""The action `mcp` in runs of a live mesh."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from tests.conftest import eventually, run
from tests.handlers.mcp_servers import alive, configure, liar
from tests.handlers.mesh import Mesh, mesh

from opsmesh.cli.run import commands as run_command
from opsmesh.handlers.actions import mcp
from opsmesh.handlers.runs import cancelling
from opsmesh.handlers.runs.ledger import Run
from opsmesh.router.server import EmbeddedServer

RUNS = """
profiles:
  good:
    on: service.start.failed
    actions:
      - id: call
        mcp: {server: liar, tool: echo, arguments: {text: "${{ event.payload.unit }}"}}
      - id: use
        emit:
          topic: config.drift.detected
          payload: {tool: "${{ steps.call.structured.text }}", paths: []}
  goes_on:
    on: service.start.failed
    actions:
      - id: call
        continue_on_error: true
        mcp: {server: liar, tool: fails, on: {tool_error: fail}}
      - {id: next, mcp: {server: liar, tool: number, result: false}}
  given_up:
    on: service.start.failed
    actions:
      - id: call
        continue_on_error: true
        mcp: {server: liar, tool: fails, on: {tool_error: dlq}}
      - {id: next, mcp: {server: liar, tool: number, result: false}}
  again:
    on: service.start.failed
    retry: {attempts: 2, initial: 10ms, max: 10ms}
    actions:
      - {id: call, mcp: {server: liar, tool: fails}}
"""

SLOW = """
profiles:
  slow:
    on: service.start.failed
    actions:
      - {id: call, mcp: {server: liar, tool: progress}}
"""


async def ended(live: Mesh, count: int) -> dict[str, Run]:
    """Every run by its profile, once all are over."""

    async def there() -> dict[str, Run]:
        found = {one.profile: one for one in await live.runs() if one.finished}
        return found if len(found) == count else {}

    found: dict[str, Run] = await eventually(there)
    return found


def test_runs(nats_server: EmbeddedServer) -> None:
    """What a profile says of a failure becomes of its run; an answer is there for the next step."""
    configure(liar=liar())

    async def body() -> None:
        async with mesh(RUNS) as live:
            await live.publish()
            runs = await ended(live, 4)
            assert {name: one.state for name, one in runs.items()} == {
                "good": "succeeded",
                "goes_on": "succeeded",
                "given_up": "deadlettered",
                "again": "deadlettered",
            }
            assert [step.state for step in runs["goes_on"].steps] == ["failed", "done"]
            assert [step.id for step in runs["given_up"].steps] == ["call"]
            assert runs["again"].attempt == 2
            assert runs["again"].reason == "liar/fails: no such thing"
            [used] = await live.events("config.drift.detected")
            assert used.payload["tool"] == "backup.service"
            [told] = await live.events("mcp.tool.completed")
            assert told.run_id == runs["good"].run_id
            failed = await live.events("mcp.tool.failed")
            assert sorted((one.component, one.attempt) for one in failed) == [
                ("again", 1),
                ("again", 2),
                ("given_up", 1),
                ("goes_on", 1),
            ]

    run(body())


def test_cancelled_run(
    nats_server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress is in the run's record; cancelling the run cancels the call; the handlers' end ends
    the server."""
    log = home / "log"
    monkeypatch.setattr(mcp, "PROGRESS_S", 60)  # the first note stays, however slow we are
    configure(liar=liar("stays", env={"LIAR_LOG": str(log)}))
    pids: list[int] = []

    async def body() -> None:
        async with mesh(SLOW) as live:
            await live.publish()

            async def under_way() -> Run | None:
                found = [one for one in await live.runs() if one.steps and one.steps[0].saved]
                return found[0] if found else None

            found: Run = await eventually(under_way)
            shown = io.StringIO()
            run_command.describe(Console(file=shown, width=200), found)
            assert "progress: 0 of 100: m0" in shown.getvalue()
            pids.extend(_children())
            assert await cancelling.ask(live.client, found.run_id, "enough")
            runs = await ended(live, 1)
            assert runs["slow"].state == "cancelled"
            await eventually(lambda: "notifications/cancelled" in log.read_text())
            assert any(alive(pid) for pid in pids)

    run(body())
    assert not any(alive(pid) for pid in pids)


def _children() -> list[int]:
    """The pids in the names of the servers' leashes' groups."""
    from opsmesh.handlers.mcp import program

    return [
        int(line.split()[0])
        for path in program.folder().iterdir()
        for line in path.read_text().splitlines()
        if line[0].isdigit()
    ]
