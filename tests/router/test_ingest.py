"""The ingest socket of a real agent: lines in, answers out, nobody in another's way."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import RawStreamMsg
from tests.conftest import eventually, mesh_client, private_folders, run, start_server
from tests.router.agent_process import AgentProcess, Connection, agent

from opsmesh.router import deadletter, paths
from opsmesh.router.ingest import MAX_LINE

LINT = {"tool": "ruff", "count": 3}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """One broker and one agent for all tests here: none of them needs an empty one."""
    home = tmp_path_factory.mktemp("mesh")
    with pytest.MonkeyPatch.context() as patch:
        private_folders(home, patch)
        broker = start_server()
        try:
            with agent(home) as process:
                yield process
        finally:
            broker.stop()


@pytest.fixture
def connect(running: AgentProcess) -> Iterator[Callable[[], Connection]]:
    made: list[Connection] = []

    def connection() -> Connection:
        made.append(Connection())
        return made[-1]

    yield connection
    for connection_ in made:
        connection_.close()


def stored(seq: int) -> RawStreamMsg:
    async def body() -> RawStreamMsg:
        async with mesh_client() as client:
            return await client.jetstream().get_msg("EVENTS", seq)

    message: RawStreamMsg = run(body())
    return message


def event(seq: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stored(seq).data or b"")
    return found


def letters(*lines: bytes) -> list[deadletter.Letter]:
    """The dead letters of these lines, once they are all there."""

    async def body() -> list[deadletter.Letter]:
        async with mesh_client() as client:

            async def enough() -> list[deadletter.Letter]:
                found = [one async for one in deadletter.letters(client) if one.data in lines]
                return found if len(found) == len(lines) else []

            found: list[deadletter.Letter] = await eventually(enough)
            return found

    found: list[deadletter.Letter] = run(body())
    return found


def test_the_least_event_is_completed(connect: Callable[[], Connection]) -> None:
    """A topic alone is enough: id, time, host and the topic's severity are filled in."""
    answer = connect().ask({"topic": "python.lint.failed", "payload": LINT})
    assert answer["ok"]
    found = event(answer["seq"])
    assert found["id"] == answer["id"]
    assert found["payload"] == LINT
    assert (found["host"], found["severity"]) == (socket.gethostname(), "warn")
    assert "_reply" not in found


def test_message_id_and_subject(connect: Callable[[], Connection]) -> None:
    """The event's id is the broker's message id; host and topic are its subject."""
    answer = connect().ask({"topic": "python.lint.failed", "payload": LINT, "host": "Box.lan"})
    message = stored(answer["seq"])
    assert message.subject == "evt.box_lan.python.lint.failed"
    assert message.headers == {"Nats-Msg-Id": answer["id"]}


def test_a_second_event_with_the_same_id_is_not_stored(connect: Callable[[], Connection]) -> None:
    """Sending again is safe: both answers name the one stored event."""
    connection = connect()
    first, second = (connection.ask({"topic": "a.b", "id": "same"}) for _ in range(2))
    assert first["seq"] == second["seq"]


def test_unregistered_topics_are_accepted_and_marked(
    connect: Callable[[], Connection], running: AgentProcess
) -> None:
    """A topic nobody registered is stored with a mark, and named once in the log."""
    connection = connect()
    for _ in range(3):
        answer = connection.ask({"topic": "strange.topic"})
    headers = stored(answer["seq"]).headers
    assert headers is not None
    assert headers["Opsmesh-Unregistered"] == "1"
    assert len([line for line in running.log() if line.get("topic") == "strange.topic"]) == 1


def test_coerce_makes_text_what_the_topic_wants(connect: Callable[[], Connection]) -> None:
    """With `_coerce`, "3" becomes 3 where a number is wanted; without it, it is an error."""
    text = {"topic": "python.lint.failed", "payload": {"tool": "ruff", "count": "3"}}
    connection = connect()
    answer = connection.ask({**text, "_coerce": True})
    assert event(answer["seq"])["payload"] == LINT
    assert "_coerce" not in event(answer["seq"])
    assert "count" in connection.ask(text)["error"]


def test_secrets_are_removed(connect: Callable[[], Connection]) -> None:
    """A secret in a payload never reaches the broker; the other fields keep their bytes."""
    line = b'{"topic":"a.b","payload":{"password":"hunter2","n":1.50},"mine": 1.50,"_reply":true}\n'
    connection = connect()
    connection.send(line)
    data = stored(connection.answer()["seq"]).data or b""
    assert b"hunter2" not in data
    assert b'"mine":1.50' in data


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"topic": "Not A Topic"}, "tokens of"),
        ({"topic": 7}, "topic"),
        ({"payload": {}}, "missing field topic"),
        ({"topic": "a.b", "severity": "loud"}, "not one of"),
        ({"topic": "a.b", "id": "a\r\nb"}, "printable"),
        ({"topic": "a.b", "id": ""}, "printable"),
        ({"topic": "a.b", "ts_utc": "yesterday"}, "RFC 3339"),
        ({"topic": "a.b", "host": "h" * 5000}, "exceed"),
        ({"topic": "a.b", "payload": {"x": "x" * 300_000}}, "exceeds 262144"),
    ],
)
def test_a_wrong_event_is_answered_with_its_error(
    connect: Callable[[], Connection], wrong: dict[str, Any], says: str
) -> None:
    """The answer says what is wrong, and the connection goes on."""
    connection = connect()
    answer = connection.ask(wrong)
    assert not answer["ok"]
    assert says in answer["error"]
    assert connection.ask({"topic": "a.b"})["ok"]


def test_answers_come_in_the_order_of_requests(connect: Callable[[], Connection]) -> None:
    """Pipelined requests, good ones and wrong ones, are answered one after the other."""
    connection = connect()
    connection.send(
        *(
            {"topic": "a.b" if n % 7 else "wrong", "id": f"id-{n}", "_reply": True}
            for n in range(2000)
        )
    )
    answers = [connection.answer() for _ in range(2000)]
    assert [a["ok"] for a in answers] == [bool(n % 7) for n in range(2000)]
    assert [a["id"] for a in answers if a["ok"]] == [f"id-{n}" for n in range(2000) if n % 7]
    seqs = [a["seq"] for a in answers if "seq" in a]  # what a busy broker has not taken is spooled
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


def test_wrong_lines_that_ask_nothing_become_dead_letters(
    connect: Callable[[], Connection],
) -> None:
    """What is no event and wants no answer is kept byte for byte, with the reason."""
    lines = [b"not json at all \xff", b'{"topic":"Wrong Topic"}']
    connect().send(*(line + b"\n" for line in lines))
    found = letters(*lines)
    assert {(letter.profile, letter.topic) for letter in found} == {("ingest", "invalid")}
    assert all(letter.reason for letter in found)


def test_a_last_line_without_its_end_counts(connect: Callable[[], Connection]) -> None:
    """What stands before the end of a connection is a line: an event, or a dead letter."""
    connection = connect()
    connection.send(b'{"topic":"a.b","id":"unended","_reply":true}')
    connection.socket.shutdown(socket.SHUT_WR)
    assert connection.answer()["id"] == "unended"
    half = connect()
    half.send(b'{"topic":"a.b","pay')
    half.socket.shutdown(socket.SHUT_WR)
    assert letters(b'{"topic":"a.b","pay')[0].reason.startswith("not JSON")


def test_a_line_that_is_too_long_is_skipped(connect: Callable[[], Connection]) -> None:
    """It is answered with an error, and the next line is understood."""
    connection = connect()
    connection.send(b'{"topic":"a.b","x":"' + b"x" * (3 * MAX_LINE) + b'"}\n')
    connection.send({"topic": "a.b", "id": "after", "_reply": True})
    assert f"exceeds {MAX_LINE} bytes" in connection.answer()["error"]
    assert connection.answer()["id"] == "after"


def test_clients_do_not_disturb_each_other(connect: Callable[[], Connection]) -> None:
    """A hundred connections, half of them stuck in a half line, are all served."""
    connections = [connect() for _ in range(100)]
    for stuck in connections[::2]:
        stuck.send(b'{"topic":')
    for n, connection in enumerate(connections[1::2]):
        connection.send({"topic": "a.b", "id": f"c-{n}", "_reply": True})
    for n, connection in enumerate(connections[1::2]):
        assert connection.answer()["id"] == f"c-{n}"
    for n, stuck in enumerate(connections[::2]):
        stuck.send(b'"a.b","id":"s-%d","_reply":true}\n' % n)
        assert stuck.answer()["id"] == f"s-{n}"


def test_a_client_that_reads_no_answers_holds_nobody_up(connect: Callable[[], Connection]) -> None:
    """Its own requests wait; everybody else's go on."""
    deaf = connect()
    deaf.socket.setblocking(False)
    request = b'{"topic":"a.b","_reply":true}\n' * 1000
    with contextlib.suppress(BlockingIOError):
        while True:
            deaf.socket.send(request)
    assert connect().ask({"topic": "a.b"})["ok"]


def test_the_socket_is_its_owners_alone(running: AgentProcess) -> None:
    """Mode 0600 in a folder of mode 0700."""
    path = Path(paths.ingest_socket())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
