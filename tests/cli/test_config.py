"""`opsmesh config`: where values come from, and slips with their place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Cli


@pytest.fixture
def config(home: Path) -> Path:
    """The config.yaml of this test's own folders, not yet written."""
    folder = home / "config" / "opsmesh"
    folder.mkdir()
    return folder / "config.yaml"


def test_every_source_is_named(cli: Cli, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value says whether it is a default, a line of the file, or a variable."""
    config.write_text("events:\n  max_age: 2h\nnats: {port: 4000}\n")
    monkeypatch.setenv("OPSMESH_NATS__PORT", "5000")
    monkeypatch.setenv("OPSMESH_NATS_SERVER", "/usr/bin/nats-server")
    monkeypatch.setenv("OPSMESH_EVIDENCE", '{"segment_bytes": 1024}')
    rows = {row["key"]: row for row in json.loads(cli("config", "show", "--json").stdout)}
    assert rows["events.max_age"]["source"] == f"{config}:2"
    assert rows["nats.port"] == {
        "key": "nats.port",
        "value": 5000,
        "source": "variable OPSMESH_NATS__PORT",
    }
    assert rows["nats.server"]["source"] == "variable OPSMESH_NATS_SERVER"
    assert rows["evidence.segment_bytes"]["source"] == "variable OPSMESH_EVIDENCE"
    assert rows["log_level"]["source"] == "default"
    assert "2h" in cli("config", "show").stdout


def test_secrets_are_masked(cli: Cli, config: Path) -> None:
    """Neither a password nor one inside a URL is shown, in a table or in JSON."""
    config.write_text("nats: {url: 'nats://u:hunter2@h:1', password: hunter2}\n")
    for arguments in (("config", "show"), ("config", "show", "--json")):
        assert "hunter2" not in cli(*arguments).output


def test_path_is_told(cli: Cli, config: Path) -> None:
    """`config path` prints where the file is read from, though it is not there."""
    assert cli("config", "path").stdout.strip() == str(config)


def test_no_file_is_valid(cli: Cli) -> None:
    """Without a file the defaults are in force, and that is valid."""
    result = cli("config", "validate")
    assert result.exit_code == 0
    assert "defaults" in result.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("evnts: {}\n", "config.yaml:1:1: unknown key 'evnts'; did you mean 'events'?"),
        ("nats:\n  pasword: x\n", ":2:3: unknown key 'pasword'; did you mean 'password'?"),
        ("nats:\n  port: 99999\n", ":2:9: nats.port: input should be less than or equal to 65535"),
        ("events:\n  max_age: soon\n", ":2:12: events.max_age: duration 'soon' is not"),
        (
            "runs:\n  lease: 2\n",
            ":2:10: runs.lease: 2 is no duration; write it with its unit, like 2s\n",
        ),
        ("runs:\n  lease: true\n", ":2:10: runs.lease: true is no duration"),
        ("events: [1\n", "config.yaml:2:1: "),
        ("- a\n", "config.yaml:1:1: settings are a mapping"),
        ("nats: {}\nnats: {}\n", "config.yaml:2:1: key 'nats' a second time; line 1 has it"),
    ],
)
def test_slip_has_its_place(cli: Cli, config: Path, text: str, said: str) -> None:
    """A mistake in the file is one line with file, line, column and the nearest key."""
    config.write_text(text)
    for command in (("config", "validate"), ("config", "show"), ("up", "--detach")):
        result = cli(*command)
        assert result.exit_code == 1
        assert said in result.stderr
        assert "Traceback" not in result.output


def test_slip_in_a_variable_names_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong value in a variable is told with the variable's name."""
    monkeypatch.setenv("OPSMESH_LOG_LEVEL", "loud")
    assert "variable OPSMESH_LOG_LEVEL: log_level: " in cli("config", "validate").stderr
    monkeypatch.setenv("OPSMESH_LOG_LEVEL", "info")
    monkeypatch.setenv("OPSMESH_PRODUCERS__DISABLED", "journal")
    result = cli("config", "validate")
    assert "variable OPSMESH_PRODUCERS__DISABLED: its value is not JSON" in result.stderr
