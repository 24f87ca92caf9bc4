"""What `opsmesh install codex` (claude, gemini) writes into the agents' settings, and takes out."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli, cli  # noqa: F401 (a fixture)

from opsmesh.producers.agents import hook_settings, hooks
from opsmesh.producers.agents.wiring import Claude, Codex, Gemini
from opsmesh.producers.errors import OptionError, Unusable

GROUP: dict[str, Any] = {"hooks": [{"type": "command", "command": "opsmesh agent-hook --agent x"}]}
THEIRS = """{
    "model": "opus",   "env": {"N": 1.50},
    "hooks": {
        "Stop": [
            {"hooks": [{"type": "command", "command": "say done"}]}
        ]
    },
    "permissions": {"allow": ["Bash(ls:*)", "Read"]}
}
"""


def ours(command: str) -> bool:
    return "agent-hook" in command


def put(text: str, *events: str) -> str:
    return hook_settings.put("settings.json", text, dict.fromkeys(events, GROUP))


def take(text: str) -> str:
    return hook_settings.take("settings.json", text, ours)


@pytest.mark.parametrize(
    "text",
    [
        THEIRS,
        THEIRS.replace("    ", "\t"),
        THEIRS.replace("\n", "\r\n"),
        THEIRS.strip(),
        json.dumps(json.loads(THEIRS)),
        '{\n  "hooks": {}\n}\n',
        '{"a": 1}',
        '{"hooks": {"Stop": []}}',
    ],
)
def test_in_and_out_again(text: str) -> None:
    """After ours was put in and taken out again, the settings say what they said."""
    made = put(text, "Stop", "SessionStart")
    data = json.loads(made)
    assert data["hooks"]["Stop"][-1] == data["hooks"]["SessionStart"][-1] == GROUP
    before = json.loads(text)
    after = json.loads(take(made) or "{}")
    empty = {name for name, groups in before.get("hooks", {}).items() if not groups}
    if not before.get("hooks") or empty:
        before.pop("hooks", None)
    assert after == before


def test_nothing_else_is_touched() -> None:
    """Spaces, order and numbers of theirs stand as they were written, in and out."""
    made = put(THEIRS, "Stop", "SessionStart")
    for line in THEIRS.splitlines():
        assert line.strip(", ") in made
    assert take(made) == THEIRS


def test_no_file_becomes_one_and_none_again() -> None:
    """Where there was nothing, there is nothing afterwards."""
    made = put("", "Stop")
    assert json.loads(made) == {"hooks": {"Stop": [GROUP]}}
    assert take(made) == ""


def test_what_the_user_did_meanwhile_stays() -> None:
    """A handler that was put beside ours, and settings that came, are kept."""
    data = json.loads(put(THEIRS, "Stop", "SessionEnd"))
    data["hooks"]["SessionEnd"][0]["hooks"].insert(0, {"type": "command", "command": "mine"})
    data["theme"] = "dark"
    left = json.loads(take(json.dumps(data, indent=4)))
    assert left["hooks"]["SessionEnd"] == [{"hooks": [{"type": "command", "command": "mine"}]}]
    assert (left["theme"], left["hooks"]["Stop"]) == ("dark", json.loads(THEIRS)["hooks"]["Stop"])


@pytest.mark.parametrize(
    "text",
    ["[]", "7", "{", '{"a": 1,}', '// c\n{"a": 1}', '{"hooks": []}', '{"hooks": {"Stop": 1}}'],
)
def test_what_is_not_understood_is_left_alone(text: str) -> None:
    """Settings with comments, damage, or another form are an error, never rewritten."""
    with pytest.raises(Unusable, match=r"settings\.json"):
        put(text, "Stop")


def test_any_settings_come_back() -> None:
    """500 random settings in random layouts say the same after ours was put in and taken out."""
    chance = random.Random(8)

    def some(depth: int) -> Any:
        kind = chance.randrange(6 if depth else 4)
        if kind == 4:
            return [some(depth - 1) for _ in range(chance.randrange(3))]
        if kind == 5:
            return {chance.choice('abc"{é'): some(depth - 1) for _ in range(chance.randrange(3))}
        return [None, True, chance.random(), 'x"}],{é'][kind]

    for _ in range(500):
        data = {key: some(3) for key in "abc" if chance.random() < 0.7}
        if chance.random() < 0.5:
            kept = [{"hooks": [{"command": "mine"}]} for _ in range(chance.randrange(1, 3))]
            data["hooks"] = {name: kept for name in ("Stop", "Other") if chance.random() < 0.7}
        indent: int | str | None = chance.choice([None, 1, 2, "\t"])
        text = json.dumps(data, indent=indent, ensure_ascii=False)
        data = data if data.get("hooks") else {k: v for k, v in data.items() if k != "hooks"}
        assert json.loads(take(put(text, "Stop", "Start")) or "{}") == data


# --- the wirings


def test_each_agent_gets_the_hooks_that_tell_something(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hook of its form and no other; those of tools for commands alone; milliseconds for
    Gemini CLI."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("CODEX_HOME", raising=False)
    for wiring, path in (
        (Codex(), ".codex/hooks.json"),
        (Claude(), ".claude/settings.json"),
        (Gemini(), ".gemini/settings.json"),
    ):
        (piece,) = wiring.pieces()
        assert piece.path == home / path
        held = json.loads(piece.put(""))["hooks"]  # type: ignore[union-attr]
        assert set(held) == set(hooks.FORMS[wiring.name])
    assert held["AfterTool"][0]["matcher"] == "^run_shell_command$"
    assert held["AfterTool"][0]["hooks"][0]["timeout"] == 10_000


def test_an_agent_waits_longer_than_its_hook() -> None:
    """With `decide` the hook waits for a person, and the agent a little longer for the hook."""
    (piece,) = Codex(decide="5m", commands="program").pieces()
    [handler] = json.loads(piece.put(""))["hooks"]["PermissionRequest"][0]["hooks"]  # type: ignore[union-attr]
    assert handler["timeout"] == 310
    assert handler["command"].endswith("--agent codex --commands program --decide=300s; fi")


def test_the_hook_is_nothing_once_opsmesh_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends well where the program is not there any more."""
    monkeypatch.setattr("sys.executable", "/nowhere/bin/python")
    (piece,) = Claude().pieces()
    [handler] = json.loads(piece.put(""))["hooks"]["Stop"][0]["hooks"]  # type: ignore[union-attr]
    done = subprocess.run(["sh", "-c", handler["command"]], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_wrong_options() -> None:
    """An option that means nothing is refused: Gemini CLI takes no answer from a hook."""
    for make in (
        lambda: Gemini(decide="5m"),
        lambda: Codex(decide="soon"),
        lambda: Codex(decide="2h"),
        lambda: Claude(commands="all"),
    ):
        with pytest.raises(OptionError):
            make()


def test_installed_and_undone(
    cli: Cli,  # noqa: F811
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command shows a diff, writes, and puts the very bytes back."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    path = home / ".claude/settings.json"
    path.parent.mkdir()
    path.write_text(THEIRS)
    done = cli("install", "claude", "--yes")
    assert done.exit_code == 0, done.output
    assert '+        "SessionStart": [' in done.stdout
    assert len(json.loads(path.read_text())["hooks"]["Stop"]) == 2
    assert cli("install", "--check").exit_code == 0
    assert cli("uninstall", "claude", "--yes").exit_code == 0
    assert path.read_text() == THEIRS
