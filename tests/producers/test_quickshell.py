"""OpsMesh.qml in the real Qt engine against the real agent and broker.

Quickshell's own types are stand-ins over a real QLocalSocket (qml_host.py); all else is real.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, mesh_client, run
from tests.handlers.lost_runs import dead, left_behind
from tests.handlers.mesh import mesh, write_profiles
from tests.producers import qmls
from tests.producers.agent import standing_in
from tests.producers.qmls import Qml, quickshell
from tests.router.agent_process import agent

from opsmesh.producers.quickshell import Quickshell
from opsmesh.router import paths, user
from opsmesh.router.ingest import Ingest
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings

PROFILES = """
profiles:
  deploy:
    on: service.start.failed
    actions:
      - {id: first, on_unknown: ask, command: ["true"]}
      - {id: second, command: [echo, fine]}
  clean:
    on: demo.never.comes
    actions:
      - {id: only, command: [echo, fine]}
  broken:
    on: demo.never.comes
    actions:
      - {id: only, command: ["false"]}
  listens:
    on: shell.action.invoked
    actions:
      - {id: only, command: ["true"]}
"""


@pytest.fixture
def qml(home: Path) -> Iterator[Qml]:
    """An engine with OpsMesh, before there is an agent."""
    qmls.engine()
    with quickshell(home / "qml") as running:
        running.say()
        yield running


@contextmanager
def silent(path: Path) -> Iterator[None]:
    """A socket that takes the two connections and never reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(2)
        yield
        for connection in [server.accept()[0] for _ in range(2)]:
            connection.close()
    path.unlink()


def settled(state: dict[str, Any]) -> bool:
    """Whether the agent has acknowledged everything."""
    return bool(state["connected"]) and state["queued"] == 0


def stored(topic: str) -> list[dict[str, Any]]:
    """The events of a topic as they lie at the broker, in their order."""

    async def body() -> list[dict[str, Any]]:
        async with mesh_client() as client:
            return [
                json.loads(msg.data)
                async for msg in scan(client, "EVENTS", subjects=[f"evt.*.{topic}"])
            ]

    found: list[dict[str, Any]] = run(body())
    return found


def test_events_arrive_in_order_also_those_of_before_the_agent(
    nats_server: EmbeddedServer, home: Path, qml: Qml
) -> None:
    """What was told before the agent started is stored in order, as QML gave it."""
    first = qml.call("action", "audio.mute", {"to": "on"}, "VolumeButton")
    qml.call("action", "plain", 7)
    qml.call("widgetError", "Battery", "TypeError: x", "/q/Battery.qml", 42)
    assert qml.say()["queued"] == 3
    with agent(home):
        state = qml.until(settled)
        assert state["lastResult"]["topic"] == "shell.widget.error"
        last = qml.call("workflow", "focus", {"minutes": 50})
        state = qml.until(lambda s: settled(s) and s["lastResult"]["id"] == last)
        assert state["lastResult"]["ok"] is True
        told = stored("shell.>")
    assert [event["topic"] for event in told] == [
        "shell.action.invoked",
        "shell.action.invoked",
        "shell.widget.error",
        "shell.workflow.triggered",
    ]
    payloads = [event["payload"] for event in told]
    assert payloads[0] == {"action": "audio.mute", "detail": {"to": "on"}, "widget": "VolumeButton"}
    assert payloads[1] == {"action": "plain", "detail": "7"}
    assert payloads[2]["line"] == 42
    assert payloads[3] == {"workflow": "focus", "args": {"minutes": 50}}
    assert told[0]["id"] == first
    assert (told[0]["source"], told[0]["component"]) == ("quickshell", "VolumeButton")


def test_the_queue_is_bounded_and_ids_are_uuids(
    nats_server: EmbeddedServer, home: Path, qml: Qml
) -> None:
    """Of 300 events without an agent the newest 256 are kept, and 44 are counted."""
    made = qml.call("many", 300, "a")
    assert {uuid.UUID(one).version for one in made} == {7}
    assert made == sorted(made)
    state = qml.say()
    assert (state["queued"], state["dropped"]) == (256, 44)
    with agent(home):
        qml.until(settled)
        assert [event["id"] for event in stored("shell.>")] == made[44:]


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_an_agent_that_restarts(
    nats_server: EmbeddedServer, home: Path, qml: Qml, times: int
) -> None:
    """Nothing is lost and nothing is stored twice, whichever way the agent ends."""
    made: list[str] = []
    for count in range(times):
        with agent(home, ready=False) as running:
            qml.until(lambda s: s["connected"])
            made += qml.call("many", 10, f"{count}.")
            if count % 2:
                running.kill()
            else:
                running.stop()
    with agent(home):
        state = qml.until(settled)
        assert state["dropped"] == 0
        assert sorted(event["id"] for event in stored("shell.>")) == sorted(made)


def test_an_agent_that_hangs_does_not_stall_the_engine(home: Path, qml: Qml) -> None:
    """A silent agent costs the engine no time; what had room in the queue arrives afterwards."""
    with silent(Path(paths.ingest_socket())):
        qml.until(lambda s: s["connected"])
        qml.say()
        made = qml.call("many", 1000, "h")
        state = qml.say()
        assert state["stalled_s"] < 1
        assert (state["queued"], state["dropped"]) == (256, 744)
        assert qml.call("answer", "x", "retry", "") is True  # asked, and never answered
        assert qml.say()["stalled_s"] < 0.5
    lost = qml.until(lambda s: not s["connected"])
    assert lost["lastResult"]["ok"] is False
    assert "nobody knows" in lost["lastResult"]["error"]
    with standing_in(home) as after:
        qml.call("action", "again")
        after.wait_for(lambda events: any("again" in json.dumps(e) for e in events))
        ids = [event["id"] for event in after.events]
    # the 32 that were under way, less the oldest for the new one, and the newest of the others
    assert ids[:-1] == made[1:32] + made[776:]


def test_hostile_values_and_answers(home: Path, qml: Qml) -> None:
    """Nothing that a caller passes or an agent says breaks the engine or makes a wrong event."""
    assert qml.say(call="cycle")["out"] == ""
    assert "ok" in qml.say()["lastResult"]
    assert qml.call("action", "big", "x" * 300_000) == ""
    assert "exceeds" in qml.say()["lastResult"]["error"]
    assert qml.call("run", "p", {}, "w") == ""
    assert "away" in qml.say()["lastResult"]["error"]

    hostile = [
        *(b"", b"null", b"[]", b"{", b"\xff\xfe", b'"\\ud800"', b"x" * 1000),
        *(b'{"ok":true,"id":"strange"}', b'{"ok":1}', b'{"questions":7,"ok":null}'),
        *(b'{"_missed":{}}', b'{"topic":1}', b'{"id":{},"ok":true}'),
    ]

    async def handle(line: bytes, _: bool) -> bytes | None:
        event = json.loads(line)
        if "_questions" in event:
            return b"\n".join([*hostile[:10], b'{"ok":true,"questions":[1,null,"x"]}'])
        if "topic" not in event:
            return b'{"ok":true}'
        answer = json.dumps({"ok": True, "id": event["id"]}).encode()
        return b"\n".join([*hostile * 800, b"x" * 1_000_000, answer])

    async def body() -> dict[str, Any]:
        ingest = Ingest(paths.ingest_socket(), handle)
        await ingest.start()
        try:
            qml_id = await _thread(qml.call, "action", "line\nbreak \u2028 \ud83d\ude00", "d")
            state = await _thread(
                qml.until, lambda s: s["lastResult"] and s["lastResult"].get("id") == qml_id
            )
        finally:
            await ingest.stop()
        assert isinstance(state, dict)
        return state

    state = run(body())
    assert (state["pendingApprovals"], state["queued"]) == ([], 0)


def test_a_question_is_shown_and_answered_from_qml(
    nats_server: EmbeddedServer, home: Path, qml: Qml
) -> None:
    """A run that waits is shown, drawn and answered, and the ledger says by whom; a runbook runs
    at one call."""
    settings = Settings()
    write_profiles(PROFILES)

    async def body() -> None:
        async with mesh_client(settings) as client:
            held = await left_behind(client, settings, "deploy", dead())
            async with mesh(PROFILES, settings=settings) as m:
                state = await _thread(qml.until, lambda s: s["pendingApprovals"])
                [asked] = state["pendingApprovals"]
                assert asked["id"] == held.run.run_id
                assert (asked["kind"], asked["profile"]) == ("run", "deploy")
                assert asked["choices"] == ["retry", "skip", "fail"]
                assert asked["expires"] is None
                size = await _thread(_shot, qml, home)
                assert size[:2] == [760, 40]
                assert size[2] > 20  # something is drawn
                assert await _thread(qml.call, "answer", asked["id"], "skip", "is done") is True
                state = await _thread(qml.until, lambda s: not s["pendingApprovals"])
                state = await _thread(qml.until, lambda s: (s["lastResult"] or {}).get("new"))
                assert state["lastResult"]["answer"] == "skip"

                async def answered() -> Any:
                    return await m.events("automation.step.answered")

                [event] = await eventually(answered)
                assert (event.payload["by"], event.payload["choice"]) == (user.name(), "skip")
                assert event.payload["reason"] == "is done"
                await _thread(qml.call, "answer", asked["id"], "retry", "")
                await _thread(qml.until, lambda s: s["lastResult"]["ok"] is False)

                id = await _thread(qml.call, "run", "deploy", {"why": "click"}, "Button")

                async def begun() -> Any:
                    found = [one for one in await m.runs() if one.event_id == id and one.finished]
                    return [one for one in found if one.profile == "deploy"]

                [ran] = await eventually(begun)
                assert (ran.trigger, ran.state) == ("manual", "succeeded")
                [click] = await m.events("shell.action.invoked")
                assert click.id == id
                assert click.payload["detail"] == {"profile": "deploy", "args": {"why": "click"}}
                state = await _thread(qml.until, lambda s: s["lastResult"].get("state"))
                told = state["lastResult"]
                assert (told["ok"], told["id"], told["run"]) == (True, id, "deploy")

    with agent(home):
        run(body())
        # the handlers have ended
        qml.until(lambda s: s["connected"])
        qml.call("answer", "x", "skip", "")
        state = qml.until(lambda s: "handlers" in str(s["lastResult"].get("error")))
        assert state["lastResult"]["ok"] is False


ASKS = """
profiles:
  restart:
    on: service.start.failed
    actions:
      - id: ask
        approve:
          prompt: "Which one?"
          expires: 1h
          answer: {type: object, required: [n], properties: {n: {type: integer}}}
"""


def test_an_approval_is_given_from_qml(nats_server: EmbeddedServer, home: Path, qml: Qml) -> None:
    """What a step asks is shown with all that a bar needs; a value that does not fit is said, one
    that does is taken, in the name of the agent's user."""
    settings = Settings()

    async def body() -> None:
        async with mesh(ASKS, settings=settings) as m:
            await m.publish()
            state = await _thread(qml.until, lambda s: s["pendingApprovals"])
            [asked] = state["pendingApprovals"]
            assert (asked["kind"], asked["choices"]) == ("approval", ["approve", "deny"])
            assert (asked["prompt"], asked["otherwise"]) == ("Which one?", "skip")
            assert asked["expires"] is not None
            assert asked["schema"]["required"] == ["n"]
            await _thread(qml.call, "approve", asked["id"], "", {"n": "x"})
            state = await _thread(
                qml.until, lambda s: "does not fit" in str((s["lastResult"] or {}).get("error"))
            )
            assert await _thread(qml.call, "approve", asked["id"], "go on", {"n": 3}) is True
            await _thread(qml.until, lambda s: not s["pendingApprovals"])
            [granted] = await m.wait("automation.approval.granted")
            told = granted.payload
            assert (told["by"], told["via"]) == (user.name(), "quickshell")
            assert (told["by_host"], told["comment"]) == (settings.host, "go on")
            assert told["answer"] == {"n": 3}

    with agent(home):
        run(body())


def test_the_end_of_a_runbook_is_told(nats_server: EmbeddedServer, home: Path, qml: Qml) -> None:
    """The profile's own end, not that of another one that heard the click; a name that nobody knows
    is an error, and leaves nothing behind."""
    settings = Settings()
    write_profiles(PROFILES)

    async def ended(id: str) -> dict[str, Any]:
        def over(state: dict[str, Any]) -> bool:
            last = state["lastResult"] or {}
            return last.get("id") == id and "state" in last

        return (await _thread(qml.until, over))["lastResult"]  # type: ignore[no-any-return]

    async def body() -> None:
        async with mesh(PROFILES, settings=settings) as m:
            await _thread(qml.until, lambda s: s["connected"])
            good = await ended(await _thread(qml.call, "run", "clean"))
            assert (good["ok"], good["run"], good["state"]) == (True, "clean", "succeeded")
            bad = await ended(await _thread(qml.call, "run", "broken"))
            assert (bad["ok"], bad["run"]) == (False, "broken")
            assert (bad["state"], bad["error"]) == ("failed", "exit code 1")
            assert len(await m.events("shell.action.invoked")) == 2

            id = await _thread(qml.call, "run", "nowhere")
            state = await _thread(qml.until, lambda s: s["lastResult"].get("id") == id)
            assert state["lastResult"]["ok"] is False
            assert "no profile 'nowhere'" in state["lastResult"]["error"]
            assert len(await m.events("shell.action.invoked")) == 2
            assert not any(letter.profile == "nowhere" for letter in await m.letters())

    with agent(home):
        run(body())


def test_an_end_that_nobody_told_is_said_so(home: Path, qml: Qml) -> None:
    """The agent goes away between a runbook's start and its end."""

    async def handle(line: bytes, _: bool) -> bytes | None:
        asked = json.loads(line).get("_run")
        return json.dumps({"ok": True, "id": asked["id"]} if asked else {"ok": True}).encode()

    async def body() -> None:
        ingest = Ingest(paths.ingest_socket(), handle)
        await ingest.start()
        try:
            await _thread(qml.until, lambda s: s["connected"])
            id = await _thread(qml.call, "run", "deploy")
            await _thread(qml.until, lambda s: (s["lastResult"] or {}).get("id") == id)
        finally:
            await ingest.stop()
        state = await _thread(qml.until, lambda s: not s["lastResult"]["ok"])
        assert state["lastResult"]["id"] == id
        assert "opsmesh run ls" in state["lastResult"]["error"]

    run(body())


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_hostile_calls(nats_server: EmbeddedServer, home: Path, qml: Qml, times: int) -> None:
    """200 calls at a time with whatever QML can hold: each is stored, or refused with a reason."""
    with agent(home):
        qml.until(lambda s: s["connected"])
        given = threw = 0
        for _ in range(times):
            ids, thrown = qml.say(hostile=200)["out"]
            given, threw = given + sum(map(bool, ids)), threw + thrown
            assert qml.until(settled)["dropped"] == 0
        assert threw == 0
        told = stored("shell.>")
        # an empty name, or a lone surrogate, is refused by the agent; nothing else is
        assert 0.7 * given < len(told) <= given
        assert {event["source"] for event in told} == {"quickshell"}
        last = qml.call("action", "after")
        qml.until(lambda s: settled(s) and s["lastResult"] == {**s["lastResult"], "id": last})


def test_a_stopped_agent_answers_later(nats_server: EmbeddedServer, home: Path, qml: Qml) -> None:
    """An agent that stands still (SIGSTOP) and goes on has everything once."""
    with agent(home) as running:
        qml.until(lambda s: s["connected"])
        os.kill(running.process.pid, signal.SIGSTOP)
        made = qml.call("many", 50, "s")
        assert qml.say()["stalled_s"] < 1
        os.kill(running.process.pid, signal.SIGCONT)
        qml.until(settled)
        assert [event["id"] for event in stored("shell.>")] == made


def test_the_module_is_free_of_lint(tmp_path: Path) -> None:
    """qmllint knows every name: Quickshell's are declared beside it, as its own files do."""
    qmls.engine()
    assert qmls.lint(tmp_path) == ""
    broken = tmp_path / "qs/opsmesh/Example.qml"
    broken.write_text(broken.read_text().replace("OpsMesh.connected", "OpsMesh.conected"))
    assert "conected" in qmls.lint(tmp_path)


def test_the_wiring_puts_the_module_beside_each_configuration(home: Path) -> None:
    """The default configuration hides the named ones, as in Quickshell."""
    tool = Quickshell()
    base = home / "config/quickshell"
    assert "shell.qml" in (tool.missing() or "")
    for name in ("bar", "side"):
        (base / name).mkdir(parents=True)
        (base / name / "shell.qml").touch()
    assert tool.missing() is None
    assert [piece.path for piece in tool.pieces()][::2] == [
        base / name / "opsmesh/OpsMesh.qml" for name in ("bar", "side")
    ]
    (base / "shell.qml").touch()
    assert [piece.path.parent for piece in tool.pieces()] == [base / "opsmesh"] * 2
    assert "import qs.opsmesh" in tool.after()


async def _thread(call: Any, *args: Any) -> Any:
    return await asyncio.to_thread(call, *args)


def _shot(qml: Qml, home: Path) -> list[int]:
    source = home / "qml/bar.qml"
    source.write_text("import qs.opsmesh\nExample { }\n")
    target = os.environ.get("OPSMESH_SHOT") or str(home / "bar.png")
    size: list[int] = qml.say(source=str(source), shot=target)["out"]
    return size
