"""The Zellij producer as its own process: with a stand-in over real sockets and files, and, where
there is a `zellij` (or OPSMESH_ZELLIJ names one), with the real one in tmux."""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.producers import zellijs
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.idle import idle
from tests.producers.yazis import producing
from tests.producers.zellijs import RealZellij, StandInSession, ended, metadata, pane

from opsmesh.producers.errors import OptionError
from opsmesh.producers.peer import Peer, identity
from opsmesh.producers.registry import load
from opsmesh.producers.zellij.metadata import parse
from opsmesh.producers.zellij.places import Places

Make = Callable[..., StandInSession]


@pytest.fixture(autouse=True)
def used_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zellij was used on this machine: its cache is there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    (home / "cache/zellij").mkdir(parents=True, exist_ok=True)


@pytest.fixture
def session(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes sessions of the stand-in; they end with the test."""
    monkeypatch.delenv("ZELLIJ_SOCKET_DIR", raising=False)
    made: list[StandInSession] = []

    def make(name: str, **options: Any) -> StandInSession:
        made.append(StandInSession(home, name, **options))
        return made[-1]

    yield make
    for one in made:
        one.crash()


def told(agent: StandInAgent, count: int) -> list[tuple[str, str]]:
    """Topic and session of each event, once they are so many."""
    events = agent.wait_for(lambda events: len(events) >= count)
    return [(e["topic"].removeprefix("term."), e["payload"]["session"]) for e in events]


def noted(home: Path) -> bool:
    """Whether the producer has seen every session's layout."""
    path = home / "state/opsmesh/producers/zellij/memory.json"
    memory = json.loads(path.read_text()) if path.exists() else {"sessions": {}}
    return bool(memory["sessions"]) and all(
        session["layout"] for session in memory["sessions"].values()
    )


def test_sessions_start_and_end_and_crash(agent: StandInAgent, session: Make) -> None:
    """A start, a proper end and a crash are told; a socket of the web server is no session."""
    with producing("zellij"):
        first = session("first")  # the folders did not exist before
        assert told(agent, 1) == [("session.started", "first")]
        second = session("second", contract=2)  # an upgrade, while the old session lives on
        session("web_server_bus")
        assert told(agent, 2)[1:] == [("session.started", "second")]
        first.end()
        assert told(agent, 3)[2:] == [("session.ended", "first")]
        second.crash()
        assert told(agent, 4)[3:] == [("session.ended", "second")]
    assert [e["payload"].get("crashed") for e in agent.events] == [None, None, False, True]
    assert agent.events[2]["payload"]["duration_s"] > 0
    assert (agent.events[0]["component"], agent.events[0]["session_id"]) == (
        "first",
        "zellij:first",
    )


def test_a_layout_is_told_when_it_is_another(
    agent: StandInAgent, home: Path, session: Make
) -> None:
    """Neither the first layout, nor focus and titles, nor a file that is cut are a change."""
    with producing("zellij", "debounce=10ms"):
        one = session("dev")
        told(agent, 1)
        one.write(pane(0))
        until(lambda: noted(home))
        one.write(pane(0, focus=True, title='a "} \n{', cursor_coordinates_in_pane="1 2"))
        one.write(pane(0), pane(1, x=60), cut=600)
        one.write(pane(0), pane(1, x=60))
        told(agent, 2)
        one.write(pane(0), pane(1, x=60), tabs=2)
        told(agent, 3)
        one.end()
        assert [topic for topic, _ in told(agent, 4)] == [
            *("session.started", "layout.changed", "layout.changed", "session.ended"),
        ]
    layouts = [event["payload"] for event in agent.events[1:3]]
    assert [(layout["tabs"], layout["panes"]) for layout in layouts] == [(1, 2), (2, 2)]
    assert layouts[0]["layout_hash"] != layouts[1]["layout_hash"]


def test_command_panes_that_fail(agent: StandInAgent, session: Make) -> None:
    """Each failure of a command pane is told once, and again when it has run again; success, a
    signal, whose status Zellij does not keep, and a plugin are not."""
    command = 'sh -c echo "a \\ b"\nexit 7'
    with producing("zellij", "debounce=10ms"):
        one = session("dev")
        told(agent, 1)
        fine = (ended(2, "true", 0), ended(3, "kill", None))
        one.write(pane(0), ended(1, command, 7), *fine)
        assert told(agent, 2)[1:] == [("pane.command.failed", "dev")]
        one.write(pane(0, x=1), ended(1, command, 7), *fine)
        assert told(agent, 3)[2:] == [("layout.changed", "dev")]
        one.write(pane(0, x=2), pane(1), *fine)
        told(agent, 4)
        one.write(pane(0, x=2), ended(1, command, 8), *fine)
        assert told(agent, 5)[4:] == [("pane.command.failed", "dev")]
    failed = [agent.events[1], agent.events[4]]
    assert [event["exit_code"] for event in failed] == [7, 8]
    assert failed[0]["payload"] == {
        "command": command,
        "exit_code": 7,
        "session": "dev",
        "pane": "1",
    }


def test_a_session_that_gets_another_name(agent: StandInAgent, session: Make) -> None:
    """It goes on: both names are told, and that it is one session."""
    with producing("zellij"):
        one = session("old")
        told(agent, 1)
        one.rename("new")
        assert told(agent, 3)[1:] == [("session.ended", "old"), ("session.started", "new")]
    assert agent.events[1]["payload"]["renamed_to"] == "new"
    assert agent.events[2]["payload"]["renamed_from"] == "old"


def test_what_happened_while_it_was_away(agent: StandInAgent, home: Path, session: Make) -> None:
    """Its next start tells sessions that started, ended and crashed, and a layout that changed."""
    memory = home / "state/opsmesh/producers/zellij/memory.json"
    one, two, three = session("one"), session("two"), session("three")
    one.write(pane(0))
    with producing("zellij"):
        told(agent, 3)
        until(lambda: memory.exists() and len(json.loads(memory.read_text())["sessions"]) == 3)
    two.end()
    three.crash()
    one.write(pane(0), pane(1, x=60))
    session("four")
    with producing("zellij"):
        assert sorted(told(agent, 7)[3:]) == [
            ("layout.changed", "one"),
            ("session.ended", "three"),
            ("session.ended", "two"),
            ("session.started", "four"),
        ]
    crashed = {e["payload"]["session"]: e["payload"].get("crashed") for e in agent.events[3:]}
    assert (crashed["two"], crashed["three"]) == (False, True)
    ids = {event["payload"]["session"]: event["id"] for event in agent.events[:3]}
    memory.unlink()
    agent.events.clear()
    with producing("zellij"):  # with its memory lost: the same facts have the same ids
        told(agent, 2)
    assert ids["one"] in {event["id"] for event in agent.events}


@pytest.mark.slow
def test_a_session_that_restarts_twenty_times(agent: StandInAgent, session: Make) -> None:
    """Each start and each end is told once, in order."""
    with producing("zellij", "debounce=10ms"):
        for number in range(20):
            one = session("dev")
            told(agent, 2 * number + 1)
            if number % 2:
                one.end()
            else:
                one.crash()
            told(agent, 2 * number + 2)
    topics = [event["topic"] for event in agent.events]
    assert topics == ["term.session.started", "term.session.ended"] * 20
    assert len({event["id"] for event in agent.events}) == 40


def test_a_mesh_that_hangs(home: Path, session: Make) -> None:
    """What is told while the mesh hangs is in the spool."""
    with standing_in(home, hang=True), producing("zellij"):
        session("dev")
        until(lambda: len(spooled(home)) == 1)


def test_ten_thousand_hostile_files() -> None:
    """A file that is cut or damaged anywhere gives nothing, or a layout; never an error, and cut,
    never another layout than the whole file's."""
    whole = metadata("dev", pane(0, title="} {\n"), ended(1, "a\u1234b", 3), tabs=2).encode()
    layout = parse(whole)
    assert layout is not None
    for size in range(len(whole)):
        assert parse(whole[:size]) in (None, layout)
    chance = random.Random(5)
    for _ in range(10_000 - len(whole)):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 20)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        parse(bytes(damaged))
    assert parse(chance.randbytes(100_000)) is None


def test_odd_sockets_and_memories(agent: StandInAgent, home: Path, session: Make) -> None:
    """Files that are no sockets, a dead socket of unknown life, and a memory that is none make no
    event and no harm."""
    memory = home / "state/opsmesh/producers/zellij/memory.json"
    memory.parent.mkdir(parents=True)
    memory.write_text('{"sessions": {"x": 1, "1:2": {"name": 7}, "y": {"name": "n", "panes": {}}}}')
    session("stale").crash()
    (home / "run/zellij/contract_version_1/file").write_text("no socket")
    (home / "run/zellij/contract_version_x").mkdir()
    with producing("zellij"):
        session("dev")
        assert told(agent, 1) == [("session.started", "dev")]


def test_where_zellij_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders are where Zellij itself looks; a wrong option is named."""
    monkeypatch.setenv("ZELLIJ_SOCKET_DIR", "/z")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    assert Places.here().sockets == Path("/z")
    monkeypatch.delenv("ZELLIJ_SOCKET_DIR")
    assert Places.here().sockets == Path("/r/zellij")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert Places.here().sockets == Path(tempfile.gettempdir(), f"zellij-{os.getuid()}")
    for option in ({"sockets": "relative"}, {"cache": "x"}, {"debounce": "soon"}):
        with pytest.raises(OptionError):
            load("zellij", option)


def test_it_is_light(home: Path, session: Make) -> None:
    """With a session that lives it takes less than 30 MB, and no CPU."""
    session("dev").write(pane(0))
    memory, cpu = idle("zellij", {}, home)
    assert memory < 30
    assert cpu < 0.2


@pytest.fixture
def zellij(home: Path) -> Iterator[RealZellij]:
    """The real Zellij; `cargo install --locked zellij` brings one."""
    program = zellijs.real()
    if not program:
        pytest.skip("no zellij (cargo install --locked zellij, or OPSMESH_ZELLIJ=/path)")
    with tempfile.TemporaryDirectory(prefix="z") as folder:
        made = RealZellij(program, Path(folder))
        try:
            yield made
        finally:
            made.close()


@pytest.mark.slow
def test_the_real_zellij(agent: StandInAgent, zellij: RealZellij) -> None:
    """Start, panes, a command that fails, a new name, an end and a crash of the real Zellij."""
    folders = (f"sockets={zellij.sockets}", f"cache={zellij.folder}/c/zellij")
    with producing("zellij", *folders):
        zellij.start("alpha")
        assert told(agent, 1) == [("session.started", "alpha")]
        until(lambda: "is_plugin true" in zellij.written("alpha"))
        zellij.action("alpha", "run", "--", "sh", "-c", 'echo "a \\ b"; exit 7')
        agent.wait_for(lambda events: "term.pane.command.failed" in topics(events))
        [failed] = [e for e in agent.events if e["topic"] == "term.pane.command.failed"]
        assert failed["payload"]["command"] == 'sh -c echo "a \\ b"; exit 7'
        assert failed["exit_code"] == 7
        agent.wait_for(lambda events: "term.layout.changed" in topics(events))
        zellij.action("alpha", "action", "new-tab")
        agent.wait_for(lambda events: any(e["payload"].get("tabs") == 2 for e in events))
        zellij.action("alpha", "action", "rename-session", "beta")
        agent.wait_for(lambda events: any(e["payload"].get("renamed_from") for e in events))
        zellij.start("gamma")
        zellij.start("delta")
        agent.wait_for(lambda events: started(events) >= {"gamma", "delta"})
        zellij.kill("gamma")
        server = Peer.at(zellij.sockets / "contract_version_1/delta")
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)
        agent.wait_for(lambda events: len(ends(events)) >= 3)
        zellij.kill("beta")
        agent.wait_for(lambda events: "beta" in ends(events))
        server.close()
    found = ends(agent.events)
    assert found["gamma"]["crashed"] is False
    assert found["delta"]["crashed"] is True
    assert found["alpha"]["renamed_to"] == "beta"
    assert "crashed" not in found["beta"]
    assert topics(agent.events).count("term.pane.command.failed") == 1


@pytest.mark.slow
def test_the_real_zellij_starts_twenty_times(agent: StandInAgent, zellij: RealZellij) -> None:
    """Each of twenty sessions is told once, started and ended."""
    folders = (f"sockets={zellij.sockets}", f"cache={zellij.folder}/c/zellij")
    with producing("zellij", *folders):
        for number in range(20):
            zellij.start(f"s{number}")
            agent.wait_for(lambda events: len(started(events)) == number + 1)  # noqa: B023
            assert identity(zellij.sockets / f"contract_version_1/s{number}")
            zellij.kill(f"s{number}")
            agent.wait_for(lambda events: len(ends(events)) == number + 1)  # noqa: B023
    assert topics(agent.events).count("term.session.started") == 20
    assert topics(agent.events).count("term.session.ended") == 20
    assert not any(end["crashed"] for end in ends(agent.events).values())


def topics(events: list[dict[str, Any]]) -> list[str]:
    return [event["topic"] for event in events]


def started(events: list[dict[str, Any]]) -> set[str]:
    return {e["payload"]["session"] for e in events if e["topic"] == "term.session.started"}


def ends(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        e["payload"]["session"]: e["payload"] for e in events if e["topic"] == "term.session.ended"
    }


def test_machine_without_zellij(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no Zellij and never was one, no process waits for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "elsewhere"))
    monkeypatch.setenv("ZELLIJ_SOCKET_DIR", str(home / "no sockets"))
    monkeypatch.setenv("PATH", str(home))
    assert "zellij is not on PATH" in str(load("zellij").available())
    assert load("zellij", {"sockets": str(home)}).available() is None
