"""The mesh in memory as a user's test sees it: events, the ingest socket, what it does not know."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.js.api import AckPolicy, DeliverPolicy, RetentionPolicy, StreamConfig
from nats.js.errors import APIError, NotFoundError

from opsmesh.router import topology
from opsmesh.router.client import Client
from opsmesh.router.testing import Clock, MemoryMesh, serve
from opsmesh.schemas.errors import SchemaError

FAILED = {"nodeid": "t.py::x", "phase": "call"}


@pytest.fixture
def mesh() -> MemoryMesh:
    """A mesh whose clock stands at a round time."""
    return MemoryMesh(start="2026-11-25T09:00:00Z", host="Laptop.local")


def test_emit_is_complete(mesh: MemoryMesh) -> None:
    """An event is completed from the mesh's host and clock and from its topic, and stored once."""
    mesh.clock.advance(1.5)
    stored = mesh.emit("python.test.failed", FAILED, workspace="/src", id="one")
    assert (stored.seq, stored.stored_us) == (1, mesh.clock.now_us)
    event = stored.event
    assert (event.host, event.workspace, event.severity) == ("Laptop.local", "/src", "error")
    assert event.ts_utc == "2026-11-25T09:00:01.500000Z"
    (message,) = mesh.messages(topology.EVENTS)
    assert message.subject == "evt.laptop_local.python.test.failed"
    assert mesh.emit("python.test.failed", FAILED, id="one") == stored
    assert mesh.events() == [stored]


def test_emit_checks_and_redacts(mesh: MemoryMesh) -> None:
    """What the agent would refuse is refused, and a secret is not stored."""
    with pytest.raises(SchemaError):
        mesh.emit("python.test.failed", {"nodeid": "t.py::x", "phase": "lunch"})
    with pytest.raises(SchemaError):
        mesh.emit("No topic")
    stored = mesh.emit("my.own.topic", {"password": "hunter2hunter2"})
    assert b"hunter2" not in stored.data
    (message,) = mesh.messages(topology.EVENTS)
    assert message.headers["Opsmesh-Unregistered"] == "1"
    with pytest.raises(SchemaError, match="not registered"):
        MemoryMesh(strict_topics=True).emit("my.own.topic")


def test_event_that_has_expired_is_told(mesh: MemoryMesh) -> None:
    """Emitting an id whose event is gone says so, for there is nothing to give."""
    stored = mesh.emit("a.b", id="one")
    mesh.delete_message(topology.EVENTS, stored.seq)
    with pytest.raises(LookupError, match="expired"):
        mesh.emit("a.b", id="one")


def test_events_by_topic(mesh: MemoryMesh) -> None:
    """Events are chosen by topic, whatever their host; what is no event is left out."""
    mesh.emit("a.b", host="one")
    mesh.publish("evt.x.a.b", b"junk")
    mesh.emit("a.b", host="two")
    mesh.emit("a.c.d")
    assert [stored.seq for stored in mesh.events("a.*")] == [1, 3]
    assert [stored.seq for stored in mesh.events()] == [1, 3, 4]


def test_streams_of_the_mesh() -> None:
    """Every stream and bucket of a real mesh is there, and keeps what its configuration says."""
    mesh = MemoryMesh()
    for name in (topology.DLQ, topology.DECISIONS, topology.TRIGGERS, topology.REPLAY):
        assert mesh.messages(name) == []
    runs = mesh.bucket(topology.RUNS)
    runs.put("p.k", b"1")
    assert runs.keys() == ["p.k"]
    mesh.clock.advance(topology.RUNS_TTL)
    assert runs.keys() == []
    with pytest.raises(NotFoundError):
        mesh.bucket("other")
    with pytest.raises(APIError):
        mesh.add_stream(StreamConfig(name="EVENTS", subjects=["x"]))


def test_settings_of_this_machine_have_no_effect(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the config file nor OPSMESH_ variables reach a mesh in memory."""
    (home / "config" / "opsmesh").mkdir()
    (home / "config" / "opsmesh" / "config.yaml").write_text("no: [setting")
    monkeypatch.setenv("OPSMESH_STRICT_TOPICS", "true")
    MemoryMesh().emit("my.own.topic")


def test_what_is_due_sees_its_own_time() -> None:
    """In one long step, each thing that falls due sees the time at which it did."""
    clock = Clock(0)
    seen: list[int] = []
    for due in (30, 10, 20):
        clock.call_at(due, lambda: seen.append(clock.now_ns))
    clock.advance(1)
    assert seen == [10, 20, 30]
    assert clock.now_us == 1_000_000
    with pytest.raises(ValueError, match="run back"):
        clock.advance(-1)


@pytest.mark.parametrize(
    "ask",
    [
        lambda mesh: mesh.consumer("EVENTS", "c", deliver_policy=DeliverPolicy.LAST),
        lambda mesh: mesh.consumer("EVENTS", "c", ack_policy=AckPolicy.NONE),
        lambda mesh: mesh.add_stream(
            StreamConfig(name="I", subjects=["i"], retention=RetentionPolicy.INTEREST)
        ),
    ],
)
def test_what_is_not_modelled_is_an_error(
    mesh: MemoryMesh, ask: Callable[[MemoryMesh], object]
) -> None:
    """What MemoryMesh cannot do faithfully it does not do at all."""
    with pytest.raises(ValueError, match="MemoryMesh knows no"):
        ask(mesh)


@pytest.mark.parametrize(
    "more",
    [
        {"Nats-Schedule": "@every 5s"},
        {"Nats-Schedule": "0 0 5 * * *"},
        {"Nats-Schedule-Source": "s.y"},
    ],
)
def test_other_schedules_are_an_error(mesh: MemoryMesh, more: dict[str, str]) -> None:
    """A schedule that the server takes and MemoryMesh does not is refused in words of our own."""
    mesh.add_stream(StreamConfig(name="S", subjects=["s.>"], allow_msg_schedules=True))
    one = {"Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target": "s.t"}
    with pytest.raises(NotImplementedError, match="MemoryMesh knows"):
        mesh.publish("s.x", b"", headers={**one, **more})


def ask(client: Client, **event: object) -> dict[str, object]:
    """The answer to one event."""
    line = json.dumps({"_reply": True, **event}).encode()
    answer: dict[str, object] = json.loads(client.deliver(line, str(event.get("id"))))
    return answer


def test_ingest_answers_as_the_agent(mesh: MemoryMesh, tmp_path: Path) -> None:
    """A client is told the sequence or the reason, and twice the same event is stored once."""
    with mesh.ingest() as path:
        client = Client(socket_path=path, spool_dir=str(tmp_path), timeout=60)
        assert ask(client, topic="a.b", id="one") == {"ok": True, "id": "one", "seq": 1}
        assert ask(client, topic="a.b", id="one") == {"ok": True, "id": "one", "seq": 1}
        refusal = ask(
            client,
            topic="python.test.failed",
            id="two",
            payload={"nodeid": "t.py::x", "phase": "lunch"},
        )
        assert refusal["ok"] is False
        client.close()
    assert not Path(path).exists()
    assert list(tmp_path.iterdir()) == []
    (stored,) = mesh.events()
    assert stored.event.ts_utc == "2026-11-25T09:00:00.000000Z"


def test_ingest_without_answers(mesh: MemoryMesh, tmp_path: Path) -> None:
    """What was sent before the block ended is taken in; what is no event is a dead letter."""
    with mesh.ingest(tmp_path) as path, socket.socket(socket.AF_UNIX) as client:
        assert path == str(tmp_path / "opsmesh" / "ingest.sock")
        client.connect(path)
        client.sendall(b'{"topic":"a.b"}\nnonsense\n' + b"x" * (1024 * 1024 + 1) + b"\n")
        assert b"exceeds" in client.recv(65536)
        client.sendall(b'{"topic":"a.c"}\n')
    assert [stored.event.topic for stored in mesh.events()] == ["a.b", "a.c"]
    first, second = mesh.messages(topology.DLQ)
    assert (first.subject, first.data) == ("dlq.ingest.laptop_local.invalid", b"nonsense")
    assert "JSON" in first.headers["Opsmesh-Reason"]
    assert second.data == b"x" * 64 * 1024


def test_ingest_that_cannot_listen(mesh: MemoryMesh, tmp_path: Path) -> None:
    """A folder that cannot be used is an error in the test itself, at once."""
    (tmp_path / "opsmesh").write_text("a file")
    began = time.monotonic()
    with pytest.raises(OSError, match="opsmesh"), mesh.ingest(tmp_path):
        pass
    assert time.monotonic() - began < serve.PATIENCE
