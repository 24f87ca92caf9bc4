"""`opsmesh run`: what ran, what waits, and what a person says of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.conftest import eventually, mesh_client, restart, run
from tests.handlers.lost_runs import dead, left_behind
from tests.handlers.mesh import Mesh, mesh, write_profiles
from typer.testing import Result

from opsmesh.cli.run.commands import record
from opsmesh.handlers.runs.ledger import Run
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings

PROFILES = """
profiles:
  deploy:
    on: service.start.failed
    actions:
      - {id: first, on_unknown: ask, command: ["true"]}
      - {id: second, command: [echo, fine]}
"""


async def call(cli: Cli, *arguments: str) -> Result:
    """The command, while this test's loop goes on."""
    return await asyncio.to_thread(cli, *arguments)


@asynccontextmanager
async def waiting() -> AsyncIterator[tuple[Mesh, Run]]:
    """A mesh with one run that waits for an answer."""
    settings = Settings()
    write_profiles(PROFILES)
    async with mesh_client(settings) as client:
        held = await left_behind(client, settings, "deploy", dead())
        async with mesh(PROFILES, settings=settings) as m:
            yield m, await state(m, "waiting", held.run.run_id)


async def state(m: Mesh, wanted: str, run_id: str) -> Run:
    """The run, once it is in this state."""

    async def there() -> Run | None:
        return next((r for r in await m.runs() if (r.run_id, r.state) == (run_id, wanted)), None)

    found = await eventually(there)
    assert isinstance(found, Run)
    return found


def test_a_waiting_run_is_shown(
    cli: Cli, nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run ls` and `run show` tell that a run waits, since when, and who held it; `status` does,
    with the command that mends it."""
    broker = nats_server.broker  # without a supervisor, `status` looks at a server that is named
    monkeypatch.setenv("OPSMESH_NATS_URL", broker.url)
    monkeypatch.setenv("OPSMESH_NATS__CREDENTIALS", str(broker.credentials("admin")))

    async def body() -> None:
        async with waiting() as (m, waits):
            listed = await call(cli, "run", "ls", "--state", "waiting")
            assert waits.run_id in listed.stdout
            step = waits.steps[0]
            assert step.held_by is not None
            assert f"(pid {step.held_by.pid})" in listed.stdout
            assert "opsmesh run answer RUN" in listed.stderr
            shown = (await call(cli, "run", "show", waits.run_id)).stdout
            assert "unknown since" in shown
            assert f"opsmesh run answer {waits.run_id} retry|skip|fail" in shown
            facts = json.loads((await call(cli, "run", "show", waits.run_id, "--json")).stdout)
            assert facts["steps"][0]["held_by"]["pid"] == step.held_by.pid
            assert facts["steps"][0]["unknown"].endswith("Z")
            health = json.loads((await call(cli, "status", "--json")).stdout)
            (problem,) = [p for p in health["problems"] if "waits for an answer" in p["what"]]
            assert f"opsmesh run answer {waits.run_id}" in problem["fix"]

            await call(cli, "run", "answer", waits.run_id, "skip")
            await state(m, "succeeded", waits.run_id)
            none = await call(cli, "run", "ls", "--state", "waiting")
            assert "no run is waiting" in none.stderr
            health = json.loads((await call(cli, "status", "--json")).stdout)
            assert not [p for p in health["problems"] if "waits for an answer" in p["what"]]

    run(body())


def test_an_answer_outlives_everything(cli: Cli, nats_server: EmbeddedServer) -> None:
    """An answer that is given while no handlers run, before the broker is killed, is acted on when
    all are back; who gave it is on record."""

    async def body() -> None:
        async with waiting() as (m, waits):
            pass
        async with mesh_client() as client:
            given = await call(
                cli, "run", "answer", waits.run_id[:18], "retry", "--reason", "not done", "--json"
            )
            facts = json.loads(given.stdout)
            assert (facts["run"], facts["choice"], facts["new"]) == (waits.run_id, "retry", True)
            await restart(client, nats_server)
        async with mesh(PROFILES, settings=m.settings) as m:
            found = await state(m, "succeeded", waits.run_id)
            (event,) = await m.wait("automation.step.answered")
            assert event.payload["reason"] == "not done"
            assert event.payload["by"] == facts["by"] == found.answers[0].by
            shown = (await call(cli, "run", "show", waits.run_id)).stdout
            assert "retry, by" in shown
            assert "not done" in shown

    run(body())


def test_answers_that_are_none(cli: Cli, nats_server: EmbeddedServer) -> None:
    """The same answer again is fine; another one, one for a run that asks nothing, and one for no
    run at all are errors with a next step."""

    async def body() -> None:
        async with waiting() as (m, waits):
            await m.publish()

            async def other() -> Run | None:
                found = [r for r in await m.runs() if r.run_id != waits.run_id and r.finished]
                return found[0] if found else None

            done = await eventually(other)
            cases: list[tuple[tuple[str, ...], int, str]] = [
                ((done.run_id, "skip"), 1, "does not wait for an answer: it is succeeded"),
                (("nosuchrun", "skip"), 3, "no run nosuchrun is known"),
                ((waits.run_id, "maybe"), 2, "maybe"),
                ((waits.run_id, "fail"), 0, "fails, and its run is given up"),
                ((waits.run_id, "fail"), 0, "was answered so before"),
                ((waits.run_id, "retry"), 1, "answered fail"),
            ]
            for arguments, code, text in cases:
                result = await call(cli, "run", "answer", *arguments)
                assert (arguments, result.exit_code) == (arguments, code)
                assert text in result.stderr
            await state(m, "deadlettered", waits.run_id)
            assert (await call(cli, "run", "answer", waits.run_id, "fail")).exit_code == 0

    run(body())


def test_no_such_state(cli: Cli, home: Path) -> None:
    """A state that there is not is named, with those that there are."""
    result: Any = cli("run", "ls", "--state", "wating")
    assert result.exit_code == 2
    assert "did you mean 'waiting'?" in result.stderr


def test_no_run_matches(cli: Cli, nats_server: EmbeddedServer) -> None:
    """A filter that lets nothing through does not say that there are no runs."""

    async def streams() -> None:
        async with mesh_client():
            pass

    run(streams())
    assert "no run matches" in cli("run", "ls", "--profile", "none").stderr
    assert "no runs yet" in cli("run", "ls").stderr


def test_cancel(cli: Cli, nats_server: EmbeddedServer) -> None:
    """A run is ended by whoever does not want it: one that waits, one that is at work, and none
    that is over."""
    text = PROFILES.replace("service.start.failed", "a.b").replace(
        "  deploy:",
        "  slow: {on: service.start.failed, actions: [command: [sleep, '60']]}\n  deploy:",
    )

    async def body() -> None:
        async with mesh(text) as m:
            await m.publish()

            async def begun() -> Run | None:
                return next((r for r in await m.runs() if r.state == "running"), None)

            found = await eventually(begun)
            done = await call(cli, "run", "cancel", found.run_id, "--reason", "not now")
            assert f"run {found.run_id} of slow is cancelled" in done.stderr
            ended = await state(m, "cancelled", found.run_id)
            assert ended.reason.startswith("cancelled by ")
            assert ended.reason.endswith(": not now")
            again = await call(cli, "run", "cancel", found.run_id)
            assert (again.exit_code, "is over" in again.stderr) == (1, True)
        async with waiting() as (m, waits):
            assert (await call(cli, "run", "cancel", waits.run_id)).exit_code == 0
            await state(m, "cancelled", waits.run_id)

    run(body())


def test_cancel_without_handlers(cli: Cli, nats_server: EmbeddedServer) -> None:
    """Without handlers nobody has the run, and it says so."""

    async def body() -> None:
        settings = Settings()
        write_profiles(PROFILES)
        async with mesh_client(settings) as client:
            held = await left_behind(client, settings, "deploy", dead())
            result = await call(cli, "run", "cancel", held.run.run_id)
            assert result.exit_code == 1
            assert "no handlers have run" in result.stderr

    run(body())


def test_a_run_that_has_not_begun_has_a_state() -> None:
    """As JSON every run has its state and its attempt, one that waits for its turn too."""
    facts: dict[str, Any] = dict.fromkeys(
        ("run_id", "profile", "profile_hash", "event_id", "topic", "correlation_id", "host"), "x"
    )
    told = record(Run(**facts, stream_seq=1, created_us=1, updated_us=1))
    assert (told["state"], told["attempt"]) == ("queued", 0)
