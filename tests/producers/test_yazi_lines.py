"""What the Yazi producer makes of lines: captured ones of the real Yazi, and hostile ones, which
reach it from a stand-in for `ya` behind a real socket."""

from __future__ import annotations

import json
import random
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.idle import idle
from tests.producers.yazis import producing

from opsmesh.producers.errors import OptionError, Unavailable
from opsmesh.producers.registry import load
from opsmesh.producers.yazi import dds
from opsmesh.producers.yazi.facts import ROOM, Fact, facts
from opsmesh.producers.yazi.lines import Lines

CAPTURE = Path(__file__).parent / "data/yazi/events-remote.txt"
VERSION = "echo 'Ya 26.9.1 (pypi)'"


@pytest.fixture
def listener(home: Path) -> Iterator[socket.socket]:
    """Somebody who listens where Yazi would: this process."""
    path = dds.socket_path()
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(64)
        yield server


def stand_in(home: Path, script: str) -> str:
    """A `ya` whose `sub` is the shell script; the option that names it."""
    path = home / "ya"
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then {VERSION}; exit; fi\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"ya={path}"


def told(line: str) -> list[Fact]:
    message = dds.parse(line.encode())
    return facts(message) if message else []


def test_the_capture_of_a_real_yazi() -> None:
    """Each line of the capture is what was done then."""
    found = [fact for line in CAPTURE.read_text().splitlines() for fact in told(line)]
    assert [fact.topic.removeprefix("file.") for fact in found] == [
        *("op.move", "op.copy", "op.move", "op.delete", "op.delete"),
        *("op.copy", "batch.completed", "op.move", "batch.completed"),
    ]
    assert found[0].payload["rename"]
    assert not found[2].payload["rename"]
    assert found[3].payload["trash"]
    assert not found[4].payload["trash"]
    assert found[8].payload["operation"] == "rename"
    assert found[8].payload["count"] == 3


@pytest.mark.parametrize(
    "line",
    [
        'rename,0,1,{"from":"/a","to":"/a"}',
        'rename,0,1,{"from":"/a"}',
        'rename,0,1,{"from":"/a","to":7}',
        'bulk-rename,0,1,{"changes":[]}',
        'move,0,1,{"items":{"from":"/a","to":"/b"}}',
        'delete,0,1,{"urls":"/a"}',
        'load,0,1,{"url":"/a","stage":"Loaded"}',
        'load,0,1,{"url":"/a","stage":{"Failed":{"type":"raw","code":2}}}',
        'load,0,1,{"url":"/a","stage":{"Failed":{"code":true}}}',
        'hey,0,1,{"peers":{}}',
        "rename,0,1,[]",
        "rename,0,x,{}",
        "rename,0,1",
        "",
        "delete,0,1," + "[" * 100_000,
        'delete,0,1,{"urls":[' + "9" * 5000 + "]}",
    ],
)
def test_lines_that_say_nothing(line: str) -> None:
    """What is nothing, not complete, or not of the kind that it says is no fact."""
    assert told(line) == []


def test_names_of_all_kinds() -> None:
    """Commas, breaks and quotes are part of a name; bytes that are no UTF-8 are shown as such."""
    urls = ["/a,b", "/c\nd", '/"e"', "regular~:///f%FF", "/g\ud800"]
    [one, _] = told("delete,0,1," + json.dumps({"urls": urls}))
    assert one.payload["paths"] == ["/a,b", "/c\nd", '/"e"', "/f\\xff", "/g\\ud800"]


def test_an_older_yazi() -> None:
    """`bulk` is what `bulk-rename` was called."""
    assert told('bulk,0,1,{"changes":{"/a":"/b"}}') == [
        Fact(
            "file.op.move",
            {"items": [{"src": "/a", "dst": "/b"}], "rename": True, "instance": "1"},
        )
    ]


def test_an_operation_too_large_for_one_event() -> None:
    """It is several events, with every file once; the batch has their number."""
    urls = [f"/{'x' * 200}/{number}" for number in range(3000)]
    *parts, batch = told("trash,0,1," + json.dumps({"urls": urls}))
    assert len(parts) > 1
    assert [path for part in parts for path in part.payload["paths"]] == urls
    assert max(len(json.dumps(part.payload)) for part in parts) < 2 * ROOM
    assert batch.payload == {"operation": "trash", "count": 3000, "instance": "1"}


def test_lines_come_in_pieces() -> None:
    """A line without end is skipped, and the next one is read."""
    lines = Lines(longest=10)
    assert lines.feed(b"ab") == []
    assert lines.feed(b"c\nd\n" + b"x" * 8) == [b"abc", b"d"]
    assert lines.feed(b"xxx") == []
    assert lines.feed(b"xxx\nlast\n") == [b"last"]
    assert lines.skipped == 1


def hostile(seed: int) -> bytes:
    """One line that means harm: cut, of no known kind, no UTF-8, or with a name that confuses."""
    chance = random.Random(seed)
    good = b'move,0,7,{"items":[{"from":"/a,b","to":"/c"}]}'
    match seed % 5:
        case 0:
            return good[: chance.randrange(len(good) - 1)]
        case 1:
            return bytes([97 + seed % 26]) + good
        case 2:
            return good[:30] + b"\xff\xfe" + good[30:]
        case 3:
            return b'load,0,7,{"url":"/Failed","stage":"' + b"x" * chance.randrange(2000) + b'"}'
        case _:
            return chance.randbytes(chance.randrange(200)).replace(b"\n", b"")


@pytest.mark.usefixtures("listener")
def test_ten_thousand_hostile_lines(agent: StandInAgent, home: Path) -> None:
    """Among 10,000 lines that mean harm the good ones are told, and nothing else."""
    lines = [hostile(number) for number in range(10_000)]
    for number in (1000, 5000, 9999):
        lines[number] = b'delete,0,7,{"urls":["/good/%d"]}' % number
    (home / "lines").write_bytes(b"\n".join(lines) + b"\n")
    with producing("yazi", stand_in(home, f"cat {home}/lines; exec sleep 60")):
        events = agent.wait_for(lambda events: len(events) >= 3)
    assert [e["payload"]["paths"] for e in events] == [
        ["/good/1000"],
        ["/good/5000"],
        ["/good/9999"],
    ]


@pytest.mark.usefixtures("listener")
def test_ya_never_waits_for_the_mesh(home: Path) -> None:
    """While the mesh hangs, `ya` writes a megabyte without waiting; all is told in the end, though
    the producer is stopped before it was."""
    line = json.dumps({"urls": ["/" + "x" * 9_999]})
    script = (
        f"for n in $(seq 100); do echo 'delete,0,7,{line}'; done; touch {home}/done; exec sleep 60"
    )
    with standing_in(home, hang=True), producing("yazi", stand_in(home, script)):
        until((home / "done").exists)
        assert len(spooled(home)) < 50  # two seconds each: the mesh is far behind
        (home / "run/opsmesh/ingest.sock").unlink()  # the agent is gone for good
    until(lambda: len(spooled(home)) == 100)


@pytest.mark.usefixtures("listener")
def test_a_ya_that_cannot_stay(agent: StandInAgent, home: Path) -> None:
    """A `ya` that ends at once is started again, less and less often, and each time is a gap."""
    ya = stand_in(home, f"echo x >> {home}/starts; exit 1")
    with producing("yazi", ya):
        events = agent.wait_for(lambda events: len(events) >= 3)
    assert {event["payload"]["kind"] for event in events} == {"listener_died"}


@pytest.mark.parametrize(
    ("says", "reason"),
    [("Ya 0.3.3 (x 2024-01-01)", "too old"), ("some other ya", "some other ya")],
)
def test_a_ya_that_will_not_do(home: Path, says: str, reason: str) -> None:
    """One that is too old, or no Yazi's, is named, with what to do."""
    path = home / "ya"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    producer = load("yazi", {"ya": str(path)})
    with pytest.raises(Unavailable, match=reason) as raised:
        producer.run(lambda *_, **__: "")
    assert "install Yazi" in str(raised.value)


def test_no_ya_at_all() -> None:
    """Without `ya` the reason says what to install; an empty name is a wrong option."""
    assert "install Yazi" in str(load("yazi", {"ya": "no-such-ya"}).available())
    with pytest.raises(OptionError):
        load("yazi", {"ya": ""})


def test_it_is_light(home: Path) -> None:
    """Waiting for a Yazi takes less than 30 MB, and no CPU."""
    ya = stand_in(home, "exec sleep 60").removeprefix("ya=")
    memory, cpu = idle("yazi", {"ya": ya}, home)
    assert memory < 30
    assert cpu < 0.2
