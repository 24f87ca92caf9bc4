"""Discovery, the process that runs a producer, and `opsmesh producer`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, spooled, standing_in
from typer.testing import CliRunner

from opsmesh.cli.producer import app
from opsmesh.producers import registry
from opsmesh.producers.contract import Emit, Producer, Refused
from opsmesh.producers.errors import OptionError, ProducerError, UnknownProducer
from opsmesh.producers.host import Host
from opsmesh.producers.journal import Journal
from opsmesh.router import supervisor_state
from opsmesh.router.component import birth
from opsmesh.router.supervisor_state import State, Status

STRANGE = """
import signal
import sys
import threading


class Ticker:
    name = "ticker"
    description = "three ticks, then nothing"
    topics = ("clock.ticked",)

    def __init__(self, *, word="tick"):
        self.word = word

    def available(self):
        return "no clock" if self.word == "none" else None

    def run(self, emit):
        try:
            if self.word == "deaf":
                threading.Thread(target=threading.Event().wait, daemon=True).start()
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            for n in range(3):
                emit("clock.ticked", {"n": n, "word": self.word})
            print("ticked", file=sys.stderr, flush=True)
            while True:
                signal.pause()
        finally:
            emit("clock.stopped", {})


class Half:
    name = "half"
"""
ENTRY_POINTS = """
[opsmesh.producers]
ticker = strange_producer:Ticker
half = strange_producer:Half
lost = strange_producer:Nothing
absent = no_such_module:Thing
"""


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stranger's package with one producer that works, and three that are broken."""
    folder = tmp_path / "site"
    info = folder / "strange-2.dist-info"
    info.mkdir(parents=True)
    (folder / "strange_producer.py").write_text(STRANGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 2\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.delitem(sys.modules, "strange_producer", raising=False)
    return folder


def test_our_parts_fit_the_contract(home: Path) -> None:
    """The type checker takes the journal as a Producer, and the host's method as an Emit."""
    producer: Producer = Journal()
    emit: Emit = Host("test").emit
    assert (producer.name, callable(emit)) == ("journal", True)


def test_a_file_whose_name_is_no_utf8_is_told(agent: StandInAgent) -> None:
    """Its name comes as Python shows it, with the number of each byte; what looks alike stays."""
    Host("yazi").emit("editor.save", {"path": os.fsdecode(b"/a/caf\xe9 \\udce9 \xf0\x9f\x98\x80")})
    [event] = agent.events
    assert event["payload"]["path"] == "/a/caf\\udce9 \\udce9 \U0001f600"


def test_a_strangers_producer_stands_beside_ours(strangers: Path) -> None:
    """Ours and a stranger's are found through the same door."""
    assert {"journal", "ticker"} <= registry.discover().producers.keys()


def test_a_broken_plug_in_is_named_and_skipped(strangers: Path) -> None:
    """Each broken entry point is a problem that names package and reason; the others work."""
    problems = registry.discover().problems
    assert problems.keys() >= {"half", "lost", "absent"}
    assert "ticker" not in problems
    assert "strange 2" in problems["absent"]
    assert "no_such_module" in problems["absent"]
    assert "has no description" in problems["half"]


def test_loading_names_what_is_wrong(strangers: Path) -> None:
    """An unknown name, an unknown option and a broken plug-in are three different errors."""
    with pytest.raises(UnknownProducer, match=r"no producer 'jornal'; there are .*journal"):
        registry.load("jornal")
    with pytest.raises(OptionError, match="ticker has word"):
        registry.load("ticker", {"speed": "1"})
    with pytest.raises(ProducerError, match="producer absent is broken"):
        registry.load("absent")


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from opsmesh.cli.producer import app; app()", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_producer_is_run_numbered_and_stopped(agent: StandInAgent, strangers: Path) -> None:
    """Events are numbered from 1, and SIGTERM lets the producer clean up and end with 0."""
    process = start("run", "ticker", "-o", "word=tock")
    assert process.stderr is not None
    assert process.stderr.readline() == "ticker: watching, topics clock.ticked\n"
    assert process.stderr.readline() == "ticked\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert [event["seq"] for event in agent.events] == [1, 2, 3, 4]
    assert [event["topic"] for event in agent.events][-1] == "clock.stopped"
    assert agent.events[0]["payload"] == {"n": 0, "word": "tock"}
    assert {event["source"] for event in agent.events} == {"ticker"}
    assert len({event["boot_id"] for event in agent.events}) == 1


def test_a_producer_that_waits_hears_what_interrupts_nothing(
    agent: StandInAgent, strangers: Path
) -> None:
    """SIGTERM that the kernel gives to another thread ends a producer in its wait, as it does where
    it comes between Python's last look and the wait, once in thousands of times."""
    process = start("run", "ticker", "-o", "word=deaf")
    assert process.stderr is not None
    while process.stderr.readline() != "ticked\n":
        pass
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert agent.events[-1]["topic"] == "clock.stopped"


def test_a_producer_that_cannot_run_says_why(home: Path, strangers: Path) -> None:
    """`run` of an unavailable producer ends with 78 and its reason in one line."""
    process = start("run", "ticker", "-o", "word=none")
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (78, "error: producer ticker cannot run here: no clock\n")


def test_status_tells_what_was_last_sent(agent: StandInAgent, home: Path, strangers: Path) -> None:
    """`producer status --json` holds the supervisor's view and the last event."""
    process = start("run", "ticker")
    agent.wait_for(lambda events: len(events) == 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    supervisor_state.write(
        State(
            pid=os.getpid(),
            birth=birth(os.getpid()),
            started="",
            nats_url="",
            components=[
                Status(name="producer:ticker", log="", pid=77, state="running", restarts=2),
                Status(name="agent", log="", pid=1, state="running"),
            ],
        )
    )
    result = CliRunner().invoke(app, ["status", "--json"])
    [row] = json.loads(result.stdout)
    assert (row["name"], row["state"], row["pid"], row["restarts"]) == ("ticker", "running", 77, 2)
    assert (row["events"], row["last_event"]) == (4, "clock.stopped")
    shown = CliRunner().invoke(app, ["status"])
    assert "clock.stopped" in shown.stdout


def test_ls_says_what_is_there_and_what_is_broken(home: Path, strangers: Path) -> None:
    """`producer ls` lists each producer, with the reason where it cannot run."""
    rows = json.loads(CliRunner().invoke(app, ["ls", "--json"]).stdout)
    by_name: dict[str, dict[str, Any]] = {row["name"]: row for row in rows}
    assert by_name["ticker"]["available"] is True
    assert by_name["absent"]["reason"].startswith("broken: ")
    assert "service.start.failed" in by_name["journal"]["topics"]
    assert "three ticks" in CliRunner().invoke(app, ["ls"]).stdout


def test_status_with_nothing_there_says_so(home: Path) -> None:
    """Before the first run there is nothing to show, and no error."""
    result = CliRunner().invoke(app, ["status"])
    assert (result.exit_code, result.output.strip()) == (0, "no producer has run here yet")


def test_emit_returns_when_the_event_is_kept(home: Path) -> None:
    """With no agent, the event is in the spool when `emit` returns, with all that was given."""
    host = Host("test")
    event_id = host.emit("a.b", {"x": 1}, ts_us=1, severity="warn", exit_code=3, id="some-id")
    [event] = spooled(home)
    assert event_id == event["id"] == "some-id"
    assert (event["ts_utc"], event["severity"]) == ("1970-01-01T00:00:00.000001Z", "warn")
    assert (event["exit_code"], event["payload"]) == (3, {"x": 1})


def test_emit_raises_what_the_agent_refuses(home: Path) -> None:
    """A refusal names topic, id and reason."""
    with standing_in(home, refuse="payload of a.b: no"), pytest.raises(Refused) as caught:
        Host("test").emit("a.b", {}, id="some-id")
    assert (caught.value.topic, caught.value.event_id) == ("a.b", "some-id")
    assert caught.value.reason == "payload of a.b: no"


def test_a_number_is_used_once(home: Path) -> None:
    """An event that the broker had already leaves its number to the next one, so that no number is
    missing in the stream."""
    with standing_in(home) as agent:
        agent.known = {"b", "c"}
        host = Host("test")
        for id in ("a", "b", "c", "d"):
            host.emit("a.b", {}, id=id)
        assert [(e["id"], e["seq"]) for e in agent.events] == [
            ("a", 1),
            ("b", 2),
            ("c", 2),
            ("d", 2),
        ]
        assert len({e["boot_id"] for e in agent.events}) == 1


def test_a_refused_event_keeps_its_number(home: Path) -> None:
    """What is refused never arrives: its number is missing, and that is true."""
    with standing_in(home, refuse="no") as agent:
        host = Host("test")
        for _ in range(2):
            with pytest.raises(Refused):
                host.emit("a.b", {})
        assert [event["seq"] for event in agent.events] == [1, 2]


def test_what_may_be_known_already_has_no_number_in_the_spool(home: Path) -> None:
    """Nobody can say whether a spooled event with an id of its own was stored before: it ends its
    boot, those after it have no number, and a new boot begins when the way is free again."""
    host = Host("test")
    for id in ("a", "b", "c"):
        host.emit("a.b", {}, id=id)
    first, *others = spooled(home)
    assert first["seq"] == 1
    assert all("seq" not in event and "boot_id" not in event for event in others)
    with standing_in(home) as agent:
        for id in ("d", "e", "f"):
            host.emit("a.b", {}, id=id)
        assert [event.get("seq") for event in agent.events] == [None, 1, 2]
        assert agent.events[1]["boot_id"] != first["boot_id"]


def test_a_patient_host_waits_until_an_event_can_be_kept(home: Path, strangers: Path) -> None:
    """With no agent and no room for the spool, a producer goes on when there is room again."""
    blocked = home / "state/opsmesh"
    blocked.write_text("a file where the folder should be")
    process = start("run", "ticker")
    assert process.stderr is not None
    assert "watching" in process.stderr.readline()
    assert "cannot keep an event" in process.stderr.readline()
    blocked.unlink()
    while (line := process.stderr.readline()) != "ticked\n":
        assert "cannot keep an event" in line
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert [event["seq"] for event in spooled(home)] == [1, 2, 3, 4]
