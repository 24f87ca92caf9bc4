"""The observer of marimo from outside: what a page hears (a capture of a real one), and real
servers whose marimo does not load the plug-in."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, until
from tests.producers.marimos import Server, missing, notebook, serving
from tests.producers.process import producing
from tests.producers.test_marimo import COMPLETED, FAILED, FAULTY
from tests.producers.test_marimo_edit import RESTARTED, kernel_of

from opsmesh.producers import registry
from opsmesh.producers.errors import OptionError
from opsmesh.producers.marimo.observed import Notebook
from opsmesh.producers.marimo.servers import Server as Known
from opsmesh.producers.marimo.servers import Session, registered

CAPTURE = Path(__file__).with_name("data") / "marimo/edit.jsonl"
#: marimo's own way to leave a plug-in out.
WITHOUT = {
    f"MARIMO_{group}_DENYLIST": "opsmesh"
    for group in ("KERNEL_LIFESPAN", "SERVER_ASGI_LIFESPAN", "SERVER_ASGI_MIDDLEWARE")
}


def captured() -> list[dict[str, Any]]:
    """A run with a fault, one that mends it, one that is interrupted, and a kernel that exits."""
    return [json.loads(line) for line in CAPTURE.read_text().splitlines()]


def test_what_a_page_hears_is_told_as_the_plug_in_tells_it() -> None:
    """Of the captured page's four runs three are whole: with the fault, mended, and interrupted."""
    book = Notebook("/home/dev/sales.py")
    facts = [fact for message in captured() for fact in book.hear(message)]
    assert [fact.topic for fact in facts] == [FAILED, COMPLETED, COMPLETED, COMPLETED]
    failed, first, mended, stopped = (fact.payload for fact in facts)
    assert (failed["error"], failed["message"]) == ("KeyError", "'region'")
    assert (failed["cell_name"], failed["line"]) == ("totals", 2)
    assert failed["traceback_tail"].strip().endswith("KeyError: 'region'")
    assert (first["cells"], first["failed"], first["not_run"]) == (4, 1, 1)
    assert [one.get("failed", False) for one in first["ran"]] == [False, True, False]
    assert (mended["cells"], mended["failed"], mended["not_run"]) == (2, 0, 0)
    assert (stopped["interrupted"], stopped["failed"]) == (True, 0)
    assert book.died


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"op": "cell-op", "data": []},
        {"op": "cell-op", "data": {"output": {"mimetype": "application/vnd.marimo+error"}}},
        {"op": "completed-run", "data": {"run_id": "never begun"}},
        {"op": "kernel-ready", "data": {"names": 3}},
        {"op": "execution", "data": {"phase": "planned", "code": 7}},
    ],
)
def test_a_message_of_another_shape_says_nothing(message: dict[str, Any]) -> None:
    """What a later marimo may send neither fails nor tells anything."""
    assert Notebook("/x.py").hear(message) == []


def test_runs_that_never_end_are_forgotten() -> None:
    """A page that loses the ends of runs holds a few of them."""
    book = Notebook("/x.py")
    for number in range(100):
        data = {"op": "cell-op", "cell_id": "a", "status": "queued", "run_id": str(number)}
        book.hear({"op": "cell-op", "data": data})
    assert len(book._runs) <= 8


def test_it_is_off_unless_asked_for() -> None:
    """Without the option it says how it is switched on, and a wrong address is a wrong option."""
    off = registry.load("marimo").available()
    assert off is not None
    assert "servers=found" in off
    assert registry.load("marimo", {"servers": "found"}).available() is None
    with pytest.raises(OptionError, match="cannot be read"):
        registry.load("marimo", {"servers": "http://[::1]:2718", "token_file": "/no/such"})
    with pytest.raises(OptionError, match="is no address"):
        registry.load("marimo", {"servers": "ftp://host?access_token=secret"})


def test_a_token_stands_in_the_addresses_alone() -> None:
    """What is said of a server does not hold its token."""
    server = Known("http://127.0.0.1:2718/base/?access_token=secret")
    assert server.name == "http://127.0.0.1:2718/base"
    socket = server.socket(Session("s_1", "/a b.py"), "ours")
    assert socket.startswith("ws://127.0.0.1:2718/base/ws?session_id=ours&kiosk=true&")
    assert "secret" not in socket
    assert server.authorization == {"Authorization": "Bearer secret"}


def test_the_registry_is_read_with_care(home: Path) -> None:
    """Servers whose process is there are found; what is gone, torn or of another form is not."""
    folder = home / "state/marimo/servers"
    folder.mkdir(parents=True)
    entry = {"pid": os.getpid(), "host": "0.0.0.0", "port": 2718, "base_url": "/x"}
    (folder / "a.json").write_text(json.dumps(entry))
    (folder / "b.json").write_text(json.dumps({**entry, "pid": 2**22 + 1}))
    (folder / "c.json").write_text('{"pid": ')
    (folder / "d.json").write_text("[]")
    assert [server.name for server in registered()] == ["http://127.0.0.1:2718/x"]


real = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def server(home: Path, tmp_path: Path) -> Iterator[Server]:
    """`marimo edit` of the faulty notebook, without the plug-in."""
    path = notebook(tmp_path / "sales.py", **FAULTY)
    with serving("edit", path, env=WITHOUT) as running:
        yield running


def payloads(agent: StandInAgent, topic: str, number: int) -> list[dict[str, Any]]:
    """The payloads of a topic, once there are so many."""

    def of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [event["payload"] for event in events if event["topic"] == topic]

    return of(agent.wait_for(lambda events: len(of(events)) >= number))


@pytest.mark.slow
@real
@pytest.mark.xdist_group("marimo")
def test_a_real_notebook_is_watched(agent: StandInAgent, server: Server, tmp_path: Path) -> None:
    """A failure and its run, a restart by the user, and a kernel that is killed are told, with the
    notebook's path and workspace."""
    log = tmp_path / "observer.log"
    with producing("marimo", "servers=found", log=log):
        with server.page() as page:
            until(lambda: b"watching /" in log.read_bytes())
            page.run_all()
            [failed] = payloads(agent, FAILED, 1)
            assert (failed["notebook"], failed["error"]) == (str(server.path), "KeyError")
            assert (failed["cell_name"], failed["line"]) == ("totals", 2)
            [ran] = payloads(agent, COMPLETED, 1)
            assert (ran["cells"], ran["failed"], ran["not_run"]) == (4, 1, 1)
            assert page.post("/api/kernel/restart_session") == 200
        with server.page("s_second") as page:
            [restarted] = payloads(agent, RESTARTED, 1)
            assert restarted["cause"] == "user"
            until(lambda: log.read_bytes().count(b"watching /") == 2)
            page.run_all()
            assert len(payloads(agent, COMPLETED, 2)) == 2
            os.kill(kernel_of(server), signal.SIGKILL)
            assert payloads(agent, RESTARTED, 2)[1]["cause"] == "died"
    assert {event["source"] for event in agent.events} == {"marimo"}
    assert {event["workspace"] for event in agent.events} == {str(server.path.parent.resolve())}


@pytest.mark.slow
@real
@pytest.mark.xdist_group("marimo")
def test_what_has_the_plug_in_is_left_to_it(agent: StandInAgent, tmp_path: Path) -> None:
    """A server whose plug-in is well is not watched: each thing is told once."""
    path = notebook(tmp_path / "sales.py", **FAULTY)
    log = tmp_path / "observer.log"
    with serving("edit", path) as server, server.page() as page:
        page.run_all()
        payloads(agent, COMPLETED, 1)
        other = notebook(tmp_path / "other.py", **FAULTY)
        with (
            serving("edit", other, env=WITHOUT) as without,
            producing("marimo", "servers=found", log=log),
            without.page() as page_without,
        ):
            until(lambda: b"watching /" in log.read_bytes())
            page_without.run_all()
            payloads(agent, COMPLETED, 2)
    assert log.read_bytes().count(b"watching /") == 1
    assert len(payloads(agent, FAILED, 2)) == 2


@pytest.mark.slow
@real
@pytest.mark.xdist_group("marimo")
def test_a_server_with_a_token_is_named_with_it(agent: StandInAgent, tmp_path: Path) -> None:
    """A server that wants a token is watched when it is given, which no log holds; without, the log
    says what is missing."""
    path = notebook(tmp_path / "sales.py", **FAULTY)
    log = tmp_path / "observer.log"
    flags = ("--token", "--token-password", "s3cret")
    with serving("edit", path, *flags, env=WITHOUT, token="s3cret") as server:
        address = f"http://127.0.0.1:{server.port}"
        with producing("marimo", f"servers={address}", log=log):
            until(lambda: b"access_token" in log.read_bytes())
        secret = tmp_path / "token"
        secret.write_text("s3cret\n")
        options = (f"servers={address}", f"token_file={secret}")
        with producing("marimo", *options, log=log), server.page() as page:
            until(lambda: b"watching /" in log.read_bytes())
            page.run_all()
            payloads(agent, COMPLETED, 1)
    assert b"s3cret" not in log.read_bytes()
