"""The plugin's way to the mesh: the real agent and broker, or none, or one that hangs or lies."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, mesh_client, run
from tests.handlers.mesh import mesh
from tests.producers.agent import spooled, standing_in
from tests.producers.nvims import Nvim, having, neovim, wire
from tests.router.agent_process import agent, wait_drained

from opsmesh.producers.neovim.wiring import Neovim, package
from opsmesh.router import losses, paths, spool_room, user
from opsmesh.router.client import with_address
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings

#: Tells `count` events in one go, numbered from `first`.
MANY = """
local first, count = ...
for n = first, first + count - 1 do
  require('opsmesh').emit('demo.told', { n = n })
end
"""


#: How often the agent ends while events are told.
TIMES = 8


@pytest.fixture
def wired(home: Path) -> Path:
    """A home with the plugin in it."""
    wire()
    return home


def stored() -> list[dict[str, Any]]:
    """The events of Neovim as they lie at the broker, in their order."""

    async def body() -> list[dict[str, Any]]:
        async with mesh_client() as client:
            found = [json.loads(m.data) async for m in scan(client, "EVENTS", subjects=["evt.>"])]
            return [event for event in found if event["source"] == "neovim"]

    found: list[dict[str, Any]] = run(body())
    return found


def safe(nvim: Nvim) -> Any:
    """Once nothing waits in this Neovim."""
    return nvim.until("return require('opsmesh.outbox').waiting() == 0")


def patient(nvim: Nvim) -> None:
    """Its end waits longer than FAREWELL, 0.2 s: on a busy machine the agent has not answered by
    then, nor is the spool written, and what is under way is spooled a second time."""
    nvim.lua("require('opsmesh.outbox').FAREWELL = 60000")


def test_a_mesh_that_is_down_and_comes_back(nats_server: EmbeddedServer, wired: Path) -> None:
    """Events of every kind that are told while there is no agent are spooled and arrive later,
    before those after them, and each is as the registry wants its topic."""
    with neovim(wired) as nvim:
        nvim.command(f"edit {wired}/a.txt", "write")
        nvim.command('silent! %!sh -c "cat; exit 4"', "OpsMeshTest exit 3")
        nvim.lua(
            "local ns = vim.api.nvim_create_namespace('vim.lsp.fake.1');"
            "vim.diagnostic.set(ns, 0, { { lnum = 0, col = 0, message = 'm', severity = 1 } });"
            "vim.lsp.get_clients = function() return { {} } end"
        )
        nvim.until("return require('opsmesh.outbox').told.events == 4")
        nvim.lua("vim.diagnostic.reset()")
        nvim.until("return require('opsmesh.outbox').told.events == 5")
        safe(nvim)
        assert [event["seq"] for event in spooled(wired)] == [1, 2, 3, 4, 5]
        with agent(wired):
            nvim.command("write", "write")
            safe(nvim)
            wait_drained()
            told = stored()
    assert [event["seq"] for event in told] == [1, 2, 3, 4, 5, 6, 7]
    assert {event["topic"] for event in told} == set(Neovim.topics)


@pytest.mark.slow
def test_an_agent_that_restarts(nats_server: EmbeddedServer, wired: Path) -> None:
    """Nothing is lost and nothing is stored twice, whichever way the agent ends."""
    with neovim(wired) as nvim:
        for count in range(TIMES):
            with agent(wired, ready=False) as running:
                nvim.lua(MANY, count * 20, 20)
                if count % 2:
                    running.kill()
                else:
                    running.stop()
        safe(nvim)
        with agent(wired):
            wait_drained()
            numbers = [event["payload"]["n"] for event in stored()]
    assert sorted(numbers) == list(range(TIMES * 20))


def test_an_agent_that_hangs(wired: Path) -> None:
    """It is given up, its events are spooled in order, and Neovim leaves in peace."""
    with standing_in(wired, hang=True), neovim(wired) as nvim:
        nvim.lua(MANY, 0, 300)
        safe(nvim)
        assert nvim.told()["spooled"] == 300
        nvim.lua(MANY, 300, 5)
        assert nvim.quit() == 0
    assert [event["payload"]["n"] for event in spooled(wired)] == list(range(305))


def test_leaving_with_an_agent(wired: Path) -> None:
    """What was told last, a save by `:wq`, is with the agent."""
    with standing_in(wired) as there, neovim(wired, "a.txt") as nvim:
        patient(nvim)
        assert nvim.quit("wq") == 0
        there.wait_for(having("editor.save"))
    assert spooled(wired) == []


def test_leaving_without_an_agent(wired: Path) -> None:
    """What was told last is in the spool."""
    with neovim(wired, "a.txt") as nvim:
        patient(nvim)
        assert nvim.quit("wq") == 0
    assert [event["topic"] for event in spooled(wired)] == ["editor.save"]


def test_the_queue_is_bounded(wired: Path) -> None:
    """What has no room is dropped and counted, the newest first; the rest is spooled."""
    with neovim(wired) as nvim:
        # counted in the same go: the next message may find it spooled
        waiting = nvim.lua(f"{MANY} return require('opsmesh.outbox').waiting()", 0, 5000)
        assert (waiting, nvim.told()["dropped"]) == (4096, 904)
        safe(nvim)
    assert [event["payload"]["n"] for event in spooled(wired)] == list(range(4096))


def test_a_full_spool_refuses(wired: Path) -> None:
    """With `refuse` the events stay in Neovim, and get through when there is room."""
    spool_dir = Path(paths.spool_dir())
    spool_dir.mkdir(parents=True)
    spool_room.set_limits(str(spool_dir), 4096, "refuse")
    (spool_dir / ".used").write_bytes(b"\0")
    with neovim(wired) as nvim:
        nvim.lua(MANY, 0, 2)
        nvim.until("return (require('opsmesh.outbox').told.error or ''):find('spool is full')")
        assert nvim.told()["waiting"] == 2
        (spool_dir / ".used").write_bytes(b"")
        patient(nvim)
        assert nvim.quit() == 0
    assert len(spooled(wired)) == 2


def test_a_full_spool_that_drops(wired: Path) -> None:
    """With `drop_newest` what is dropped is counted where the agent tells it."""
    spool_dir = paths.spool_dir()
    Path(spool_dir).mkdir(parents=True)
    spool_room.set_limits(spool_dir, 4096, "drop_newest")
    Path(spool_dir, ".used").write_bytes(b"\0")
    with neovim(wired) as nvim:
        nvim.lua(MANY, 0, 2)
        nvim.until("return require('opsmesh.outbox').told.dropped == 2")
        assert nvim.told()["waiting"] == 0
    assert len(losses.counted(spool_dir)) == 1


@contextmanager
def answering(path: Path, answers: list[bytes]) -> Iterator[None]:
    """A stand-in that gives all of these to each line, on a path of any length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    server = socket.socket(socket.AF_UNIX)
    with_address(str(path), server.bind)
    server.listen(8)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
                with connection, connection.makefile("rwb") as stream:
                    for line in stream:
                        id = json.loads(line).get("id", "")
                        for answer in answers:
                            stream.write(answer.replace(b"ID", id.encode()) + b"\n")
                        stream.flush()
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_hostile_answers_on_a_long_path(wired: Path) -> None:
    """Nothing that an agent says breaks Neovim; its path may be longer than an address."""
    runtime = wired / ("r" * 120)
    hostile = [
        *(b"", b"null", b"[]", b"{", b"\xff\xfe", b'"\\ud800"', b"x" * 1000, b'{"ok":1}'),
        *(b'{"ok":true,"id":"strange"}', b'{"id":{},"ok":7}', b"x" * 100_000),
        *(b'{"ok":true,"id":"ID"}', b'{"ok":true,"id":"ID"}'),
    ]
    with (
        answering(runtime / "opsmesh/ingest.sock", hostile),
        neovim(wired, env={"XDG_RUNTIME_DIR": str(runtime)}) as nvim,
    ):
        nvim.lua(MANY, 0, 20)
        nvim.until("return require('opsmesh.outbox').told.sent == 20")
        assert nvim.told()["failures"]["count"] == 0


ASKS = """
profiles:
  restart:
    on: service.start.failed
    actions:
      - id: ask
        approve: {prompt: "Restart it?", expires: 1h}
"""
WINDOW = "return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\\n')"


@pytest.mark.slow
def test_the_window(nats_server: EmbeddedServer, wired: Path) -> None:
    """`:OpsMesh` shows the mesh, recent events and what waits; a key answers it, on record."""

    async def body(nvim: Nvim) -> None:
        async def call(code: str) -> Any:
            return await asyncio.to_thread(nvim.lua, code)

        async with mesh(ASKS, settings=Settings()) as m:
            await m.publish()
            await asyncio.to_thread(nvim.command, "OpsMesh")

            async def shows(*texts: str) -> bool:
                shown = await call(WINDOW)
                return all(text in shown for text in texts)

            async def asked() -> bool:
                await asyncio.to_thread(nvim.keys, "r")
                return await shows("Restart it?")

            await eventually(asked)
            await eventually(
                partial(shows, "the broker is there", "approve · deny", "otherwise skip")
            )
            await eventually(partial(shows, "service.start.failed"))
            await call("vim.fn.search('Restart it')")
            await asyncio.to_thread(nvim.keys, "a")
            await asyncio.to_thread(nvim.keys, "go on<CR>")
            [granted] = await m.wait("automation.approval.granted")
            told = granted.payload
            assert (told["by"], told["via"]) == (user.name(), "neovim")
            assert told["comment"] == "go on"
            await eventually(partial(shows, "Waiting for you (0)"))

    with agent(wired), neovim(wired) as nvim:
        run(body(nvim))


def test_the_window_without_a_mesh(wired: Path) -> None:
    """`:OpsMesh` says what is missing and what starts it, and closes by a key."""
    with neovim(wired) as nvim:
        nvim.lua(MANY, 0, 1)
        nvim.command("OpsMesh")
        nvim.until(f"return (function() {WINDOW} end)():find('opsmesh up', 1, true)")
        shown = nvim.lua(WINDOW)
        assert "no agent" in shown
        assert "demo.told" in shown
        nvim.keys("q")
        nvim.until("return #vim.api.nvim_list_wins() == 1")
        assert nvim.told()["failures"]["count"] == 0


def test_what_a_package_folder_is(wired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin goes to the Neovim of NVIM_APPNAME, and knows the program that wrote it."""
    monkeypatch.setenv("NVIM_APPNAME", "lab")
    assert package() == wired / "data/lab/site/pack/opsmesh/start/opsmesh"
    wire()
    with neovim(wired, env={"NVIM_APPNAME": "lab", "PATH": "/usr/bin:/bin"}) as nvim:
        found = nvim.lua("return { vim.g.loaded_opsmesh, require('opsmesh.paths').program() }")
    assert found[0] == 1
    assert os.path.basename(found[1]) == "opsmesh"  # noqa: PTH119
