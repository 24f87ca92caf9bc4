"""The whole mesh as a person has it: `opsmesh up`, real tools, and the command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from opsmesh.cli.main import app
from tests.conftest import private_folders, until
from tests.producers import journals

#: One process, and one set of what they share.
pytestmark = pytest.mark.xdist_group("mesh")

#: Commands that start something, or stand for a person's script, are processes; the others only ask
#: and tell, and a test that waits asks often: they run here.
STARTING = ("up", "down", "emit", "exec", "dotfiles")

PROFILES = """
profiles:
  first-aid:
    on: [python.test.failed, shell.command.failed, service.start.failed]
    actions:
      - collect: [{command: [uname, -s]}]
  fragile:
    on: my.deploy
    retry: {attempts: 2, initial: 50ms, jitter: 0}
    actions: [command: [cat, "FLAG"]]
"""


class Person:
    """Somebody who types commands, in folders of their own."""

    journal: Path | None = None

    def __init__(self, home: Path) -> None:
        self.home = home
        self.flag = home / "flag"
        self.profiles = home / "config" / "opsmesh" / "profiles.yaml"

    def types(self, *argv: str, code: int | None = 0, cwd: Path | None = None) -> str:
        """`opsmesh ARGV`, ended with this exit code; its standard output."""
        run = self._runs if argv[0] in STARTING else self._reads
        ended, said, self.errors = run(argv, cwd or self.home)
        assert code is None or ended == code, (ended, said, self.errors)
        assert "Traceback" not in self.errors
        return said

    @staticmethod
    def _runs(argv: Sequence[str], cwd: Path) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "opsmesh.cli.entry", *argv],
            capture_output=True,
            text=True,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            timeout=180,
        )
        return done.returncode, done.stdout, done.stderr

    @staticmethod
    def _reads(argv: Sequence[str], cwd: Path) -> tuple[int, str, str]:
        with contextlib.chdir(cwd):
            done = CliRunner().invoke(app, list(argv))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    def reads(self, *argv: str, code: int | None = 0) -> Any:
        """What a command says with --json."""
        return json.loads(self.types(*argv, "--json", code=code))

    def events(self, topic: str) -> list[dict[str, Any]]:
        """Every stored event of a topic."""
        lines = self.types("tail", "--no-follow", "--since", "1h", "-t", topic, "--json")
        return [json.loads(line) for line in lines.splitlines()]

    def waits(self, condition: Callable[[], Any]) -> Any:
        """The condition's first true value."""
        return until(condition)

    def event(self, topic: str, **facts: Any) -> dict[str, Any]:
        """The first event of a topic whose envelope has these values."""

        def there() -> dict[str, Any] | None:
            found = self.events(topic)
            return next((e for e in found if all(e.get(k) == v for k, v in facts.items())), None)

        found: dict[str, Any] = self.waits(there)
        return found

    def archive(self) -> list[dict[str, Any]]:
        """Every line of the evidence."""
        folder = Path(self.types("evidence", "path").strip())
        return [
            json.loads(line)
            for segment in sorted(folder.rglob("*.jsonl"))
            # the sink is at work: what follows the last line break is the beginning of a line
            for line in segment.read_text().split("\n")[:-1]
        ]


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """A person whose mesh runs."""
    home = tmp_path_factory.mktemp("mesh")
    with pytest.MonkeyPatch.context() as env:
        private_folders(home, env)
        env.delenv("PYTEST_ADDOPTS", raising=False)
        someone = Person(home)
        if journals.missing() is None:  # this test's own journal, in place of the machine's
            someone.journal = journals.make(home / "journal")
            options = {"producers": {"options": {"journal": {"directory": str(someone.journal)}}}}
            (home / "config" / "opsmesh").mkdir()
            (home / "config" / "opsmesh" / "config.yaml").write_text(json.dumps(options))
        someone.profiles.parent.mkdir(exist_ok=True)
        someone.profiles.write_text(PROFILES.replace("FLAG", str(someone.flag)))
        someone.types("up", "--detach")
        yield someone
        someone.types("down")


def test_failing_test_of_any_project(person: Person, tmp_path: Path) -> None:
    """A failing pytest run becomes an event, fires its profile, its outcome is an event of the
    same story, and all of it lies in the evidence, with the bundle's files as promised."""
    (tmp_path / "test_it.py").write_text("def test_it():\n    assert 1 == 2\n")
    person.types("exec", "--", sys.executable, "-m", "pytest", "-q", code=1, cwd=tmp_path)
    failed = person.event("python.test.failed")
    assert failed["payload"]["nodeid"].endswith("test_it.py::test_it")
    done = person.event("automation.run.succeeded", causation_id=failed["id"])
    assert done["correlation_id"] == failed["correlation_id"]
    manifest = json.loads(Path(done["evidence_path"], "manifest.json").read_text())
    assert "event.json" in {file["name"] for file in manifest["files"]}
    story = person.reads("trace", failed["id"])
    ids = {item["event"]["id"] for item in story}
    assert {failed["id"], done["id"]} <= ids
    person.waits(lambda: ids <= {line["event"]["id"] for line in person.archive()})
    person.types("evidence", "verify")


def test_unit_that_fails(person: Person) -> None:
    """A unit that fails in the journal fires its profile: journal, producer, agent, broker,
    handlers, each its own process."""
    if person.journal is None:
        assert not os.environ.get("CI"), f"{journals.missing()} must be there in CI"
        pytest.skip(f"{journals.missing()} is not installed (Debian: systemd-journal-remote)")
    person.waits((person.home / "state/opsmesh/producers/journal/cursor").exists)
    journals.add(person.journal, journals.later("t-new.service"))
    failed = person.event("service.start.failed")
    assert failed["payload"]["unit"] == "t-new.service"
    assert failed["source"] == "journal"
    person.event("automation.run.succeeded", causation_id=failed["id"])


def test_failing_and_slow_commands(person: Person) -> None:
    """`opsmesh exec` passes exit codes on; a failure and a time-out are events."""
    said = person.types("exec", "--", "sh", "-c", "echo out; exit 3", code=3)
    assert said == "out\n"
    event = person.event("shell.command.failed", exit_code=3)
    assert "out" in event["payload"]["output_tail"]
    person.types("exec", "--timeout", "0.2s", "--", "sleep", "60", code=124)
    slow = person.event("python.run.timeout")
    assert slow["payload"]["argv"] == ["sleep", "60"]


def test_emit_show_trace(person: Person) -> None:
    """An emitted event is found by its id, with what it caused."""
    event_id = person.types("emit", "my.event", "n=1", "--wait=60").strip()
    assert person.reads("show", event_id)["event"]["payload"] == {"n": "1"}
    assert event_id in person.types("show", event_id[:23])
    person.types("show", "no-such-id", code=3)
    person.types("trace", "no-such-id", code=3)


def test_dead_letter_through_the_command_line(person: Person) -> None:
    """A profile that keeps failing ends in the DLQ, is read, redriven once mended, and recorded."""
    event_id = person.types("emit", "my.deploy", "to=staging").strip()
    (letter,) = person.waits(lambda: person.reads("dlq", "ls", "--profile", "fragile"))
    assert (letter["event_id"], len(letter["errors"])) == (event_id, 2)
    assert person.reads("status", code=1)["verdict"] == "degraded"
    shown = person.types("dlq", "show", str(letter["seq"]))
    assert "attempt 2" in shown
    assert json.loads(person.types("dlq", "show", str(letter["seq"]), "--raw"))["id"] == event_id
    assert person.reads("dlq", "ls", "--group")[0]["count"] == 1
    person.types("dlq", "retry", code=2)
    person.flag.write_text("mended\n")
    person.types("dlq", "retry", str(letter["seq"]))
    person.event("automation.run.succeeded", causation_id=event_id)
    assert person.reads("dlq", "ls") == []
    redriven = person.event("automation.deadletter.redriven")
    assert redriven["correlation_id"] == event_id
    person.types("dlq", "retry", str(letter["seq"]), code=3)
    runs = person.reads("run", "ls", "--profile", "fragile")
    assert sorted(run["state"] for run in runs) == ["deadlettered", "succeeded"]
    assert "mended" in person.types("run", "show", runs[-1]["run_id"])
    person.flag.unlink()


def test_drop_is_recorded(person: Person) -> None:
    """A dropped letter is gone, and the drop is an event that says why."""
    person.types("emit", "my.deploy")
    (letter,) = person.waits(lambda: person.reads("dlq", "ls"))
    person.types("dlq", "drop", "--all", "--comment", "not needed")
    assert person.reads("dlq", "ls") == []
    dropped = person.event("automation.deadletter.dropped")
    assert dropped["payload"]["dlq_seq"] == letter["seq"]
    assert dropped["payload"]["reason"] == "not needed"


def test_malformed_line_is_a_dead_letter(person: Person) -> None:
    """A line that is no event, sent to the ingest socket without asking for an answer, is kept."""
    import socket

    env = person.reads("env")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(env["OPSMESH_INGEST_SOCKET"])
        client.sendall(b'{"topic": "NOT a topic"}\n')
    (letter,) = person.waits(lambda: person.reads("dlq", "ls", "--profile", "ingest"))
    assert person.types("dlq", "show", str(letter["seq"]), "--raw") == '{"topic": "NOT a topic"}'
    person.types("dlq", "retry", str(letter["seq"]), code=1)
    person.types("dlq", "drop", str(letter["seq"]))


def test_replay_does_not_reach_live_handlers(person: Person) -> None:
    """A dry run decides, a replay copies, `--to` acts here; live handlers run nothing of it."""
    event_id = person.types(
        "emit", "shell.command.failed", 'argv:=["false"]', "exit_code:=1", "--wait=60"
    ).strip()
    person.event("automation.run.succeeded", causation_id=event_id)
    runs = len(person.reads("run", "ls", "--limit", "1000"))
    argv = ("replay", "--since", "1h", "-t", "shell.command.failed")
    decided = [json.loads(line) for line in person.types(*argv, "--dry-run", "--json").splitlines()]
    assert "fire" in {d["outcome"] for d in decided if d["event_id"] == event_id}
    copied = person.reads(*argv)
    assert copied["events"] >= 1
    acted = [
        json.loads(line) for line in person.types(*argv, "--to", "first-aid", "--json").splitlines()
    ]
    assert event_id in {run["event"] for run in acted if run["ok"]}
    assert len(person.reads("run", "ls", "--limit", "1000")) == runs
    person.types("replay", "--to", "first_aid", code=3)
    assert "did you mean first-aid" in person.errors


def test_live_replay_acts(person: Person) -> None:
    """With --live the live profile runs again, and the run says that a replay caused it."""
    event_id = person.types(
        "emit", "shell.command.failed", 'argv:=["true"]', "exit_code:=9", "--wait=60"
    ).strip()
    person.event("automation.run.succeeded", causation_id=event_id)
    person.types("replay", "--since", "5m", "-t", "shell.command.failed", "--live")

    def replayed() -> bool:
        runs = person.reads("run", "ls", "--limit", "1000")
        return any(r["event_id"] == event_id and r.get("trigger") == "replay" for r in runs)

    person.waits(replayed)


def test_trigger_by_hand(person: Person) -> None:
    """A profile is run by hand for a stored event or a new one; mistakes are named."""
    event_id = person.types("emit", "other.topic", "--wait=60").strip()
    person.types("profile", "trigger", "first-aid", "--event", event_id)
    person.event("automation.run.succeeded", causation_id=event_id)
    person.types("profile", "trigger", "first-aid", code=2)
    person.types("profile", "trigger", "frist-aid", "--event", event_id, code=3)
    assert "did you mean first-aid" in person.errors


def test_typo_in_a_profile(person: Person) -> None:
    """After a typo the old profile is in force, and status names file, line and nearest key."""
    text = person.profiles.read_text()
    person.profiles.write_text(text.replace("retry:", "rety:"))
    try:
        person.waits(
            lambda: any(
                "rety" in problem["what"]
                for problem in person.reads("status", code=None)["problems"]
            )
        )
        said = person.types("profile", "validate", code=1)
        assert "profiles.yaml:9" in said
        assert "did you mean 'retry'" in said
        rejected = person.event("mesh.config.rejected")
        assert rejected["payload"]["line"] == 9
        event_id = person.types(
            "emit", "shell.command.failed", 'argv:=["x"]', "exit_code:=5"
        ).strip()
        person.event("automation.run.succeeded", causation_id=event_id)
    finally:
        person.profiles.write_text(text)


def test_status_says_ok(person: Person) -> None:
    """With every letter handled the verdict is ok, and each component has a process, but those that
    wait for a tool that is not here."""
    found = person.waits(lambda: (s := person.reads("status", code=None))["verdict"] == "ok" and s)
    assert found["nats_url"].startswith("nats://127.0.0.1:")
    running = [one for one in found["components"] if one["state"] != "waiting"]
    assert {"broker", "agent", "handlers", "sink"} <= {one["name"] for one in running}
    for component in running:
        assert component["state"] == "running"
        assert component["pid"] > 0
        assert component["restarts"] == 0


def test_foreign_client(person: Person) -> None:
    """Plain nats-py with what `opsmesh env` prints publishes the seed's envelope; it is handled."""
    import asyncio

    import nats

    env = person.reads("env")
    bare = {
        "topic": "shell.command.failed",
        "ts_utc": "2026-11-23T09:12:00.000000Z",
        "source": "foreign",
        "component": "ci",
        "severity": "error",
        "correlation_id": "build-42",
        "host": env["OPSMESH_SUBJECT"].removeprefix("evt."),
        "session_id": "s1",
        "workspace": "w1",
        "payload": {"argv": ["make"], "exit_code": 2},
    }

    async def publish() -> None:
        client = await nats.connect(env["NATS_URL"], user_credentials=env["NATS_CREDS"])
        subject = f"{env['OPSMESH_SUBJECT']}.shell.command.failed"
        await client.jetstream(timeout=60).publish(subject, json.dumps(bare).encode())
        await client.close()

    asyncio.run(publish())
    done = person.event("automation.run.succeeded", correlation_id="build-42")
    assert done["workspace"] == "w1"
    lines = person.waits(
        lambda: [e for e in person.archive() if e["event"].get("correlation_id") == "build-42"]
    )
    assert lines[0]["event"] == bare


def test_killed_component_comes_back_and_is_told(person: Person) -> None:
    """kill -9 of the handlers: they are started again, the failure is an event, and what happened
    meanwhile runs."""
    (pid,) = [c["pid"] for c in person.reads("status")["components"] if c["name"] == "handlers"]
    os.kill(pid, signal.SIGKILL)
    event_id = person.types("emit", "shell.command.failed", 'argv:=["x"]', "exit_code:=7").strip()
    failed = person.event("mesh.component.failed")
    assert failed["payload"]["component"] == "handlers"
    assert failed["payload"]["reason"] == "SIGKILL"
    person.event("automation.run.succeeded", causation_id=event_id)
