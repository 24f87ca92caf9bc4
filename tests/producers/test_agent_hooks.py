"""What a call of an agent's hook means: every call that real agents made, in `data/agents`.

Captured with a scripted model on loopback: Codex 0.169.0 (`codex-hooks`), Claude Code 2.1.332
(`claude-allowed`: commands run, then a model that is not there; `claude-denied`: nobody says yes),
Gemini CLI 0.61.0 (`gemini`). What an interactive Gemini CLI asks is from its documentation and
source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opsmesh.producers.agents import hooks, pointers, words
from opsmesh.schemas.payloads import TOPICS
from opsmesh.schemas.registry import Registry

DATA = Path(__file__).parent / "data/agents"
#: What the captured sessions were about: none of it may be in an event.
SAID = ("do it", "secret text", "done", "ok", "hello\n", "There's an issue")


def calls(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines() if line]


def told(name: str, **more: Any) -> list[dict[str, Any]]:
    agent = name.partition("-")[0]
    return [event for call in calls(name) for event in hooks.told(agent, call, **more)]


def short(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The topic, and what tells one event from the next."""
    names = ("status", "exit_code", "tool", "command", "path", "error", "code", "reason", "how")
    return [
        (event["topic"], *(event["payload"][name] for name in names if name in event["payload"]))
        for event in events
    ]


def texts(value: Any) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, dict):
        for one in value.values():
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value


def test_claude_code_runs_commands() -> None:
    """A session of Claude Code is told with its commands and their status, and a model's error."""
    assert short(told("claude-allowed")) == [
        ("agent.session.started", "startup"),
        ("agent.command.executed", "failed", 3, "echo hello; exit 3"),
        ("agent.command.executed", "completed", 0, "touch /home/dev/out/out.txt"),
        ("agent.turn.completed", "completed"),
        ("agent.session.ended", "other"),
        ("agent.session.started", "startup"),
        ("agent.turn.completed", "failed", "model_not_found"),
        ("agent.error", "model_not_found"),
        ("agent.session.ended", "other"),
    ]


def test_claude_code_asks() -> None:
    """A request for permission is told with the command, or the file that it is about."""
    assert short(told("claude-denied"))[1:4] == [
        ("agent.approval.requested", "Bash", "echo hello; exit 3"),
        ("agent.approval.requested", "Bash", "touch /home/dev/out/out.txt"),
        ("agent.approval.requested", "Write", "/home/dev/proj/new.txt"),
    ]


def test_gemini() -> None:
    """A session of Gemini CLI is told with its commands; their status stands below the output."""
    assert short(told("gemini")) == [
        ("agent.session.started", "startup"),
        ("agent.command.executed", "completed", 0, "echo fine"),
        ("agent.command.executed", "failed", 3, "echo hello; exit 3"),
        ("agent.turn.completed", "completed"),
        ("agent.session.ended", "exit"),
    ]


def test_gemini_asks() -> None:
    """Its notification about a permission becomes a request (documentation and source)."""
    call = {
        "session_id": "s",
        "cwd": "/home/dev",
        "hook_event_name": "Notification",
        "notification_type": "ToolPermission",
        "message": "Tool Edit requires editing",
        "details": {"type": "edit", "filePath": "/home/dev/a.py", "newContent": "secret text"},
    }
    (event,) = hooks.told("gemini", call)
    assert event["payload"] == {
        **{"session": "s", "agent": "gemini", "cwd": "/home/dev", "tool": "edit"},
        "path": "/home/dev/a.py",
    }


def test_codex_tells_permission_alone() -> None:
    """Of Codex' hooks only the request for permission is told: its files tell the rest, better."""
    assert short(told("codex-hooks")) == [
        ("agent.approval.requested", "Bash", "touch /home/dev/out/approved.txt")
    ]


def test_a_patch_is_no_command() -> None:
    """Codex' tool for patches has the patch where others have a command: its file is told."""
    call = {
        "session_id": "s",
        "hook_event_name": "PermissionRequest",
        "tool_name": "apply_patch",
        "tool_input": {"command": "*** Begin Patch\n*** Update File: src/a.py\n+secret text\n"},
    }
    (event,) = hooks.told("codex", call)
    assert event["payload"] == {
        **{"session": "s", "agent": "codex", "tool": "apply_patch"},
        "path": "src/a.py",
    }


@pytest.mark.parametrize("name", ["claude-allowed", "claude-denied", "gemini", "codex-hooks"])
def test_nothing_that_was_said_is_told(name: str) -> None:
    """No event holds a prompt, an answer, a file's content or output."""
    found = {text for event in told(name) for text in texts(event["payload"])}
    assert found
    assert not found & set(SAID)
    assert not [text for text in found if "secret text" in text]


@pytest.mark.parametrize("name", ["claude-allowed", "claude-denied", "gemini", "codex-hooks"])
def test_every_event_fits_its_topic(name: str) -> None:
    """The payloads are those of the registry, which knows every field of them."""
    registry = Registry(TOPICS)
    for event in told(name):
        registry.check(event["topic"], event["payload"])
        topic = registry.get(event["topic"])
        assert topic is not None
        assert set(event["payload"]) <= set(topic.payload.__struct_fields__)


@pytest.mark.parametrize(
    ("policy", "command"),
    [("argv", "A=1 make test"), ("program", "make"), ("none", None)],
)
def test_the_policy_of_commands(policy: str, command: str | None) -> None:
    """Of a command all is told, its program without what is assigned before it, or nothing."""
    call = {
        "session_id": "s",
        "hook_event_name": "PostToolUse",
        "tool_name": "Bash",
        "tool_input": {"command": "A=1 make test"},
        "tool_response": {},
    }
    (event,) = hooks.told("claude", call, commands=policy)
    assert event["payload"].get("command") == command
    assert event["payload"]["argv"] == ([command] if command else [])


def test_another_agent_is_read_as_claude_code() -> None:
    """An agent that we do not know, and that has copied the form, keeps its own name."""
    (event,) = hooks.told("mine", {"session_id": "s"}, event="Stop")
    assert (event["topic"], event["payload"]["agent"]) == ("agent.turn.completed", "mine")


def test_an_unknown_hook_is_an_error() -> None:
    """A hook that is in no table is told from one that tells nothing."""
    assert hooks.told("claude", {"hook_event_name": "PreToolUse"}) == []
    with pytest.raises(hooks.UnknownHook, match="BrandNew"):
        hooks.told("claude", {"hook_event_name": "BrandNew"})


@pytest.mark.parametrize("value", [None, 7, True, [], {}, [{}], "x", "\ud800", 1e300, -1])
def test_any_value_anywhere_is_harmless(value: Any) -> None:
    """Whatever stands in a field, a call gives events that can be stored, or none."""
    names = {name for call in calls("claude-allowed") + calls("gemini") for name in call}
    for table in hooks.FORMS.values():
        for hook in table:
            agent = next(name for name, form in hooks.FORMS.items() if form is table)
            call = {**dict.fromkeys(names, value), "hook_event_name": hook}
            for event in hooks.told(agent, call):
                json.dumps(event, ensure_ascii=False, allow_nan=False).encode()


def test_a_pointer_finds_its_field() -> None:
    """A payload is made by JSON pointers, of texts, numbers and lists of texts alone."""
    document = {"a": {"b/c": ["x", {"d": 7}]}, "t": True, "deep": {"no": 1}}
    fields = [("one", "/a/b~1c/0"), ("two", "/a/b~1c/1/d"), ("t", "/t"), ("no", "/deep")]
    made = pointers.payload(document, [*fields, ("gone", "/a/b~1c/9")], {"agent": "mine"})
    assert made == {"one": "x", "two": 7, "t": True, "agent": "mine"}


def test_the_program_of_a_line() -> None:
    """The program is the first word that assigns nothing."""
    assert words.program("TOKEN=abc FOO=1 curl -H x") == "curl"
    assert words.argv(["/bin/bash", "-lc", "TOKEN=abc curl x"], words.PROGRAM) == ["curl"]
    assert words.argv(["git", "push", "--token=x"], words.PROGRAM) == ["git"]
    assert words.program("A=1") is None
