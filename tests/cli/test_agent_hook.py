"""`opsmesh agent-hook`: what agents' hooks call. It never fails them, and never holds them up."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.conftest import Cli
from tests.cli.test_emit import CODE, HEAVY
from tests.conftest import WHOLE, run
from tests.handlers.approving import asked, reply
from tests.handlers.mesh import mesh
from tests.producers.agent import standing_in
from tests.router.agent_process import agent, spooled

from opsmesh.cli.agent_hook import command as agent_hook
from opsmesh.cli.doctor import agents as agents_check
from opsmesh.producers.agents import failures
from opsmesh.producers.memory import Memory
from opsmesh.router.server import EmbeddedServer

DATA = Path(__file__).parents[1] / "producers/data/agents"
EXAMPLE = Path(__file__).parents[2] / "docs/examples/coding-agents.yaml"
#: Looks like a token of GitHub's, and is none.
SECRET = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"


def captured(name: str, *holds: str) -> str:
    """The first call of a captured session that holds these texts."""
    lines = (DATA / f"{name}.jsonl").read_text().splitlines()
    return next(line for line in lines if all(text in line for text in holds))


ASKS = captured("claude-denied", "PermissionRequest")
RAN = captured("claude-allowed", "PostToolUseFailure", "exit 3")


#: No call is cut off because the machine is busy: what a limit does has tests of its own.
PATIENT = "from opsmesh.cli.agent_hook import command\n{}\n" + CODE
ALL = "command.PATIENCE = command.DELIVERY = 60.0"


def start(*arguments: str, limits: str = ALL) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", PATIENT.format(limits), "agent-hook", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)


def hook(*arguments: str, text: str | bytes = RAN, limits: str = ALL) -> tuple[int, bytes, bytes]:
    """A call: exit code, standard output, standard error."""
    process = start(*arguments, limits=limits)
    out, err = process.communicate(text if isinstance(text, bytes) else text.encode(), WHOLE)
    return process.returncode, out, err


def said() -> list[str]:
    """What went wrong, as `doctor` reads it."""
    return [what for _, what in failures.recent(time.time())]


@pytest.fixture
def alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither broker nor agent, and no variable that says a session or workspace."""
    for name in ("OPSMESH_WORKSPACE", "OPSMESH_SESSION", "OPSMESH_EDITOR_SESSION"):
        monkeypatch.delenv(name, raising=False)
    return home


def test_a_call_without_a_mesh_waits_on_disk(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent sees nothing but 0; the event has session, workspace and story of its own."""
    monkeypatch.setenv("OPSMESH_SESSION", "desk")
    (alone / "proj/.git").mkdir(parents=True)
    text = RAN.replace("/home/dev/proj", str(alone / "proj"))
    assert hook("--agent", "claude", text=text) == (0, b"", b"")
    (event,) = spooled()
    session = json.loads(RAN)["session_id"]
    wanted = {
        **{"topic": "agent.command.executed", "source": "claude", "component": "hook"},
        **{"session_id": "desk", "workspace": str(alone / "proj"), "correlation_id": session},
        "exit_code": 3,
    }
    assert {name: event[name] for name in wanted} == wanted
    assert said() == []


def test_several_calls_keep_their_order(alone: Path) -> None:
    """What a session's hooks tell while the mesh is down lies in the spool in its order."""
    for line in (DATA / "claude-allowed.jsonl").read_text().splitlines()[:10]:
        hook("--agent", "claude", text=line)
    assert [event["topic"].partition(".")[2] for event in spooled()] == [
        *("session.started", "command.executed", "command.executed", "turn.completed"),
        "session.ended",
    ]


@pytest.mark.parametrize(
    ("arguments", "text", "why"),
    [
        ([], b"", "not JSON"),
        ([], b"\xff\xfe", "not JSON"),
        ([], b"[1]", "no JSON object"),
        ([], b"[" * 100_000, "nested too deeply"),
        ([], b'{"hook_event_name":"OfTomorrow"}', "unknown hook OfTomorrow"),
        (["--agent", "Not One"], b"{}", "the call is wrong"),
        (["--agent"], b"{}", "wants a value"),
        (["--decide=soon"], b"{}", "no time"),
        (["--commands", "all"], b"{}", "not one of argv"),
        (["--topic", "nodot"], b"{}", "2 to 6 tokens"),
        (["--field", "a=b", "--topic", "agent.error"], b"{}", "NAME=/POINTER"),
        (["--set", "a=b"], b"{}", "go with --topic"),
        (["--nope"], b"{}", "no option --nope"),
        (["Stop", "Start"], b"{}", "one EVENT only"),
    ],
)
def test_a_fault_is_noted_and_fails_nobody(
    alone: Path, arguments: list[str], text: bytes, why: str
) -> None:
    """Whatever is wrong, the agent gets 0 and nothing to read; `doctor` has it."""
    code, out, _ = hook(*arguments, text=text)
    assert (code, out) == (0, b"")
    (noted,) = said()
    assert why in noted
    assert spooled() == []


def test_an_input_without_end_is_given_up(alone: Path) -> None:
    """An agent that keeps the pipe open is not waited for longer than a second."""
    process = start("--agent", "claude", limits="")
    assert process.stdin is not None
    process.stdin.write(RAN.encode())
    process.stdin.flush()
    assert process.wait(60) == 0
    assert "not done within" in said()[0]


def test_an_input_that_is_too_long_is_taken(alone: Path) -> None:
    """The agent can write all of it, and no more than a bound of it is kept."""
    text = b'{"hook_event_name":"Stop","x":"' + b"x" * (agent_hook.MAX_INPUT + 1) + b'"}'
    assert hook(text=text)[0] == 0
    assert "exceeds" in said()[0]


def test_an_agent_that_hangs_costs_half_a_second(alone: Path) -> None:
    """With a mesh that takes lines and says nothing the event goes to the spool."""
    with standing_in(alone, hang=True):
        # the agent's half alone: the whole second may be over by then on a busy machine
        assert hook(limits="command.PATIENCE = 60.0")[0] == 0
    assert len(spooled()) == 1


def test_any_form_by_pointers(alone: Path) -> None:
    """An agent with a form of its own is told by pointers; texts become what the topic wants."""
    text = '{"run":{"id":"r1"},"tool":{"argv":["make","test"]},"status":2,"cwd":"/"}'
    fields = ("session=/run/id", "argv=/tool/argv", "exit_code=/status")
    options = [word for field in fields for word in ("--field", field)]
    topic = ("--topic", "agent.command.executed", "--severity", "warn")
    assert hook("--agent", "mine", *topic, *options, "--set", "duration_ms=7", text=text)[0] == 0
    (event,) = spooled()
    assert event["payload"] == {
        **{"agent": "mine", "session": "r1", "argv": ["make", "test"], "exit_code": 2},
        "duration_ms": "7",
    }
    assert (event["severity"], event["_coerce"]) == ("warn", True)


def test_help_for_a_person(alone: Path) -> None:
    """--help says what it is."""
    code, out, _ = hook("--help")
    assert (code, b"opsmesh install codex" in out) == (0, True)


def test_nothing_heavy_is_imported(alone: Path) -> None:
    """It starts as fast as Python: none of what `emit` must not load is loaded, nor `signal`."""
    heavy = [*HEAVY.replace("fcntl opsmesh.router.losses", "").split(), "signal", "opsmesh.schemas"]
    heavy.remove("opsmesh.router.spool_overflow")
    code = (
        "before = set(sys.modules)\n"
        "from opsmesh.cli.agent_hook.command import main\n"
        "assert main(['--agent', 'claude']) == 0\n"
        f"print(*[name for name in {heavy} if name in set(sys.modules) - before])"
    )
    # -S: without `site`, whose .pth files may load anything
    search = f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
    argv = [sys.executable, "-S", "-c", search + code]
    done = subprocess.run(argv, input=RAN.encode(), capture_output=True, timeout=180, check=True)
    assert done.stdout.decode().split() == []
    assert len(spooled()) == 1


def test_doctor_says_what_was_not_told(alone: Path, cli: Cli) -> None:
    """Calls that told nothing are counted, the last one with its reason."""
    hook(text=b'{"hook_event_name":"OfTomorrow"}')
    (found,) = [
        one for one in json.loads(cli("doctor", "--json").stdout) if "hooks" in one["check"]
    ]
    assert found["ok"] is False
    assert "1 calls of the last day told nothing" in found["detail"]
    assert "agent: unknown hook OfTomorrow" in found["detail"]


def test_doctor_names_what_of_codex_is_not_understood(alone: Path) -> None:
    """Kinds of lines that a newer Codex writes are named, the most frequent first: no fault."""
    assert list(agents_check.codex()) == []
    unknown = {"of_tomorrow": 7, "rare": 1, "event_msg/x": 2, "event_msg/y": 3}
    Memory("codex").store({"unknown": unknown})
    (found,) = agents_check.codex()
    assert found.ok is None
    assert found.detail.startswith("not understood: of_tomorrow, event_msg/y, event_msg/x and 1")


def test_failures_are_bounded(alone: Path) -> None:
    """However often a hook fails, what is kept of it is small."""
    for number in range(2000):
        failures.note(f"{number} " + "x" * 500)
    kept = [Path(failures.path() + suffix).stat().st_size for suffix in ("", ".1")]
    assert sum(kept) < 3 * failures.MAX_KEPT
    assert said()[-1].startswith("1999 ")


# --- a person's answer


@pytest.mark.parametrize(
    ("verdict", "decision"),
    [
        ("granted", {"behavior": "allow"}),
        pytest.param(
            "denied",
            {"behavior": "deny", "message": "me denied it: not today"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_person_answers_the_agent(
    nats_server: EmbeddedServer, home: Path, verdict: str, decision: dict[str, str]
) -> None:
    """The example's profile asks, a person answers, and the agent reads the decision. A secret in
    the command leaves neither with the event nor with the question."""
    text = ASKS.replace("echo hello", f"echo hello {SECRET}")

    async def body() -> tuple[int, bytes, bytes]:
        async with mesh(EXAMPLE.read_text()) as m:
            with agent(home):
                call = asyncio.create_task(
                    asyncio.to_thread(hook, "--agent", "claude", "--decide=10m", text=text)
                )
                [one] = await asked(m)
                assert "claude in" in one.asked.prompt
                assert "echo hello" in one.asked.prompt
                [event] = await m.events("agent.approval.requested")
                assert SECRET not in one.asked.prompt + str(event.payload)
                comment = {"comment": "not today"} if verdict == "denied" else {}
                await reply(m.client, one, verdict, **comment)
                return await call

    code, out, err = run(body())
    assert (code, err) == (0, b"")
    assert json.loads(out) == {
        "hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}
    }


def test_nobody_asks_and_nobody_is_waited_for(alone: Path) -> None:
    """Without a mesh a request that could be answered is spooled, and the agent asks by itself."""
    assert hook("--agent", "claude", "--decide=1m", text=ASKS) == (0, b"", b"")
    (event,) = spooled()
    assert event["payload"]["decide"] is True


def test_an_agent_that_cannot_follow_gives_no_decision(alone: Path) -> None:
    """A mesh whose agent refuses to say what becomes of it is no reason to wait (a stand-in)."""
    with standing_in(alone) as stand_in:
        assert hook("--agent", "codex", "--decide=1m", text=ASKS) == (0, b"", b"")
    assert [event["topic"] for event in stand_in.events] == ["agent.approval.requested"]
