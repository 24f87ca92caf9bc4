"""Real Codex, Claude Code and Gemini CLI, with a scripted model on loopback: what they do is told,
and a person's answer through a profile is what they act upon."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, run
from tests.handlers.approving import asked, reply
from tests.handlers.mesh import mesh
from tests.producers.agent import StandInAgent, until
from tests.producers.process import producing
from tests.producers.real_agents import Workplace, installed, workplace
from tests.producers.scripted_model import serving
from tests.producers.yazis import Terminal
from tests.router.agent_process import agent as mesh_agent

from opsmesh.producers.agents.wiring import Claude, Codex, Gemini
from opsmesh.router.server import EmbeddedServer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real agents")]
EXAMPLE = Path(__file__).parents[2] / "docs/examples/coding-agents.yaml"
EXEC = ("exec", "--skip-git-repo-check")
FAILS = "sleep 0.3; echo secret-output; exit 3"


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that wirings find, and no folder of an agent elsewhere."""
    monkeypatch.setenv("HOME", str(home / "dev"))
    monkeypatch.setenv("CODEX_HOME", str(home / "dev/.codex"))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    return home


def short(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    names = ("tool", "command", "status", "exit_code")
    return [
        (event["topic"], *(event["payload"][name] for name in names if name in event["payload"]))
        for event in events
    ]


def chosen(terminal: Terminal) -> bool:
    """Press the key for "trust all" until it is chosen: the question is shown before it listens."""
    terminal.type("codex", "2")
    return "› 2. Trust all" in terminal.screen("codex")


def test_codex(at_home: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of Codex is told while it runs: its command, its turn, whose terminal it is in."""
    installed("codex")
    with serving(("exec_command", {"cmd": FAILS})) as url, workplace(at_home, url) as place:
        place.codex(sandbox="danger-full-access")
        (place.home / ".codex/sessions").mkdir()
        with producing("codex", log=at_home / "log"):
            until((at_home / "state/opsmesh/producers/codex/memory.json").exists)
            done = place.run("codex", *EXEC, "say-nothing", OPSMESH_SESSION="desk")
            assert done.returncode == 0, done.stderr
            events = agent.wait_for(lambda events: len(events) == 3)
    assert short(events) == [
        ("agent.session.started",),
        ("agent.command.executed", FAILS, "failed", 3),
        ("agent.turn.completed", "completed"),
    ]
    assert {event["session_id"] for event in events} == {"desk"}
    assert {event["workspace"] for event in events} == {str(place.project)}
    assert events[2]["payload"]["output_tokens"] == 14
    assert "say-nothing" not in json.dumps(events)
    assert "secret-output\\n" not in json.dumps(events)


def test_codex_whose_model_fails(at_home: Path, agent: StandInAgent) -> None:
    """A model that answers with an error is a failed turn, and an error."""
    installed("codex")
    with serving(fails=500) as url, workplace(at_home, url) as place:
        place.codex()
        (place.home / ".codex/sessions").mkdir()
        with producing("codex", log=at_home / "log"):
            until((at_home / "state/opsmesh/producers/codex/memory.json").exists)
            assert place.run("codex", *EXEC, "do it").returncode == 1
            events = agent.wait_for(lambda events: len(events) >= 3)
    assert [event["topic"] for event in events][-2:] == ["agent.turn.completed", "agent.error"]
    assert events[-2]["payload"]["status"] == "failed"


def test_codex_is_answered_through_the_mesh(nats_server: EmbeddedServer, at_home: Path) -> None:
    """Codex asks for permission, a profile asks a person, and Codex does what she says."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not here")
    program, wanted = installed("codex"), at_home / "wanted"
    arguments = {
        "cmd": f"touch {wanted}",
        "sandbox_permissions": "require_escalated",
        "justification": "need to write",
    }

    async def body(place: Workplace, terminal: Terminal) -> str:
        async with mesh(EXAMPLE.read_text()) as m:
            environment = [f"{name}={value}" for name, value in place.environment().items()]
            directory = ("env", "-C", str(place.project), "-i", *environment)
            terminal.run("codex", *directory, str(program), "do it")
            await eventually(lambda: "Hooks need review" in terminal.screen("codex"))
            await eventually(lambda: chosen(terminal))
            terminal.type("codex", "Enter")
            [one] = await asked(m)
            await reply(m.client, one)
            await eventually(wanted.exists)
            return str(one.asked.prompt)

    with serving(("exec_command", arguments)) as url, workplace(at_home, url) as place:
        place.codex()
        place.wire(Codex(decide="1m"))
        terminal = Terminal(at_home)
        try:
            with mesh_agent(at_home):
                prompt = run(body(place, terminal), timeout=120)
        finally:
            terminal.close()
    assert f"touch {wanted}" in prompt


@pytest.mark.parametrize("verdict", ["granted", "denied"])
def test_claude_code_is_answered_through_the_mesh(
    nats_server: EmbeddedServer, at_home: Path, verdict: str
) -> None:
    """Claude Code asks for permission, and does, or leaves, what the person says; its session is
    told beside it."""
    installed("claude")

    async def body(place: Workplace) -> list[Any]:
        async with mesh(EXAMPLE.read_text()) as m:
            claude = asyncio.create_task(asyncio.to_thread(place.run, "claude", "-p", "do it"))
            [one] = await asked(m)
            await reply(m.client, one, verdict)
            done = await claude
            assert done.returncode == 0, done.stderr
            await m.wait("agent.session.ended")
            return await m.events("agent.>")

    call = ("Bash", {"command": "touch wanted; exit 3", "description": "Touch"})
    with serving(call) as url, workplace(at_home, url) as place:
        place.wire(Claude(decide="1m"))
        with mesh_agent(at_home):
            events = run(body(place), timeout=120)
    ran = [("agent.command.executed", "touch wanted; exit 3", "failed", 3)]
    assert short([{"topic": one.topic, "payload": one.payload} for one in events]) == [
        ("agent.session.started",),
        ("agent.approval.requested", "Bash", "touch wanted; exit 3"),
        *(ran if verdict == "granted" else []),
        ("agent.turn.completed", "completed"),
        ("agent.session.ended",),
    ]
    assert (place.project / "wanted").exists() == (verdict == "granted")
    assert len({event.correlation_id for event in events}) == 1


def test_gemini_cli(at_home: Path, agent: StandInAgent) -> None:
    """A session of Gemini CLI is told by its hooks."""
    installed("gemini")
    call = ("run_shell_command", {"command": "exit 3", "description": "Fail"})
    with serving(call) as url, workplace(at_home, url) as place:
        place.wire(Gemini(), base={"security": {"auth": {"selectedType": "gemini-api-key"}}})
        arguments = ("--skip-trust", "--yolo", "-m", "gemini-2.5-flash", "-p", "do it")
        done = place.run("gemini", *arguments)
        assert done.returncode == 0, done.stderr
        events = agent.wait_for(lambda events: len(events) >= 4)
    assert short(events) == [
        ("agent.session.started",),
        ("agent.command.executed", "exit 3", "failed", 3),
        ("agent.turn.completed", "completed"),
        ("agent.session.ended",),
    ]
