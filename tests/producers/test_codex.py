"""The codex producer on files that Codex has written (`data/agents/rollout-*`: 0.169.0 and two
older versions, long texts cut), as a process of its own with a stand-in for the mesh's agent.

With the real Codex: `test_agents_real.py`.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, standing_in, until
from tests.producers.process import producing, started
from tests.router.agent_process import spooled

from opsmesh.producers import troubles
from opsmesh.producers.agents import calls, files
from opsmesh.producers.agents.codex import Codex
from opsmesh.producers.agents.files import Files, Place
from opsmesh.producers.agents.rollout import Fact, Rollout
from opsmesh.producers.errors import OptionError
from opsmesh.schemas.payloads import TOPICS
from opsmesh.schemas.registry import Registry

DATA = Path(__file__).parent / "data/agents"
OK, ERROR, ASKED = "exec-ok", "exec-error", "tui-approval"
EVERY = (OK, ERROR, ASKED, "exec-0.120", "exec-0.60")


def lines(name: str) -> list[dict[str, Any]]:
    text = (DATA / f"rollout-{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def facts(name: str, **more: Any) -> list[Fact]:
    rollout = Rollout(**more)
    return [fact for line in lines(name) for fact in rollout.feed(line)]


# --- what a line tells


def test_a_session_with_a_command() -> None:
    """A session, its command with status and run time, and its turn with tokens are told."""
    start, command, turn = facts(OK)
    assert start.payload == {
        **{"session": "01a205fc-ddc4-7221-a64d-3394619e70d8", "agent": "codex"},
        **{"cwd": "/home/dev/proj", "cli_version": "0.169.0", "originator": "codex_exec"},
        **{"model": "mock-model", "model_provider": "mock"},
    }
    assert command.payload == {
        **{"session": start.session, "agent": "codex", "turn": turn.payload["turn"]},
        **{"argv": ["/bin/bash", "-lc", "echo hello-from-codex; exit 3"], "exit_code": 3},
        **{"command": "echo hello-from-codex; exit 3", "cwd": "/home/dev/proj"},
        **{"status": "failed", "duration_ms": 847.838},
    }
    assert (turn.payload["status"], turn.payload["input_tokens"]) == ("completed", 22)
    assert {command.causation_id, turn.causation_id} == {start.id}


def test_a_turn_that_failed() -> None:
    """A turn whose model answers with an error is told as failed, and the error beside it."""
    _, turn, error = facts(ERROR)
    assert (turn.payload["status"], turn.severity) == ("failed", "warn")
    assert (error.payload["code"], error.causation_id) == ("internal_server_error", turn.id)


@pytest.mark.parametrize("name", EVERY)
def test_every_fact_fits_its_topic(name: str) -> None:
    """The payloads are those of the registry, and hold nothing that was said."""
    registry = Registry(TOPICS)
    for fact in facts(name):
        registry.check(fact.topic, fact.payload)
        topic = registry.get(fact.topic)
        assert topic is not None
        assert set(fact.payload) <= set(topic.payload.__struct_fields__)
        said = json.dumps(fact.payload)
        assert "run the test" not in said
        assert "it exited" not in said
        assert "hello-from-codex\\n" not in said


def test_an_aborted_turn_and_an_older_form() -> None:
    """An interrupted turn has its reason; a command in the words of older versions counts."""
    rollout = Rollout()
    rollout.feed(lines(OK)[0])
    at = "2026-11-23T01:20:00.000Z"
    old = {
        **{"type": "exec_command_end", "call_id": "c1", "turn_id": "t", "command": ["ls"]},
        **{"cwd": "/home/dev", "exit_code": 2, "duration": {"secs": 1, "nanos": 500_000_000}},
    }
    (command,) = rollout.feed({"timestamp": at, "type": "event_msg", "payload": old})
    assert (command.payload["exit_code"], command.duration_ms) == (2, 1500.0)
    aborted = {"type": "turn_aborted", "turn_id": "t", "reason": "interrupted"}
    (turn,) = rollout.feed({"timestamp": at, "type": "event_msg", "payload": aborted})
    assert (turn.payload["status"], turn.payload["reason"]) == ("aborted", "interrupted")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("exec-0.120", [("sleep 0.2; exit 3", 3, 62.9)]),
        ("exec-0.60", [("sleep 0.2; echo hi; exit 3", 3, 200.0), ("exit 4", 4, 0.0)]),
    ],
)
def test_versions_without_events_for_commands(
    name: str, wanted: list[tuple[str, int, float]]
) -> None:
    """A command that stands in the model's call and its answer alone is told by them."""
    told = [fact for fact in facts(name) if fact.topic == "agent.command.executed"]
    assert [(f.payload["command"], f.exit_code, f.duration_ms) for f in told] == wanted
    assert {fact.payload["status"] for fact in told} == {"failed"}


def test_a_command_is_told_once() -> None:
    """An event and an answer about one call are one command, whichever comes first."""
    ordered = lines(OK)
    answer = next(i for i, one in enumerate(ordered) if "output" in one["payload"])
    event = answer - 1
    assert ordered[event]["payload"]["item"]["type"] == "CommandExecution"
    ordered[event], ordered[answer] = ordered[answer], ordered[event]
    rollout = Rollout()
    told = [fact for line in ordered for fact in rollout.feed(line)]
    assert [fact.exit_code for fact in told if fact.topic == "agent.command.executed"] == [3]


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("Chunk ID: 1\nProcess running with session ID 5\nOutput:\nExit code: 7\n", None),
        ("Wall time: nan seconds\nExit code: 2\nOutput:\nProcess exited with code 9", 2),
        ('{"output":"Exit code: 7","metadata":{"exit_code":0}}', 0),
        ({"content": "Exit code: 1\nOutput:\n"}, 1),
        ("rejected by user", None),
        ('{"metadata":{"exit_code":true}}', None),
        ("{", None),
        ("Exit code: x", None),
        (None, None),
    ],
)
def test_how_an_answer_says_the_status(output: object, code: int | None) -> None:
    """The status stands in the head of an answer, or beside it; what was printed says nothing."""
    ended = calls.ended(output)
    assert (None if ended is None else ended.exit_code) == code


def test_the_same_line_gives_the_same_id() -> None:
    """Read twice, a session's events have the ids that they had; another session's differ."""
    assert [fact.id for fact in facts(OK)] == [fact.id for fact in facts(OK)]
    every = [fact.id for name in (OK, ERROR, ASKED) for fact in facts(name)]
    assert len(set(every)) == len(every)


def test_a_fork_is_no_second_session() -> None:
    """The first line says whose file it is; a copy of another's first line starts nothing."""
    rollout = Rollout()
    assert len(rollout.feed(lines(OK)[0])) == 1
    assert rollout.feed(lines(ASKED)[0]) == []
    assert rollout.session == lines(OK)[0]["payload"]["id"]


def test_what_is_not_understood_is_counted() -> None:
    """New kinds of lines and of events are counted by name, and stop nothing."""
    rollout = Rollout()
    at = "2026-11-23T01:20:00.000Z"
    rollout.feed({"timestamp": at, "type": "of_tomorrow", "payload": {}})
    rollout.feed({"timestamp": at, "type": "event_msg", "payload": {"type": "of_tomorrow"}})
    rollout.feed({"timestamp": at, "type": "event_msg"})
    assert rollout.unknown == {"of_tomorrow": 1, "event_msg/of_tomorrow": 1, "event_msg": 1}
    assert len([fact for line in lines(OK) for fact in rollout.feed(line)]) == 3


def test_a_version_that_hides_its_commands_is_noticed() -> None:
    """Calls of the model without any command that we see say that the format has moved."""
    call = next(line for line in lines(OK) if line["payload"].get("type") == "function_call")
    rollout = Rollout()
    for _ in range(3):
        rollout.feed(call)
    assert rollout.blind


def test_damaged_lines_are_harmless() -> None:
    """3,000 lines with a value replaced by another give facts that can be stored, or none."""
    chance, every = random.Random(8), [line for name in EVERY for line in lines(name)]
    values: list[Any] = [None, 7, -1, True, [], {}, [{}], "x", "\ud800", "9" * 400, 10**30, 1e308]
    rollout = Rollout()
    for _ in range(3_000):
        line = json.loads(json.dumps(chance.choice(every)))
        inner = line
        while True:
            key = chance.choice(list(inner))
            if not isinstance(inner[key], dict) or not inner[key] or chance.random() < 0.2:
                break
            inner = inner[key]
        inner[key] = chance.choice(values)
        for fact in rollout.feed(line):
            json.dumps(fact.payload, ensure_ascii=False, allow_nan=False).encode()
            assert -1 < fact.ts_us < 2**62


# --- which files, and from where


def place(
    home: Path,
    name: str,
    *,
    day: str = "2026/11/27",
    count: int | None = None,
    year: bytes = b"2026",
) -> Path:
    """A rollout of Codex' in its folder, all or the first lines of it; `year`: as if they had been
    written then."""
    path = home / "codex/sessions" / day / f"rollout-{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = (DATA / f"rollout-{name}.jsonl").read_bytes().splitlines(keepends=True)
    text = b"".join(whole[:count])
    path.write_bytes(text.replace(b'"timestamp": "2026-', b'"timestamp": "%b-' % year))
    return path


def test_whole_lines_alone_are_read(tmp_path: Path) -> None:
    """A line without its end is left; one that is no JSON, or too long, is marked."""
    path = tmp_path / "file"
    path.write_bytes(b'{"a":1}\nnonsense\n' + b"x" * (files.LONGEST + 7) + b'\n{"b":2}\n{"c"')
    found = list(files.read(path, 0))
    assert [line.value for line in found] == [{"a": 1}, None, None, {"b": 2}]
    assert found[-1].end == path.stat().st_size - len(b'{"c"')
    assert list(files.read(path, found[-1].end)) == []


def test_every_folder_that_may_get_another_is_watched(tmp_path: Path) -> None:
    """Years and months without a day are watched too, and of the days the newest."""
    for name in ("2026/01/02", "2026/01/10", "2026/02", "2027", "notes"):
        (tmp_path / name).mkdir(parents=True)
    known = Files(tmp_path, 5)
    names = [str(path.relative_to(tmp_path)) for path in known.watched()]
    months = ["2026/02", "2026/01"]
    assert names == [".", "2027", "2026", *months, "2026/01/10", "2026/01/02"]
    assert [path.name for path in known.folders()] == ["10", "02"]


def test_old_files_are_forgotten(tmp_path: Path) -> None:
    """The places of the files that changed last are kept, and a bounded number of them."""
    known = Files(tmp_path, 5)
    known.places = {f"f{n}": Place(1, 1, n) for n in range(files.MAX_FILES + 1)}
    known.forget(now_ns=99)
    assert (len(known.places), known.floor_ns) == (files.MAX_FILES // 2, 99)
    assert f"f{files.MAX_FILES}" in known.places


def test_memory_that_is_no_memory(tmp_path: Path) -> None:
    """Nonsense in what is remembered changes nothing."""
    known = Files(tmp_path, 5)
    for stored in ({}, {"floor_ns": "x", "files": {}}, {"floor_ns": 7, "files": []}):
        known.restore(stored)
    assert known.floor_ns == 5
    known.restore({"floor_ns": 7, "files": {"a": [1, 2, 3], "b": [1], "c": None}})
    assert list(known.places) == ["a"]


# --- the producer


@pytest.fixture
def codex(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Codex', which has existed for a while."""
    monkeypatch.setenv("CODEX_HOME", str(home / "codex"))
    monkeypatch.delenv("OPSMESH_WORKSPACE", raising=False)
    (home / "codex/sessions").mkdir(parents=True)
    return home


def log(home: Path) -> Path:
    return home / "producer.log"


def ready(home: Path) -> None:
    """Until the producer has written down where it begins."""
    until((home / "state/opsmesh/producers/codex/memory.json").exists)


def append(path: Path, name: str, start: int) -> None:
    whole = (DATA / f"rollout-{name}.jsonl").read_bytes().splitlines(keepends=True)
    with path.open("ab") as file:
        file.write(b"".join(whole[start:]))


def test_a_session_is_told_while_it_runs(codex: Path, agent: StandInAgent) -> None:
    """Also where there was no session before: a new file in a new folder is told at once, and what
    is added to it when it is added."""
    (codex / "codex/sessions").rmdir()
    with producing("codex", "since=all", log=log(codex)):
        ready(codex)
        path = place(codex, OK, count=8)
        agent.wait_for(lambda events: len(events) == 1)
        append(path, OK, 8)
        events = agent.wait_for(lambda events: len(events) == 3)
    assert [event["topic"] for event in events] == [
        "agent.session.started",
        "agent.command.executed",
        "agent.turn.completed",
    ]
    first = events[0]
    assert (first["source"], first["correlation_id"]) == ("codex", first["payload"]["session"])
    assert events[1]["causation_id"] == first["id"]
    assert (events[1]["exit_code"], events[1]["duration_ms"]) == (3, 847.838)


def test_what_is_older_than_the_first_start_is_not_told(codex: Path, agent: StandInAgent) -> None:
    """Of a session that was there before, only what comes now is told; its context is known."""
    path = place(codex, OK, count=8, day="2026/11/23")
    with producing("codex", log=log(codex)):
        ready(codex)
        place(codex, ERROR, year=b"2036")  # at one stroke: what was read as old is not read again
        agent.wait_for(lambda events: len(events) == 3)
        rest = (DATA / f"rollout-{OK}.jsonl").read_text().splitlines(keepends=True)[8:]
        with path.open("a") as file:
            file.write("".join(rest).replace('"timestamp": "2026-', '"timestamp": "2036-'))
        events = agent.wait_for(lambda events: len(events) == 5)
    assert [event["payload"]["session"][:8] for event in events] == ["01a205fe"] * 3 + [
        "01a205fc"
    ] * 2
    assert events[3]["payload"]["exit_code"] == 3


def test_a_restart_tells_nothing_twice_and_nothing_less(codex: Path, agent: StandInAgent) -> None:
    """Killed after a command, it goes on behind it; what came meanwhile is told then."""
    process = started("codex", "since=all", log=log(codex))
    path = place(codex, OK, count=12)
    agent.wait_for(lambda events: len(events) == 2)
    process.kill()
    process.wait(60)
    append(path, OK, 12)
    other = place(codex, ASKED)
    with producing("codex", "since=all", log=log(codex)):
        events = agent.wait_for(lambda events: len({event["id"] for event in events}) == 6)
    assert other.exists()
    ids = [event["id"] for event in events]
    assert len(set(ids)) == 6
    assert set(ids[2:]) >= set(ids) - set(ids[:2])


def test_a_stop_in_between_reads_no_line_again(codex: Path, agent: StandInAgent) -> None:
    """Stopped and started again, no event is sent a second time, but for one whose answer the stop
    kept from it."""
    with producing("codex", "since=all", log=log(codex)):
        place(codex, OK)
        agent.wait_for(lambda events: len(events) == 3)
    with producing("codex", "since=all", log=log(codex)):
        place(codex, ERROR)
        agent.wait_for(lambda events: len({event["id"] for event in events}) == 6)
    ids = [event["id"] for event in agent.events]
    assert ids[3:] in (ids[-3:], [ids[2], *ids[-3:]])


def test_a_stop_in_the_middle_of_a_file_leaves_nothing_out(codex: Path, home: Path) -> None:
    """Stopped before anybody had taken an event, the next life tells it, and the rest of a file
    that does not change any more."""
    with standing_in(home, hang=True) as hanging:
        hanging.kills_at, hanging.kills_with = 1, signal.SIGTERM
        place(codex, OK)
        assert started("codex", "since=all", log=log(codex)).wait(60) == 0
    (home / "run/opsmesh/ingest.sock").unlink()
    with standing_in(home) as answering, producing("codex", "since=all", log=log(codex)):
        answering.wait_for(lambda events: len(events) == 3)


def test_without_a_mesh_events_wait_in_order(codex: Path) -> None:
    """With the mesh down a session lies in the spool, in its order."""
    with producing("codex", "since=all", log=log(codex)):
        place(codex, OK)
        until(lambda: len(spooled()) == 3)
    assert [event["topic"].split(".")[1] for event in spooled()] == [
        "session",
        "command",
        "turn",
    ]


def test_what_is_told_of_commands(codex: Path, agent: StandInAgent) -> None:
    """The option `commands` bounds what leaves."""
    with producing("codex", "since=all", "commands=program", log=log(codex)):
        place(codex, OK)
        events = agent.wait_for(lambda events: len(events) == 3)
    assert (events[1]["payload"]["argv"], events[1]["payload"]["command"]) == (["echo"], "echo")


def test_a_newer_codex_is_said_and_counted(codex: Path, agent: StandInAgent) -> None:
    """Lines that are not understood are named in the log, once a session, and counted."""
    with producing("codex", "since=all", log=log(codex)):
        path = place(codex, OK, count=1)
        with path.open("a") as file:
            for _ in range(3):
                file.write(
                    '{"timestamp":"2036-01-01T00:00:00Z","type":"of_tomorrow","payload":{}}\n'
                )
            file.write("no JSON\n")
        append(path, OK, 1)
        agent.wait_for(lambda events: len(events) == 3)
    memory = json.loads((codex / "state/opsmesh/producers/codex/memory.json").read_bytes())
    assert memory["unknown"] == {"of_tomorrow": 3, "no JSON": 1}
    assert log(codex).read_text().count("of_tomorrow") == 1


def test_a_file_that_goes_while_it_is_read(codex: Path, agent: StandInAgent) -> None:
    """A session that is archived or deleted is no trouble, nor is one that may not be read."""
    with producing("codex", "since=all", log=log(codex)):
        place(codex, OK)
        agent.wait_for(lambda events: len(events) == 3)
        shutil.rmtree(codex / "codex/sessions/2026")
        place(codex, ERROR, day="2026/12/01")
        agent.wait_for(lambda events: len(events) == 6)


def test_a_version_that_hides_its_commands_is_a_trouble(codex: Path, agent: StandInAgent) -> None:
    """`doctor` finds that a version's commands cannot be told, and what else of it is told."""
    call = next(line for line in lines(OK) if line["payload"].get("type") == "function_call")
    with producing("codex", "since=all", log=log(codex)):
        path = place(codex, OK, count=1)
        with path.open("a") as file:
            file.writelines(json.dumps(call) + "\n" for _ in range(3))
        append(path, ERROR, 9)
        agent.wait_for(lambda events: len(events) == 3)
        assert "none is told" in troubles.read("codex")["Codex 0.169.0"]


def test_options() -> None:
    """A wrong option is refused with what is wrong."""
    with pytest.raises(OptionError, match="argv, program, none"):
        Codex(commands="all")
    with pytest.raises(OptionError, match="yesterday"):
        Codex(since="yesterday")


def test_where_codex_is_not(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Codex and its folder the producer says why it cannot run."""
    monkeypatch.setenv("PATH", str(home))
    assert "neither" in str(Codex(home=str(home / "none")).available())
