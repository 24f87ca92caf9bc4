"""The agent and its spool as a user meets them: order, bounds, losses that are told, a stalled mesh
that goes on at once."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PATIENCE, freeze, mesh_client, run
from tests.router.agent_process import Connection, agent, agent_says, until, wait_drained

from opsmesh.router import paths, server, spool, spool_state
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
    return [event["id"] for event in events() if event["source"] != "opsmesh"]


def gaps() -> list[dict[str, Any]]:
    """What was told as lost, but for the agent's own events."""
    told = [event["payload"] for event in events() if event["topic"] == "mesh.gap.detected"]
    return [gap for gap in told if gap["source"] != "opsmesh"]


def line(id: str, source: str = "test") -> bytes:
    return json.dumps({"topic": "a.b", "id": id, "source": source, "_reply": True}).encode()


def test_nothing_overtakes_what_a_client_spooled(home: Path, broker: EmbeddedServer) -> None:
    """An event that its client had to spool goes before the next one through the socket, however
    soon that comes."""
    broker.start()
    with agent(home):
        connection = Connection()
        sent = []
        for n in range(20):
            until(lambda: not agent_says()["behind"])
            spool.write(paths.spool_dir(), [line(f"own-{n}")])
            connection.ask({"topic": "a.b", "id": f"next-{n}"})
            sent += [f"own-{n}", f"next-{n}"]
        wait_drained()
        assert ids() == sent


def test_a_hung_agent_keeps_the_order(home: Path, broker: EmbeddedServer) -> None:
    """What a client spooled while the agent hung, and had sent to it as well, is stored once, and
    before what came afterwards."""
    broker.start()
    with agent(home) as running:
        client = Client(timeout=60)
        assert b'"seq"' in client.deliver(line("0"), "0")
        client.close()
        freeze(running.process)
        client.timeout = 0.2
        for n in "12":
            assert b'"spooled":true' in client.deliver(line(n), n)
        running.process.send_signal(signal.SIGCONT)
        client.timeout = 60
        for n in "345":
            assert b'"ok":true' in client.deliver(line(n), n)
        client.close()
        wait_drained()
        assert ids() == list("012345")


def test_a_broker_that_goes_on_is_used_at_once(home: Path, broker: EmbeddedServer) -> None:
    """While it hangs the agent says so and asks it once; what waited is sent when it answers."""
    broker.start()
    with agent(home):
        assert broker.process is not None
        freeze(broker.process)
        connection = Connection()
        for n in range(30):
            connection.send({"topic": "a.b", "id": f"{n}", "_reply": True})
        assert all(connection.answer().get("spooled") for _ in range(30))
        until(lambda: agent_says()["broker"] == "hangs")
        broker.process.send_signal(signal.SIGCONT)
        wait_drained()
        until(lambda: agent_says()["broker"] == "open")
        assert ids() == [f"{n}" for n in range(30)]


def test_a_full_spool_refuses_until_there_is_room(
    home: Path, broker: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `refuse` no event is lost: its caller is told at once, and it is taken later."""
    monkeypatch.setenv("OPSMESH_SPOOL__MAX_BYTES", "40KiB")
    with agent(home, ready=False) as running:
        client = Client(timeout=PATIENCE)
        kept = 0
        try:
            for kept in range(100):
                client.deliver(line(str(kept)), str(kept))
        except OSError as error:
            assert re.search("full: .* of spool.max_bytes 40960", str(error))  # noqa: PT017
        assert 5 <= kept <= 10
        assert agent_says()["since_start"]["not_kept"] >= 1  # a client tries twice
        assert len(running.log("spool.not_written")) == 1
        broker.start()
        wait_drained()
        until(lambda: b'"seq"' in client.deliver(line(str(kept)), str(kept)))
        client.close()
        assert ids() == [str(n) for n in range(kept + 1)]
        assert gaps() == []


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_what_is_dropped_is_told_once(
    home: Path, broker: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """Each source's losses are one event, with their number and times; agents that are killed or
    restarted tell it no second time."""
    monkeypatch.setenv("OPSMESH_SPOOL__MAX_BYTES", "40KiB")
    monkeypatch.setenv("OPSMESH_SPOOL__WHEN_FULL", policy)
    sent = {"one": 0, "two": 0}
    with agent(home, ready=False) as first:
        client = Client(timeout=PATIENCE)
        for n in range(40):
            source = "one" if n % 3 else "two"
            answer = json.loads(client.deliver(line(str(n), source), str(n)))
            assert answer["ok"] or answer["dropped"]
            sent[source] += 1
        client.close()
        first.kill()
    assert spool_state.look(paths.spool_dir()).untold > 20
    broker.start()
    with agent(home):
        until(lambda: len(gaps()) == 2)
        until(lambda: not spool_state.look(paths.spool_dir()).untold)
    with agent(home):
        until(lambda: not agent_says()["behind"])
    stored = [event["source"] for event in events()]
    told = {gap["source"]: gap for gap in gaps()}
    assert len(gaps()) == 2
    for source, number in sent.items():
        gap = told[source]
        assert (gap["kind"], gap["lost"]) == ("dropped", number - stored.count(source))
        assert gap["from_time"] <= gap["to_time"]
        assert policy in gap["message"]
        assert gap["lost_bytes"] > 100 * gap["lost"]


def counted(number: int) -> bool:
    """Whether something has become of so many events."""
    return bool(sum(agent_says()["since_start"].values()) >= number)


def test_events_nobody_can_keep_are_counted(
    home: Path, broker: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for no answer cannot keep what a full spool refuses: that is told as lost."""
    monkeypatch.setenv("OPSMESH_SPOOL__MAX_BYTES", "8KiB")
    with agent(home, ready=False):
        for n in range(10):
            connection = Connection()
            connection.send({"topic": "a.b", "id": str(n), "source": "deaf"})
            connection.close()
            until(partial(counted, n + 1))
        broker.start()
        until(gaps)
        (gap,) = gaps()
        assert gap["source"] == "deaf"
        assert len(ids()) + gap["lost"] == 10


def test_a_clock_set_back_changes_no_order(home: Path, broker: EmbeddedServer) -> None:
    """An agent that starts with an earlier clock puts its files behind those that wait."""
    ahead = "99999999999999999990-1-1.spool"
    Path(spool.write(paths.spool_dir(), [line("first")])).rename(f"{paths.spool_dir()}/{ahead}")
    with agent(home, ready=False):
        client = Client(timeout=PATIENCE)
        client.deliver(line("second"), "second")
        client.close()
        broker.start()
        wait_drained()
        assert ids() == ["first", "second"]


def test_the_agent_says_how_it_is(home: Path, broker: EmbeddedServer) -> None:
    """Its own figures: connections, what is under way, what became of events."""
    broker.start()
    with agent(home):
        connection = Connection()
        assert "seq" in connection.ask({"topic": "a.b"})
        facts = agent_says()
        assert (facts["broker"], facts["behind"], facts["paused"]) == ("open", False, 0)
        assert facts["connections"] == 2
        assert facts["since_start"]["stored"] >= 2
        assert facts["under_way_limit"] > 1 << 20
        assert facts["spool"] == {"bytes": 0, "unreadable": []}
