"""A task at an agent that takes long, while our handlers are killed, stopped and started.

The agent is the SDK's own, in a process of its own; its "ten minutes" end when the test says so.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.aio.client import Client
from tests.conftest import eventually, mesh_client, run
from tests.handlers.a2a_peers import Peer, configure, peer
from tests.handlers.handlers_process import Processes, handlers, owner_of
from tests.handlers.mesh import write_profiles
from tests.handlers.test_handler_dies import publish, told

from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import paths
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings

TEXT = """
profiles:
  far:
    on: service.start.failed
    timeout: 15m
    retry: {{attempts: 2, initial: 10ms, jitter: 0}}
    actions:
      - id: far
        a2a: {{agent: scripted, message: "{said}", poll: 100ms, timeout: 10m{more}}}
      - id: then
        emit: {{topic: far.done, payload: {{text: "${{{{ steps.far.text }}}}"}}}}
"""


async def _owned(client: Client, settings: Settings) -> None:
    [profile] = load_profiles(Path(paths.config_dir())).profiles.values()
    await owner_of(client, consumer_name(profile, settings.host))


async def _run_of(client: Client) -> Run:
    [found] = [run async for run in Ledger(client).runs()]
    return found


async def _with_task(client: Client) -> Run:
    async def there() -> Run | None:
        found = [run async for run in Ledger(client).runs()]
        steps = found[0].steps if found else []
        return found[0] if steps and "task_id" in steps[0].saved else None

    found = await eventually(there)
    assert isinstance(found, Run)
    return found


async def _ended(client: Client) -> Run:
    async def over() -> Run | None:
        found = await _run_of(client)
        return found if found.finished else None

    found = await eventually(over)
    assert isinstance(found, Run)
    return found


async def _across_a_restart(
    agent: Peer, processes: Processes, done: Path, *, kill: bool
) -> tuple[Run, list[str]]:
    settings = Settings()
    async with mesh_client(settings) as client:
        pid = processes.start()
        await _owned(client, settings)
        event = await publish(client, settings)
        before = await _with_task(client)
        (processes.kill if kill else processes.stop)(pid)
        assert (await _run_of(client)).finished is False
        processes.start()
        await eventually(lambda: "a2a.resumed" in processes.said())
        done.touch()
        after = await _ended(client)
        assert after.steps[0].saved["task_id"] == before.steps[0].saved["task_id"]
        [told_of] = await told(client, "a2a.task.completed")
        assert (told_of.causation_id, told_of.correlation_id) == (event.id, event.correlation_id)
        [emitted] = await told(client, "far.done")
        assert emitted.payload == {"text": "waited"}
        return after, [one.topic for one in await told(client, "automation.step.unknown")]


@pytest.mark.parametrize(
    ("kill", "more"),
    [
        (True, ""),
        pytest.param(True, ", stream: true", marks=pytest.mark.slow),
        pytest.param(False, "", marks=pytest.mark.slow),
        pytest.param(False, ", stream: true", marks=pytest.mark.slow),
    ],
)
def test_long_task(nats_server: EmbeddedServer, tmp_path: Path, kill: bool, more: str) -> None:
    """Handlers that are killed (-9) or stopped while the agent is at work leave a task that their
    successors wait for: one message, one task, one attempt, no doubt, nothing canceled."""
    done = tmp_path / "done"
    write_profiles(TEXT.format(said=f"wait {done}", more=more))
    with peer(tmp_path / "agent") as agent, handlers(tmp_path / "logs") as processes:
        configure(scripted={"url": agent.address})
        after, unknown = run(_across_a_restart(agent, processes, done, kill=kill))
        assert (after.state, after.attempt, unknown) == ("succeeded", 1, [])
        assert len(agent.heard()) == 1
        assert agent.heard("cancel") == []


@pytest.mark.slow
def test_killed_while_sending(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Killed after the agent has heard, and before its answer came: the successor finds the task by
    its message, and does not ask twice."""
    out, done = tmp_path / "out", tmp_path / "done"
    write_profiles(TEXT.format(said=f"hold {out} {done}", more=""))

    async def body(agent: Peer, processes: Processes) -> Run:
        settings = Settings()
        async with mesh_client(settings) as client:
            pid = processes.start()
            await _owned(client, settings)
            await publish(client, settings)
            await eventually(agent.heard)
            processes.kill(pid)
            assert "task_id" not in (await _run_of(client)).steps[0].saved
            out.touch()
            processes.start()
            await _with_task(client)
            assert "a2a.found" in processes.said()
            done.touch()
            return await _ended(client)

    with peer(tmp_path / "agent") as agent, handlers(tmp_path / "logs") as processes:
        configure(scripted={"url": agent.address})
        ended = run(body(agent, processes))
        assert (ended.state, ended.attempt) == ("succeeded", 1)
        assert len(agent.heard()) == 1


@pytest.mark.slow
def test_restarted_run_takes_its_task_with_it(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A run that a newer one takes the place of has its task canceled at the agent."""
    done = tmp_path / "done"
    text = TEXT.format(said=f"wait {done}", more="").replace(
        "timeout: 15m", "timeout: 15m\n    concurrency: {mode: restart}"
    )
    write_profiles(text)

    async def body(agent: Peer, processes: Processes) -> None:
        settings = Settings()
        async with mesh_client(settings) as client:
            processes.start()
            await _owned(client, settings)
            await publish(client, settings)
            first = await _with_task(client)
            await publish(client, settings)
            await eventually(lambda: agent.heard("cancel"))
            [canceled] = agent.heard("cancel")
            assert canceled["task"] == first.steps[0].saved["task_id"]
            await eventually(lambda: len(agent.heard()) == 2)

    with peer(tmp_path / "agent") as agent, handlers(tmp_path / "logs") as processes:
        configure(scripted={"url": agent.address})
        run(body(agent, processes))
