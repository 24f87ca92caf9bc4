"""`opsmesh approvals`, `approve` and `deny`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.cli.conftest import Cli
from tests.conftest import run
from tests.handlers.approving import asked, ended
from tests.handlers.mesh import Mesh, mesh
from typer.testing import Result

from opsmesh.cli import health
from opsmesh.cli.approvals import complete
from opsmesh.handlers.runs.approvals import Open
from opsmesh.router import user
from opsmesh.router.server import EmbeddedServer

TEXT = """
profiles:
  restart:
    on: service.start.failed
    actions:
      - {id: ask, approve: {prompt: "Restart it?", expires: 1h, %s}}
      - command: [echo, "${{ steps.ask.approval.verdict }}"]
"""


@asynccontextmanager
async def waiting(more: str = "otherwise: skip") -> AsyncIterator[tuple[Mesh, Open]]:
    """A mesh with one approval that waits."""
    async with mesh(TEXT % more) as m:
        await m.publish()
        [one] = await asked(m)
        yield m, one


async def call(cli: Cli, *arguments: str) -> Result:
    """The command, while this test's loop goes on."""
    return await asyncio.to_thread(cli, *arguments)


def test_listed_and_approved(nats_server: EmbeddedServer, cli: Cli) -> None:
    """What waits is listed; a yes by the start of its id is taken, in the name of the user."""

    async def body() -> None:
        async with waiting() as (m, one):
            found = await call(cli, "approvals", "ls")
            assert "Restart it?" in found.stdout
            assert one.asked.id in found.stdout
            done = await call(cli, "approve", one.asked.id[:30], "-m", "go on")
            assert done.exit_code == 0
            assert f"opsmesh run show {one.run.run_id}" in done.stderr
            await ended(m, "succeeded")
            [granted] = await m.wait("automation.approval.granted")
            assert granted.payload["by"] == user.name()
            assert granted.payload["comment"] == "go on"
            again = await call(cli, "approve", one.asked.id)
            assert (again.exit_code, "nothing changes" in again.stderr) == (0, True)
            late = await call(cli, "deny", one.asked.id)
            assert late.exit_code == 1
            assert "answered already" in late.stderr
            empty = await call(cli, "approvals", "ls", "--json")
            assert json.loads(empty.stdout) == []

    run(body())


def test_denied_by_its_run(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A run's id is as good as the approval's."""

    async def body() -> None:
        async with waiting() as (m, one):
            assert (await call(cli, "deny", one.run.run_id, "--json")).exit_code == 0
            done = await ended(m, "succeeded")
            assert [step.state for step in done.steps] == ["skipped", "done"]

    run(body())


def test_shown(nats_server: EmbeddedServer, cli: Cli) -> None:
    """An approval is shown with what follows, before and after; its run points to it."""

    async def body() -> None:
        async with waiting("by: [ann]") as (_, one):
            shown = await call(cli, "approvals", "show", one.asked.id)
            assert "may answer" in shown.stdout
            assert "ann" in shown.stdout
            of_run = await call(cli, "run", "show", one.run.run_id)
            assert f"opsmesh approve {one.asked.id}" in of_run.stdout
            record = json.loads((await call(cli, "run", "show", one.run.run_id, "--json")).stdout)
            assert "token_sha256" not in record["steps"][0]["asked"][0]
            refused = await call(cli, "approve", one.asked.id)
            assert (refused.exit_code, "may not answer" in refused.stderr) == (1, True)
            wrong = await call(cli, "run", "answer", one.run.run_id, "skip")
            assert f"opsmesh approve {one.asked.id}" in wrong.stderr

    run(body())


def test_values(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A value is given as JSON or by its fields; one that does not fit is said."""
    schema = "answer: {type: object, properties: {n: {type: integer}}, required: [n]}"

    async def body() -> None:
        async with waiting(schema) as (m, one):
            for wrong, said in (
                (["--answer", "{"], "no JSON"),
                (["-f", "n"], "not NAME=VALUE"),
                (["-f", "n=x"], "does not fit"),
                ([], "does not fit"),
            ):
                refused = await call(cli, "approve", one.asked.id, *wrong)
                assert (refused.exit_code > 0, said in refused.stderr) == (True, True), wrong
            assert (await call(cli, "approve", one.asked.id, "-f", "n=3")).exit_code == 0
            [granted] = await m.wait("automation.approval.granted")
            assert granted.payload["answer"] == {"n": 3}

    run(body())


@pytest.mark.parametrize("command", ["approve", "deny"])
def test_unknown(nats_server: EmbeddedServer, cli: Cli, command: str) -> None:
    """An id that nobody knows is named, with what to look at; exit code 3."""

    async def body() -> None:
        async with mesh("profiles: {}"):
            for unknown in ("01a21d9f", "no such.thing", ""):
                found = await call(cli, command, unknown)
                assert (found.exit_code, "opsmesh approvals ls" in found.stderr) == (3, True)

    run(body())


def test_status_counts_them(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """What waits for a yes is told by `status`, and is no problem of the mesh's."""

    async def body() -> None:
        async with waiting() as (m, one):
            found = health.Health()
            await health._approvals(found, m.client)
            assert [entry["id"] for entry in found.approvals] == [one.asked.id]
            assert [active.runs.waiting for active in m.server.profiles.all()] == [[]]

    run(body())


def test_completed(nats_server: EmbeddedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell completes the ids of what waits."""

    async def body() -> None:
        async with waiting() as (_, one):
            found = await asyncio.to_thread(lambda: list(complete(one.asked.id[:4])))
            assert found == [(one.asked.id, "restart: Restart it?")]

    run(body())


def test_nothing_is_completed_without_a_mesh(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no error stands in the line that somebody types."""
    assert list(complete("0")) == []
    assert capsys.readouterr() == ("", "")
