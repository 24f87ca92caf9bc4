"""`opsmesh redact`: explanations, openings, and their check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.evidence.made import opened

from opsmesh.router import paths, redaction
from opsmesh.router.intake import Intake
from opsmesh.router.settings import Settings
from opsmesh.schemas.commitments import MARK
from opsmesh.schemas.registry import load_registry

TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
ID = "019ab000-0000-7000-8000-000000000001"


def test_text_is_explained(cli: Cli, tmp_path: Path) -> None:
    """Of a text, line, column and rule of each secret are told, and why a look-alike is left."""
    file = tmp_path / "build.log"
    file.write_text(f"begin\n  push {TOKEN}\nTOKEN=${{HIDDEN}}\n")
    done = cli("redact", "--explain", str(file), "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "file": str(file),
        "found": [
            {"where": "line 2, column 8", "path": None, "rule": "github_token", "size": len(TOKEN)}
        ],
        "kept": [
            {
                "where": "line 3, column 7",
                "path": None,
                "rule": "assignment",
                "text": "${HIDDEN}",
                "why": "it stands for a secret",
            }
        ],
    }
    shown = cli("redact", "--explain", str(file)).output
    assert TOKEN not in shown
    assert "it stands for a secret" in shown


def test_json_lines_are_explained(cli: Cli) -> None:
    """Of events, the line and the path of each secret are told."""
    lines = [{"payload": {"n": 1}}, {"payload": {"env": [f"A={TOKEN}"], "pin": {"password": 12}}}]
    text = "\n".join(map(json.dumps, lines))
    done = cli("redact", "--explain", "-", "--json", input=text)
    found = [(row["where"], row["path"], row["rule"]) for row in json.loads(done.stdout)["found"]]
    assert found == [
        ("line 2", "$.payload.env[0]", "github_token"),
        ("line 2", "$.payload.pin.password", "password"),
    ]


def test_clean_file(cli: Cli, tmp_path: Path) -> None:
    """With nothing to take out the exit code is 0; a file that is not there is told."""
    (tmp_path / "a").write_text("all is well\n")
    assert cli("redact", "--explain", str(tmp_path / "a")).exit_code == 0
    gone = cli("redact", "--explain", str(tmp_path / "b"))
    assert (gone.exit_code, "cannot be read" in gone.output) == (3, True)
    assert cli("redact").exit_code == 2


def test_rules_of_the_user_are_explained(cli: Cli, home: Path) -> None:
    """The settings' rules and exceptions count."""
    file = home / "config" / "opsmesh" / "config.yaml"
    file.parent.mkdir()
    file.write_text("redact: {values: {badge: 'badge-\\d+'}, allow: ['hunter2']}\n")
    done = cli("redact", "--explain", "-", "--json", input="badge-17 password=hunter2 x")
    said: dict[str, Any] = json.loads(done.stdout)
    assert [row["rule"] for row in said["found"]] == ["badge"]
    assert [row["why"] for row in said["kept"]] == ["redact.allow has it"]


@pytest.fixture
def archived(home: Path) -> bytes:
    """An event with a secret, as the agent stores it and the sink archives it."""
    line = {"id": ID, "topic": "a.b", "payload": {"said": f"push {TOKEN}", "password": 1234}}
    intake = Intake(Settings(), load_registry(), redaction.load(Settings()))
    clean = intake.message(json.dumps(line).encode()).data
    with opened(Path(paths.evidence_dir())) as made:
        made.event(1, 1_764_000_000_000_000, clean)
        made.commit()
    return clean


def test_mark_is_opened_and_checked(cli: Cli, archived: bytes, tmp_path: Path) -> None:
    """An archived event's openings come from its host's key; with one, the original is proved."""
    file = tmp_path / "event.json"
    file.write_bytes(archived)
    done = cli("redact", "open", ID, "--json")
    assert done.stdout == cli("redact", "open", ID, "--file", str(file), "--json").stdout
    said, password = json.loads(done.stdout)
    assert (said["path"], said["rule"]) == ("$.payload.said", "github_token")
    assert said["commitment"] == MARK.findall(archived.decode())[0][1]
    proof = ("redact", "check", "--", said["commitment"], said["salt"])
    assert cli(*proof, input=f"{TOKEN}\n").exit_code == 0
    assert cli(*proof, input=TOKEN[:-1]).exit_code == 1
    number = ("redact", "check", "--", password["commitment"], password["salt"])
    assert cli(*number, input="1234").exit_code == 0
    assert cli(*number, input="1235").exit_code == 1


def test_opening_needs_the_key(cli: Cli, home: Path) -> None:
    """Where nothing was redacted there is no key, and none is made to open with."""
    done = cli("redact", "open", ID)
    assert done.exit_code == 1
    assert "there is no key" in done.output
    assert not redaction.key_file().exists()
