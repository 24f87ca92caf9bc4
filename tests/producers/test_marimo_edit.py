"""marimo's plug-in where people work: in `marimo edit` and `marimo run`, with real servers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, mesh_client, run
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.marimos import (
    Server,
    environment_of_marimo,
    export,
    missing,
    notebook,
    serving,
)
from tests.producers.test_marimo import COMPLETED, FAILED, FAULTY
from tests.router.agent_process import agent as real_agent
from typer.testing import CliRunner

from opsmesh.cli.main import app
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import Event, decode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.xdist_group("marimo"),
]
RESTARTED = "notebook.kernel.restarted"


class Editing:
    """A server in a mesh of its own, whose page is opened by each test."""

    def __init__(self, agent: StandInAgent, server: Server) -> None:
        self.agent, self.server = agent, server

    def told(self, topic: str, number: int = 1) -> list[dict[str, Any]]:
        """The payloads of the events on a topic, once there are so many."""

        def of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [event["payload"] for event in events if event["topic"] == topic]

        return of(self.agent.wait_for(lambda events: len(of(events)) >= number))


def kernel_of(server: Server) -> int:
    """The process of the server's kernel."""
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    words = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
    [kernel] = [pid for pid in pids if b"spawn_main" in words[pid]]
    return kernel


@pytest.fixture
def editing(home: Path, tmp_path: Path) -> Iterator[Editing]:
    """`marimo edit` of the faulty notebook."""
    path = notebook(tmp_path / "sales.py", **FAULTY)
    with standing_in(home) as agent, serving("edit", path) as server:
        yield Editing(agent, server)


def test_an_edit_tells_each_run(editing: Editing) -> None:
    """Opening the notebook is one run, a cell that is run again another one with its new code; a
    page that is loaded again runs nothing, and breaks nothing."""
    with editing.server.page() as page:
        page.run_all()
        [first] = editing.told(COMPLETED)
        assert (first["cells"], first["failed"], first["mode"]) == (4, 1, "edit")
        page.run_all()  # a reload: marimo enters our lifespan again
        cell = first["ran"][1]["cell"]
        page.run(**{cell: "y = x / 0"})
        failed = editing.told(FAILED, 2)[1]
        assert (failed["error"], failed["line"], failed["run"]) == ("ZeroDivisionError", 1, 2)
        assert "cell_name" not in failed  # not saved: the file has the old code
        [_, second] = editing.told(COMPLETED, 2)
        assert (second["cells"], second["failed"], second["not_run"]) == (2, 1, 1)
        assert second["code_sha256"] != first["code_sha256"]
    assert "AttributeError" not in editing.server.log.read_text()


def test_the_scratchpad_is_no_run(editing: Editing) -> None:
    """What is tried beside the notebook fails without an event."""
    with editing.server.page() as page:
        page.run_all()
        [first] = editing.told(COMPLETED)
        assert page.post("/api/kernel/scratchpad/run", code="1 / 0") == 200
        page.wait_for("completed-run")
        page.run(**{first["ran"][0]["cell"]: "x = 2"})
        assert editing.told(COMPLETED, 2)[1]["run"] == 2
    assert len(editing.told(FAILED)) == 2  # `totals`, in both runs


def test_an_interrupt_is_no_failure(editing: Editing, tmp_path: Path) -> None:
    """A run that the user stops is told as interrupted, with what did not run, and no failure."""
    with editing.server.page() as page:
        page.run_all()
        [first] = editing.told(COMPLETED)
        sign = tmp_path / "sign"
        code = f"import time, pathlib; pathlib.Path({str(sign)!r}).touch(); x = time.sleep(60)"
        page.run(**{first["ran"][0]["cell"]: code})
        until(sign.exists)
        assert page.post("/api/kernel/interrupt") == 200
        second = editing.told(COMPLETED, 2)[1]
    assert second["interrupted"]
    assert second["failed"] == 0
    assert second["not_run"] >= 2
    assert second["duration_ms"] < 30_000


def test_a_restart_is_the_users(editing: Editing) -> None:
    """The page's restart is told with the kernel that is gone, once; the next one tells again."""
    with editing.server.page() as page:
        page.run_all()
        pid = kernel_of(editing.server)
        assert page.post("/api/kernel/restart_session") == 200
        [gone] = editing.told(RESTARTED)
        assert gone["notebook"] == str(editing.server.path)
        assert (gone["cause"], gone["pid"], gone["session"]) == ("user", pid, "s_opsmesh")
        until(lambda: not Path(f"/proc/{pid}").exists())
    with editing.server.page("s_second") as page:
        page.run_all()
        assert len(editing.told(COMPLETED, 2)) == 2
    assert len(editing.told(RESTARTED)) == 1


@pytest.mark.parametrize(
    ("code", "facts"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {"signal": 9}),
        ("import ctypes; ctypes.string_at(0)", {"signal": 11, "reason": "segfault"}),
        ("import os; os._exit(3)", {"exit_code": 3, "reason": "exit"}),
    ],
)
def test_a_kernel_that_dies_is_told(editing: Editing, code: str, facts: dict[str, Any]) -> None:
    """A kernel that is killed, crashes or ends by itself has died, and how is told; what it had
    told before is there."""
    with editing.server.page() as page:
        page.run_all()
        [first] = editing.told(COMPLETED)
        pid = kernel_of(editing.server)
        page.run(**{first["ran"][2]["cell"]: code})
        [gone] = editing.told(RESTARTED)
    assert (gone["cause"], gone["pid"]) == ("died", pid)
    assert facts.items() <= gone.items()


def test_a_session_that_is_closed_is_no_death(editing: Editing) -> None:
    """Shutting a session down, and ending the server, tell of no kernel."""
    with editing.server.page() as page:
        page.run_all()
        pid = kernel_of(editing.server)
        body = {"sessionId": "s_opsmesh"}
        assert page.post("/api/home/shutdown_session", **body) == 200
        until(lambda: not Path(f"/proc/{pid}").exists())
    with editing.server.page("s_second") as page:
        page.run_all()
        editing.told(COMPLETED, 2)
        editing.server.process.send_signal(signal.SIGTERM)
        editing.server.process.wait(60)
    assert [e["topic"] for e in editing.agent.events if e["topic"] == RESTARTED] == []


def test_an_app_tells_for_each_visitor(home: Path, tmp_path: Path) -> None:
    """`marimo run` runs the notebook for each that opens it; a failure has its line in the cell."""
    path = notebook(tmp_path / "sales.py", **FAULTY)
    with standing_in(home) as agent, serving("run", path) as server:
        for session in ("s_one", "s_two"):
            with server.page(session) as page:
                page.wait_for("completed-run")
        events = agent.wait_for(lambda events: len(events) == 4)
    assert [event["topic"] for event in events] == [FAILED, COMPLETED] * 2
    assert {event["payload"]["mode"] for event in events} == {"run"}
    failed = events[0]["payload"]
    assert (failed["cell_name"], failed["line"]) == ("totals", 2)


def test_with_the_mesh_down_nothing_is_lost_and_all_is_in_order(home: Path, tmp_path: Path) -> None:
    """With no agent each event is in the spool soon after it happened, in their order, also when
    the kernel is then killed."""
    path = notebook(tmp_path / "sales.py", **FAULTY)
    with serving("edit", path) as server, server.page() as page:
        page.run_all()
        until(lambda: len(spooled(home)) == 2)
        cell = spooled(home)[1]["payload"]["ran"][1]["cell"]
        for number in range(3):
            page.run(**{cell: f"y = {number} / 0"})
            page.wait_for("completed-run")
        until(lambda: len(spooled(home)) == 8)
        os.kill(kernel_of(server), signal.SIGKILL)
        until(lambda: len(spooled(home)) == 9)
    events = spooled(home)
    assert [event["topic"] for event in events] == [FAILED, COMPLETED] * 4 + [RESTARTED]
    assert [event["seq"] for event in events] == [*range(1, 9), 1]


def test_a_mesh_that_hangs_delays_nothing(home: Path, tmp_path: Path) -> None:
    """With an agent that answers nothing an export ends as ever, and the spool has its events."""
    path = notebook(tmp_path / "sales.py", **FAULTY)
    with standing_in(home, hang=True):
        done = export(path)
    assert done.returncode == 1
    assert "opsmesh" not in done.stdout + done.stderr
    assert [event["topic"] for event in spooled(home)] == [FAILED, COMPLETED]


def test_it_can_be_turned_off(home: Path, tmp_path: Path) -> None:
    """With OPSMESH_MARIMO=0 nothing is told."""
    path = notebook(tmp_path / "sales.py", **FAULTY)
    with standing_in(home) as agent:
        assert export(path, env={"OPSMESH_MARIMO": "0"}).returncode == 1
    assert agent.events == []
    assert spooled(home) == []


def test_an_installed_pointer_is_enough(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `opsmesh install marimo` an environment with marimo alone tells."""
    alone = environment_of_marimo(tmp_path / "alone")
    monkeypatch.setenv("VIRTUAL_ENV", str(alone))
    done = CliRunner().invoke(app, ["install", "marimo", "--yes"])
    assert done.exit_code == 0, done.output
    path = notebook(tmp_path / "sales.py", **FAULTY)
    with standing_in(home) as agent:
        assert export(path, python=alone / "bin/python").returncode == 1
        agent.wait_for(lambda events: len(events) == 2)


def test_every_cell_that_fails_is_told(home: Path, tmp_path: Path) -> None:
    """Of two hundred cells that raise each is told, once."""
    cells = {f"c{n}": f"v{n} = {n} / 0\nreturn v{n}," for n in range(200)}
    path = notebook(tmp_path / "many.py", **cells)
    with standing_in(home) as agent:
        assert export(path).returncode == 1
        events = agent.wait_for(lambda events: len(events) == 201)
    assert {event["payload"].get("cell_name") for event in events[:-1]} == set(cells)
    assert events[-1]["payload"]["failed"] == 200


def test_what_was_spooled_arrives_in_order(
    nats_server: EmbeddedServer, home: Path, tmp_path: Path
) -> None:
    """What notebooks told while the mesh was down is stored once it is there: all of it, once, in
    the order in which it happened."""
    for name in ("sales", "costs"):
        assert export(notebook(tmp_path / f"{name}.py", **FAULTY)).returncode == 1
    assert len(spooled(home)) == 4

    async def body() -> None:
        async with mesh_client() as client:

            async def stored() -> list[Event]:
                found = [
                    decode(message.data)
                    async for message in scan(client, EVENTS, subjects=["evt.*.notebook.>"])
                ]
                return found if len(found) >= 4 else []

            events = await eventually(stored)
        names = [(event.component, event.topic) for event in events]
        assert names == [
            *(("sales.py", topic) for topic in (FAILED, COMPLETED)),
            *(("costs.py", topic) for topic in (FAILED, COMPLETED)),
        ]

    with real_agent(home):
        run(body())
    assert spooled(home) == []
