"""The agent as a process: it works without a broker, loses nothing, and notices what is missing."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PATIENCE, freeze, mesh_client, run
from tests.router.agent_process import (
    AgentProcess,
    Connection,
    agent,
    answers,
    spooled,
    until,
    wait_drained,
)

from opsmesh.router import deadletter, paths, server, spool, topology
from opsmesh.router.client import Client
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings


@pytest.fixture
def broker(home: Path) -> Iterator[EmbeddedServer]:
    """A broker that is prepared, but does not run yet."""
    embedded = EmbeddedServer(server.prepare(Path(paths.state_dir()), name=Settings().host))
    yield embedded
    embedded.stop()


def events() -> list[dict[str, Any]]:
    """Everything in EVENTS, in order."""

    async def body() -> list[dict[str, Any]]:
        async with mesh_client() as client:
            return [json.loads(message.data) async for message in scan(client, "EVENTS")]

    found: list[dict[str, Any]] = run(body())
    return found


def ids() -> list[str]:
    """Those of the events that are not the agent's own."""
    return [event["id"] for event in events() if event["source"] != "opsmesh"]


def test_without_a_broker_events_are_spooled_and_sent_later(
    home: Path, broker: EmbeddedServer
) -> None:
    """Events of a time without a broker arrive in their order, before later ones."""
    with agent(home, ready=False) as running:
        connection = Connection()
        for n in range(20):
            answer = connection.ask({"topic": "a.b", "id": f"id-{n}"})
            assert answer == {"ok": True, "id": f"id-{n}", "spooled": True}
        broker.start()
        until(lambda: running.log("broker.ready"))
        wait_drained()
        until(lambda: "seq" in connection.ask({"topic": "a.b", "id": "last"}))
        assert ids() == [*(f"id-{n}" for n in range(20)), "last"]


def test_the_answer_says_what_the_broker_had_already(home: Path, broker: EmbeddedServer) -> None:
    """A second event with the same id is stored once, and its sender hears so."""
    broker.start()
    with agent(home):
        connection = Connection()
        first = connection.ask({"topic": "a.b", "id": "one"})
        again = connection.ask({"topic": "a.b", "id": "one"})
        assert again == {**first, "duplicate": True}


def test_waiting_events_share_a_file(home: Path) -> None:
    """A burst without a broker costs a few syncs, not one for each event."""
    with agent(home, ready=False):
        connection = Connection()
        connection.send(*({"topic": "a.b", "_reply": True} for _ in range(500)))
        assert all(connection.answer()["spooled"] for _ in range(500))
        assert len(spool.names(paths.spool_dir())) < 50


def test_a_broker_that_hangs_leads_to_the_spool(home: Path, broker: EmbeddedServer) -> None:
    """A stopped broker costs a moment, no event, and stores none twice."""
    broker.start()
    with agent(home):
        connection = Connection()
        connection.send(*({"topic": "a.b", "id": f"a-{n}", "_reply": True} for n in range(50)))
        assert all("seq" in connection.answer() for _ in range(50))
        assert broker.process is not None
        freeze(broker.process)
        connection.send(*({"topic": "a.b", "id": f"b-{n}", "_reply": True} for n in range(50)))
        assert all(connection.answer().get("spooled") for _ in range(50))
        broker.process.send_signal(signal.SIGCONT)
        wait_drained()
        assert ids() == [f"{part}-{n}" for part in "ab" for n in range(50)]


def test_a_steady_load_finds_its_way_back_to_the_broker(home: Path, broker: EmbeddedServer) -> None:
    """After an outage, events that never cease to come are stored directly again, in order."""
    with agent(home, ready=False):
        connection = Connection()
        sent = 0

        def send(count: int) -> None:
            nonlocal sent
            connection.send(
                *({"topic": "a.b", "id": f"{n}", "_reply": True} for n in range(sent, sent + count))
            )
            sent += count

        send(200)
        broker.start()
        direct = answered = 0
        deadline = time.monotonic() + PATIENCE
        while direct < 200:  # 200 requests are under way all the time
            answer = connection.answer()
            answered += 1
            direct += "seq" in answer
            send(1)
            assert time.monotonic() < deadline
        while answered < sent:
            connection.answer()
            answered += 1
        wait_drained()
        assert ids() == [f"{n}" for n in range(sent)]


def test_what_a_client_spooled_itself_is_sent(home: Path, broker: EmbeddedServer) -> None:
    """The agent finds what lies in the spool when it starts, and what is put there later."""
    client = Client()
    client.deliver(b'{"topic":"a.b","id":"before","_reply":true}', "before")
    broker.start()
    with agent(home):
        spool.write(paths.spool_dir(), [b'{"topic":"a.b","id":"meanwhile"}'])
        wait_drained()
        assert ids() == ["before", "meanwhile"]


def test_a_wrong_line_in_the_spool_blocks_nothing(home: Path, broker: EmbeddedServer) -> None:
    """A spooled line that is no event becomes a dead letter; a damaged one is set aside."""
    path = Path(
        spool.write(
            paths.spool_dir(),
            [b'{"topic":"a.b","id":"1"}', b"nonsense", b'{"topic":"a.b","id":"damaged"}'],
        )
    )
    path.write_bytes(path.read_bytes().replace(b"damaged", b"dAmaged"))
    spool.write(paths.spool_dir(), [b'{"topic":"a.b","id":"2"}'])
    broker.start()
    with agent(home) as running:
        assert ids() == ["1", "2"]

        async def letters() -> list[bytes]:
            async with mesh_client() as client:
                return [letter.data async for letter in deadletter.letters(client)]

        assert run(letters()) == [b"nonsense"]
        (line,) = running.log("spool.corrupt")
        assert b"dAmaged" in Path(line["kept"]).read_bytes()


def test_only_one_agent_runs(home: Path) -> None:
    """A second agent ends with an error that names the first; the first goes on."""
    with agent(home, ready=False) as first:
        second = AgentProcess(home / "second.log")
        assert second.process.wait(60) != 0
        text = (home / "second.log").read_text()
        assert f"already running (pid {first.process.pid})" in text
        assert answers()


def test_a_killed_agent_leaves_no_trace_in_the_way(home: Path) -> None:
    """After kill -9 the next agent takes over the socket and the lock."""
    with agent(home, ready=False) as first:
        first.kill()
    assert Path(paths.ingest_socket()).exists()
    with agent(home, ready=False) as second:
        assert Connection().ask({"topic": "a.b"})["ok"]
        assert second.process.poll() is None


def test_sigterm_keeps_what_is_on_its_way(home: Path) -> None:
    """What was sent before the end, by clients that ask nothing, is kept; the exit code is 0."""
    with agent(home, ready=False) as running:
        connection = Connection()
        connection.send(*({"topic": "a.b", "id": f"id-{n}"} for n in range(1000)))
        assert running.stop() == 0
    assert not Path(paths.ingest_socket()).exists()
    found = spooled()
    assert [e["id"] for e in found if e["source"] == "ingest"] == [f"id-{n}" for n in range(1000)]


def test_start_and_end_are_events(home: Path, broker: EmbeddedServer) -> None:
    """The agent says that it runs, and that it was stopped."""
    broker.start()
    with agent(home) as running:
        assert running.stop() == 0
        pid = running.process.pid
    assert [(event["topic"], event["payload"]["pid"]) for event in events()] == [
        ("mesh.component.started", pid),
        ("mesh.component.stopped", pid),
    ]


def test_a_vanished_stream_is_not_made_anew(home: Path, broker: EmbeddedServer) -> None:
    """The agent alarms and keeps events in the spool, until the loss is accepted."""
    broker.start()
    with agent(home) as first:
        assert "seq" in Connection().ask({"topic": "a.b"})
        assert first.stop() == 0

    async def vanish() -> None:
        async with mesh_client() as client:
            await client.jetstream().delete_stream("EVENTS")

    run(vanish())
    with agent(home, ready=False) as running:
        (alarm,) = until(lambda: running.log("stream.vanished"))
        assert alarm["level"] == "critical"
        assert Connection().ask({"topic": "a.b", "id": "kept"})["spooled"]
        topology.Known(Path(paths.state_dir(), "known.json")).forget(["EVENTS"])
        wait_drained()
        assert "kept" in ids()


def test_a_stream_that_went_back_is_an_event(home: Path, broker: EmbeddedServer) -> None:
    """The agent says which stream is behind what was known of it, and by how much."""
    broker.start()
    with agent(home) as first:
        assert first.stop() == 0
    topology.Known(Path(paths.state_dir(), "known.json")).remember({"EVENTS": 40})
    with agent(home):
        (event,) = until(lambda: [e for e in events() if e["topic"] == "mesh.stream.regressed"])
    assert event["payload"]["last_known_seq"] == 40
    assert event["severity"] == "critical"


def test_the_last_sequence_is_remembered(home: Path, broker: EmbeddedServer) -> None:
    """What the agent has stored is known at the next start, so that a loss would show."""
    broker.start()
    with agent(home) as running:
        seq = Connection().ask({"topic": "a.b"})["seq"]
        assert running.stop() == 0
    known = topology.Known(Path(paths.state_dir(), "known.json"))
    assert known.last_seq("EVENTS") > seq  # the agent's own farewell came after it


def test_a_broker_that_is_away_makes_no_log_storm(home: Path, broker: EmbeddedServer) -> None:
    """Hundreds of events during an outage add a handful of lines to the log."""
    broker.start()
    with agent(home) as running:
        broker.kill()
        connection = Connection()
        for n in range(300):
            connection.ask({"topic": "a.b", "id": f"id-{n}"})
        assert connection.ask({"topic": "a.b"})["spooled"]
        assert len(running.log()) < 12


def test_strict_topics_refuse_what_is_not_registered(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `strict_topics`, an unregistered topic is an error that names the nearest one."""
    monkeypatch.setenv("OPSMESH_STRICT_TOPICS", "true")
    with agent(home, ready=False):
        answer = Connection().ask({"topic": "python.lint.failled"})
        assert "python.lint.failed?" in answer["error"]


def test_a_full_spool_hangs_up_instead_of_lying(home: Path) -> None:
    """An event that can be kept nowhere is not answered `ok`: the connection ends."""
    (home / "state" / "opsmesh").mkdir()
    (home / "state" / "opsmesh" / "spool").write_text("not a folder")
    with agent(home, ready=False):
        connection = Connection()
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert "ok" in connection.ask({"topic": "a.b"})


def test_a_socket_path_of_any_length_works(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime folder deep in the file system is no obstacle."""
    folder = home / ("d" * 70) / ("e" * 70)
    folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    with agent(home, ready=False):
        assert b'"ok":true' in Client().deliver(b'{"topic":"a.b","_reply":true}', "")
        assert spooled()
