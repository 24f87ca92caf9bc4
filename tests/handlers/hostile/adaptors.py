"""An adaptor for every kind of action. One without fails the tests by name."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml
from tests.handlers import a2a_peers, session_bus
from tests.handlers.conftest import EVENT
from tests.handlers.hostile.canary import write_tool
from tests.handlers.hostile.stage import Adaptor, Show, Stage, X
from tests.handlers.user_manager import CannotStart, user_manager

from opsmesh.handlers import rehearse
from opsmesh.handlers.actions.a2a import A2a
from opsmesh.handlers.actions.collect import Collect
from opsmesh.handlers.actions.command import Command
from opsmesh.handlers.actions.contract import Followed, NoMesh, Past, Question, Reply, StepResult
from opsmesh.handlers.actions.emit import Emit
from opsmesh.handlers.actions.mcp import Mcp
from opsmesh.handlers.actions.notify import SHARED, Notify
from opsmesh.handlers.actions.restart import RestartUnit
from opsmesh.handlers.actions.rollback import RollbackConfig
from opsmesh.handlers.actions.trigger import Trigger
from opsmesh.handlers.actions.wait import Wait
from opsmesh.handlers.desktop.board import Board
from opsmesh.handlers.profiles.profile import from_source
from opsmesh.handlers.runs import asking
from opsmesh.handlers.sandbox import host, prepare
from opsmesh.router import paths
from opsmesh.schemas import times
from opsmesh.schemas.envelope import MAX_PAYLOAD, Event, decode, encode

#: Bytes of one argument: the kernel's MAX_ARG_STRLEN, execve(2).
MAX_ARGUMENT: Final = 128 * 1024

#: What a screen obeys, and what turns a text around.
_ACTS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+")


class Witness:
    """A program that writes down what it was given, to the byte: arguments, a variable, input."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "tools" / "witness"
        self.file = folder / "seen"
        write_tool(
            self.program,
            '{ printf "%s\\0" "$@"; } >"$WITNESS"; printf %s "$X" >"$WITNESS.env"; '
            'exec /bin/cat >"$WITNESS.stdin"',
        )

    def forget(self) -> None:
        """Before the next payload."""
        for suffix in ("", ".env", ".stdin"):
            Path(f"{self.file}{suffix}").unlink(missing_ok=True)

    def arguments(self) -> list[bytes] | None:
        """What it was started with; None when it was not."""
        return self.file.read_bytes().split(b"\0")[:-1] if self.file.exists() else None

    def saw(self, suffix: str) -> bytes:
        """The variable, or the input."""
        return Path(f"{self.file}{suffix}").read_bytes()


def no_argument(text: str) -> bool:
    """What no program can be given."""
    return "\0" in text or len(text.encode()) + len("--flag=") >= MAX_ARGUMENT


def not_by_systemd(text: str) -> bool:
    """What systemd does not hand on: controls in variables, and what it takes for no character."""
    return (
        no_argument(text)
        or re.search(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff\U0010ffff]", text) is not None
    )


@asynccontextmanager
async def command(
    stage: Stage, *, sandbox: str, refused: Callable[[str], bool]
) -> AsyncIterator[Show]:
    """Arguments, variable and input of a program, in any sandbox."""
    witness = Witness(stage.folder)
    confined = (
        {"sandbox": sandbox}
        if sandbox == "none"
        else {
            "sandbox": sandbox,
            "write": [str(stage.folder)],
        }
    )
    action = Command.parse(
        {
            "argv": [str(witness.program), "--", X, f"--flag={X}", "${{ steps.before.stdout }}"],
            "env": {"WITNESS": str(witness.file), "X": X},
            "stdin": {"text": X},
            **confined,
        }
    )
    bare = Command.parse(
        {"argv": [str(witness.program), X], "env": {"WITNESS": str(witness.file)}, **confined}
    )

    async def show(text: str) -> Sequence[StepResult]:
        raw = text.encode()
        witness.forget()
        result = await action.run(stage.context(text))
        if refused(text):
            assert not result.ok
            assert not result.retryable
            assert witness.arguments() is None
        else:
            assert result.ok, result
            assert witness.arguments() == [b"--", raw, b"--flag=" + raw, raw]
            assert witness.saw(".env") == raw
            assert witness.saw(".stdin") == raw
        witness.forget()
        plain = await bare.run(stage.context(text))
        if text.startswith("-"):
            assert "became an option" in (plain.error or "")
        if text.startswith("-") or no_argument(text):
            assert not plain.ok
            assert witness.arguments() is None
        elif not refused(text):
            assert witness.arguments() == [raw]
        return [result, plain]

    yield show


@asynccontextmanager
async def in_bwrap(stage: Stage) -> AsyncIterator[Show]:
    """A program in bubblewrap."""
    if why := host.bwrap():
        pytest.skip(why)
    async with command(stage, sandbox="bwrap", refused=no_argument) as show:
        yield show


@asynccontextmanager
async def in_systemd(stage: Stage) -> AsyncIterator[Show]:
    """A program in a service of a real manager."""
    runtime = Path(tempfile.mkdtemp(prefix="opsmesh-"))  # a socket's path is short
    try:
        with user_manager(runtime):
            stage.monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
            stage.monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
            prepare.forget()
            async with command(stage, sandbox="systemd", refused=not_by_systemd) as show:
                yield show
    except CannotStart as why:
        pytest.skip(str(why))
    finally:
        shutil.rmtree(runtime, ignore_errors=True)


@asynccontextmanager
async def collect(stage: Stage) -> AsyncIterator[Show]:
    """Programs, units, journals and files of a bundle. The profile names systemctl and journalctl:
    stand-ins write down what they were asked."""
    witness = Witness(stage.folder)
    asked = stage.folder / "asked"
    for name in ("systemctl", "journalctl"):
        # one write for each call: they run at the same time
        write_tool(stage.canary.tools / name, f'printf "%s\\0" {name} "$@" "\n" >>"{asked}"')
    (stage.folder / "logs").mkdir()
    action = Collect.parse(
        [
            {
                "name": "said",
                "command": ["env", f"WITNESS={witness.file}", str(witness.program), "--", X],
            },
            {"name": "open", "command": [str(witness.program), X]},
            {"unit_status": {"unit": X}},
            {"unit_file": {"unit": X}},
            {"journal": {"unit": X}},
            "unit_status",
            {"name": "log", "file": f"{stage.folder}/logs/{X}"},
        ]
    )

    async def show(text: str) -> Any:
        witness.forget()
        asked.unlink(missing_ok=True)
        result = await action.run(stage.context(text))
        assert result.ok, result
        folder = Path(result.output["path"])
        assert folder.is_relative_to(stage.folder.parent / "bundles")
        if no_argument(text):
            assert witness.arguments() is None
        else:
            assert witness.arguments() == [b"--", text.encode()]
        calls = asked.read_bytes().split(b"\0\n\0")[:-1] if asked.exists() else []
        for call in calls:
            _one_unit(call.decode().split("\0"), text)
        return [
            path.read_text(errors="replace")
            for path in folder.iterdir()
            if path.name != "event.json"
        ]

    yield show


def _one_unit(argv: list[str], text: str) -> None:
    """A manager was asked about exactly this text, as a unit's name and nothing else."""
    assert _UNIT.fullmatch(text), f"{argv} was asked about {text!r}"
    if argv[0] == "journalctl":
        assert argv[-1] in (f"--unit={text}", f"--user-unit={text}")
        own = argv[1:-1]
    else:
        assert argv[-2:] == ["--", text]
        own = argv[1:-2]
    assert text not in own


@asynccontextmanager
async def emit(stage: Stage) -> AsyncIterator[Show]:
    """Every field of an event that a profile publishes."""
    action = Emit.parse(
        {
            "topic": "probe.said",
            "payload": {"x": X, "whole": "${{ event.payload.x }}", "key": {"a": [f"<{X}>"]}},
            "component": X,
            "workspace": X,
            "evidence_path": X,
        }
    )
    plain = Emit.parse(
        {"topic": "probe.said", "payload": {"x": X}, "severity": "${{ event.payload.x }}"}
    )

    async def show(text: str) -> Any:
        stage.published.clear()
        result = await action.run(stage.context(text))
        wrong = await plain.run(stage.context(text))
        assert not wrong.ok
        if not result.ok:
            assert "exceeds" in (result.error or "")
            assert len(text.encode()) > MAX_PAYLOAD // 4
            return [result.error, wrong.error]
        assert "severity" in (wrong.error or "")
        [event] = stage.published
        assert (event.topic, event.host, event.severity) == ("probe.said", "dev", "info")
        assert event.payload == {"x": text, "whole": text, "key": {"a": [f"<{text}>"]}}
        assert event.component == (text or "hostile")
        assert event.evidence_path == (text or None)
        assert decode(encode(event)) == event
        return [result, wrong.error]

    yield show


@asynccontextmanager
async def notify(stage: Stage) -> AsyncIterator[Show]:
    """Title, body and group of a notification, with buttons; the daemon is a stand-in."""
    session_bus.required()
    folder = Path(tempfile.mkdtemp(prefix="opsmesh-"))
    with session_bus.running(folder) as desktop:
        desktop.start_daemon()
        stage.monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", desktop.address)

        async def make() -> Board:
            return Board(per_minute=100_000, press=_nobody_presses)

        await stage.shared.get(SHARED, make)
        value = {"title": X, "body": f"<{X}>", "group": X, "actions": ["approve", "deny"]}
        action = Notify.parse(value)

        async def show(text: str) -> Any:
            await asyncio.to_thread(desktop.forget)
            result = await action.run(stage.context(text))
            assert result.ok, result
            [seen] = await asyncio.to_thread(desktop.seen)
            assert seen.icon == "dialog-information"
            assert seen.actions == ["approve", "Approve", "deny", "Deny"]
            assert "\n" not in seen.title
            for shown in (seen.title, seen.body):
                assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown) is None
            assert "<" not in seen.body
            assert re.search("&(?!amp;|lt;|gt;|quot;|apos;)", seen.body) is None
            return [result, seen]

        yield show
    shutil.rmtree(folder, ignore_errors=True)


async def _nobody_presses(notice: Any, button: Any) -> str:
    raise AssertionError(f"{button} of {notice} was pressed by nobody")


@asynccontextmanager
async def mcp(stage: Stage) -> AsyncIterator[Show]:
    """Arguments of a tool; the server is a real one, and writes down each line that it reads."""
    pytest.importorskip("mcp")
    log = stage.folder / "lines"
    server = Path(__file__).parent.parent / "mcp_liar.py"
    _settings(
        mcp_servers={
            "liar": {
                "command": sys.executable,
                "args": [str(server)],
                "env": {"LIAR_LOG": str(log)},
            }
        }
    )
    action = Mcp.parse({"server": "liar", "tool": "echo", "arguments": {"text": X}})

    async def show(text: str) -> Any:
        if log.exists():
            log.write_text("")
        stage.published.clear()
        ctx = stage.context(text)
        result = await action.run(ctx)
        calls = [json.loads(line) for line in log.read_text().split("\n") if line.strip()]
        calls = [call for call in calls if call.get("method") == "tools/call"]
        for call in calls:
            assert call["params"]["name"] == "echo"
            assert call["params"]["arguments"] in (
                {"text": text},
                {"text": ctx.redactor.text(text)},
            )
        assert len(calls) == 1, result
        assert {event.topic for event in stage.published} <= {
            "mcp.tool.completed",
            "mcp.tool.failed",
        }
        if not result.ok:  # the answer, which holds the text too, may be over a limit
            assert len(text) > 10_000, result
        return [result, stage.published]

    yield show


@asynccontextmanager
async def a2a(stage: Stage) -> AsyncIterator[Show]:
    """Text and data for an agent made with the SDK; what it heard is compared."""
    pytest.importorskip("a2a")
    with a2a_peers.peer(stage.folder.parent / "agent") as agent:
        _settings(a2a_agents={"scripted": {"url": agent.address}})
        said = A2a.parse({"agent": "scripted", "message": f"echo {X}", "poll": "20ms"})
        given = A2a.parse({"agent": "scripted", "message": {"x": X}, "poll": "20ms"})

        async def show(text: str) -> Any:
            heard = agent.folder / "heard"
            results = []
            for action in (said, given):
                heard.unlink(missing_ok=True)
                stage.published.clear()
                ctx = stage.context(text)
                results.append(await action.run(ctx))
                messages = [one["message"] for one in agent.heard()]
                assert len(messages) <= 1
                for message in messages:
                    assert message["role"] == "ROLE_USER"
                    part = message["parts"][0]
                    what = part["text"] if action is said else part["data"]["x"]
                    clean = ctx.redactor.text(text)
                    assert what in (
                        (f"echo {text}", f"echo {clean}") if action is said else (text, clean)
                    )
                if not messages:
                    assert not results[-1].ok
                    assert len(text) > 10_000, results[-1]
                assert {event.topic for event in stage.published} <= {
                    "a2a.task.completed",
                    "a2a.task.failed",
                }
            return results

        yield show


class Wires(NoMesh):
    """A stand-in for the mesh: what was asked of it, and one event that comes by."""

    def __init__(self) -> None:
        self.triggered: list[tuple[str, Event]] = []
        self.comes: list[Event] = []
        self.topics: list[Sequence[str]] = []

    async def trigger(self, profile: str, event: Event, *, id: str) -> None:
        self.triggered.append((profile, event))

    async def follow(
        self, topics: Sequence[str], *, since_us: int | None = None, after_seq: int | None = None
    ) -> AsyncIterator[Followed]:
        self.topics.append(topics)
        for n, event in enumerate(self.comes, start=1):
            yield Followed(seq=n, stored_us=times.now_us(), event=event)


@asynccontextmanager
async def trigger(stage: Stage) -> AsyncIterator[Show]:
    """The payload that another profile is run with; which one is the profile's own to say."""
    action = Trigger.parse({"profile": "other", "payload": {"x": X, "in": [{"a": f"<{X}>"}]}})
    passed_on = Trigger.parse("other")

    async def show(text: str) -> Any:
        wires = Wires()
        result = await action.run(stage.context(text, mesh=wires))
        whole = await passed_on.run(stage.context(text, mesh=wires))
        assert whole.ok or "exceeds" in (whole.error or "")
        if not result.ok:
            assert "exceeds" in (result.error or "")
            assert len(text.encode()) > MAX_PAYLOAD // 4
        else:
            profile, event = wires.triggered[0]
            assert event.payload == {"x": text, "in": [{"a": f"<{text}>"}]}
            assert (profile, event.topic, event.host) == ("other", EVENT.topic, EVENT.host)
        assert {profile for profile, _ in wires.triggered} <= {"other"}
        return [result, whole]

    yield show


@asynccontextmanager
async def wait(stage: Stage) -> AsyncIterator[Show]:
    """Both sides of a condition: what is awaited, and what came before, hold the payload."""
    where = "event.payload.x == trigger.payload.x && event.payload.x != vars.private"
    action = Wait.parse(
        {"on": "service.started", "where": where, "key": "payload.unit", "timeout": "10s"}
    )

    async def show(text: str) -> Any:
        wires = Wires()
        ctx = stage.context(text, mesh=wires)
        other = msgspec.structs.replace(
            ctx.event, id="other", payload={"x": f"{text}!", "unit": text}
        )
        same = msgspec.structs.replace(ctx.event, id="same")
        wires.comes = [other, same]
        result = await action.run(ctx)
        assert result.ok, result
        assert result.output["event"]["id"] == "same"
        assert result.output["event"]["payload"]["x"] == text
        assert wires.topics == [("service.started",)]
        return result

    yield show


@asynccontextmanager
async def approve(stage: Stage) -> AsyncIterator[Show]:
    """The question before a step: a person reads it, and the step is not run meanwhile."""
    witness = Witness(stage.folder)
    source = {
        "on": "service.start.failed",
        "actions": [{"approve": f"restart {X}?", "command": [str(witness.program), "--", X]}],
    }
    profile = from_source("hostile", source)

    async def show(text: str) -> Any:
        ctx = stage.context(text)
        asked: list[Question] = []

        def replies(step: str, question: Question) -> Reply:
            asked.append(question)
            return Reply(verdict="denied", by="nobody")

        run, _ = await rehearse.act(
            profile,
            [ctx.event],
            ctx.data,
            host="dev",
            rehearsal_id=ctx.run_id,
            workdir=ctx.folder,
            bundles=ctx.bundles,
            publish=ctx.publish,
            replies=replies,
        )
        assert len(asked) == 1
        assert witness.arguments() is None
        prompt = run.steps[0].asked[-1].prompt
        assert prompt.startswith("restart ")
        assert len(prompt) <= asking.MAX_PROMPT
        assert _ACTS.search(prompt) is None
        return [run, prompt]

    yield show


@asynccontextmanager
async def restart_unit(stage: Stage) -> AsyncIterator[Show]:
    """The unit that is restarted; systemctl is a stand-in that writes down what it was asked."""
    asked = stage.folder / "asked"
    write_tool(
        stage.canary.tools / "systemctl",
        f'{{ printf "%s\\0" systemctl "$@"; printf "\\n\\0"; }} >>"{asked}"; '
        'printf "LoadState=loaded\\nActiveState=failed\\n"',
    )
    actions = [RestartUnit.parse({"settle": "0s"}), RestartUnit.parse({"unit": X, "settle": "0s"})]

    async def show(text: str) -> Any:
        asked.unlink(missing_ok=True)
        results = [await action.run(stage.context(text)) for action in actions]
        calls = asked.read_bytes().split(b"\0\n\0")[:-1] if asked.exists() else []
        for call in calls:
            _one_unit(call.decode().split("\0"), text)
        assert bool(calls) == all(one.output.get("unit") == text for one in results)
        return results

    yield show


@asynccontextmanager
async def rollback_config(stage: Stage) -> AsyncIterator[Show]:
    """Checks after a rollback, the source, and revisions that events tell; git is the real one."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    witness = Witness(stage.folder)
    repository = stage.folder / "dots"
    repository.mkdir()

    def run(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        done = subprocess.run(
            [git, "-C", str(repository), *who, *arguments], check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    run("init", "--quiet")
    (repository / "rc").write_text("1")
    run("add", "rc")
    run("commit", "--quiet", "-m", "x")
    good = run("rev-parse", "HEAD")
    action = RollbackConfig.parse(
        {
            "source": str(repository),
            "checks": [["env", f"WITNESS={witness.file}", str(witness.program), "--", X]],
        }
    )
    bare = RollbackConfig.parse({"source": str(repository), "checks": [[str(witness.program), X]]})
    elsewhere = RollbackConfig.parse({"source": X})

    async def show(text: str) -> Any:
        async def recent(_: Past) -> list[Event]:
            told = [{"tool": "git", "revision": good}, {"tool": "git", "revision": text}]
            return [msgspec.structs.replace(EVENT, payload=one) for one in told]

        witness.forget()
        result = await action.run(stage.context(text, recent=recent))
        assert result.output["to"] == good, result
        if no_argument(text):
            assert witness.arguments() is None
        else:
            assert result.ok, result
            assert witness.arguments() == [b"--", text.encode()]
        plain = await bare.run(stage.context(text, recent=recent))
        assert not (text.startswith("-") and plain.ok)
        ctx = stage.context(text, recent=recent)
        lost = await elsewhere.run(ctx)
        event = msgspec.structs.replace(ctx.event, payload={"tool": text})
        toolless = await action.run(replace(ctx, event=event))
        for one in (lost, toolless):
            assert not one.ok
            assert not one.retryable
        return [result, plain, lost, toolless]

    yield show


def _settings(**sections: Any) -> None:
    file = Path(paths.config_dir(), "config.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(sections))


ADAPTORS: Final = (
    Adaptor("emit", "emit", 500, emit),
    Adaptor("trigger", "trigger", 500, trigger),
    Adaptor("wait", "wait", 500, wait),
    Adaptor("approve", "approve", 100, approve),
    Adaptor(
        "command", "command", 40, functools.partial(command, sandbox="none", refused=no_argument)
    ),
    Adaptor("command", "command-bwrap", 20, in_bwrap),
    Adaptor("command", "command-systemd", 20, in_systemd),
    Adaptor("collect", "collect", 20, collect),
    Adaptor("notify", "notify", 60, notify),
    Adaptor("restart_unit", "restart_unit", 60, restart_unit),
    Adaptor("rollback_config", "rollback_config", 8, rollback_config),
    Adaptor("mcp", "mcp", 40, mcp),
    Adaptor("a2a", "a2a", 8, a2a),
)
