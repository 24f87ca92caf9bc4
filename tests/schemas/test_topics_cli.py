"""`opsmesh topics`: for people and for programs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from opsmesh.cli import output
from opsmesh.cli.topics import app, emit_line
from opsmesh.schemas.payloads import TOPICS
from opsmesh.schemas.registry import Registry, Topic

runner = CliRunner()


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of this test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "opsmesh"
    folder.mkdir()
    return folder


def test_ls() -> None:
    """All topics are listed with owner and severity; a pattern takes a part."""
    done = runner.invoke(app, ["ls"])
    assert done.exit_code == 0
    assert all(topic.name in done.stdout for topic in TOPICS)
    rows = json.loads(runner.invoke(app, ["ls", "--json", "service.*.failed"]).stdout)
    assert [(row["topic"], row["owner"]) for row in rows] == [("service.start.failed", "journal")]
    assert "no topic matches 'nothing'" in runner.invoke(app, ["ls", "nothing"]).stderr


def test_show() -> None:
    """A topic is shown with its fields, its example and a command that emits one."""
    done = runner.invoke(app, ["show", "python.test.failed"])
    assert done.exit_code == 0
    assert "pytest's or unittest's name of the test" in done.stdout
    assert "opsmesh emit python.test.failed nodeid=tests/test_cart.py::test_total" in done.stdout
    shown = json.loads(runner.invoke(app, ["show", "python.test.failed", "--json"]).stdout)
    assert shown["fields"][0] == {
        "name": "nodeid",
        "type": "str",
        "required": True,
        "meaning": "pytest's or unittest's name of the test",
    }


def test_unknown_topic() -> None:
    """A topic that is not there is an error with the nearest name, and an exit code of its own."""
    done = runner.invoke(app, ["show", "python.tests.failed"])
    assert done.exit_code == output.NOT_FOUND
    assert "did you mean python.test.failed?" in done.stderr


def test_export(tmp_path: Path) -> None:
    """The schemas come as one document, or as a file for each topic."""
    whole = json.loads(runner.invoke(app, ["export", "--format", "jsonschema"]).stdout)
    assert len(whole["$defs"]) == len(TOPICS)
    done = runner.invoke(app, ["export", "--output", str(tmp_path / "a" / "b")])
    assert done.exit_code == 0
    files = sorted(file.stem for file in (tmp_path / "a" / "b").glob("*.json"))
    assert files == sorted(topic.name for topic in TOPICS)
    assert runner.invoke(app, ["export", "--format", "xml"]).exit_code == output.USAGE
    (tmp_path / "file").write_text("")
    failed = runner.invoke(app, ["export", "--output", str(tmp_path / "file" / "x")])
    assert failed.exit_code == output.FAILED
    assert "Traceback" not in failed.stderr


def test_user_topics(config: Path) -> None:
    """A topic of topics.yaml is listed, and its mistakes go to standard error."""
    (config / "topics.yaml").write_text(
        "version: 1\ntopics:\n  acme.a: {description: A., payload: {n: 'int?'}}\n  acme.b: {}\n"
    )
    done = runner.invoke(app, ["ls", "--json", "acme"])
    assert [row["topic"] for row in json.loads(done.stdout)] == ["acme.a"]
    assert "topics.yaml:4: acme.b: description: expected a text" in done.stderr.replace("\n", "")


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_emit_line_works(topic: Topic) -> None:
    """The command that is shown gives a payload that the registry accepts."""
    words = shlex.split(emit_line(topic))
    assert words[:3] == ["opsmesh", "emit", topic.name]
    payload = dict(word.split("=", 1) for word in words[3:])
    coerced = Registry([topic]).check(topic.name, payload, coerce=True)
    assert coerced is not None
    assert coerced.items() <= topic.example.items()
