"""Sessions over streamable HTTP: with the SDK's own server, and with stand-ins that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import free_ports, run
from tests.handlers.approving import asked, ended, say
from tests.handlers.mcp_servers import configure, steps
from tests.handlers.mesh import mesh

from opsmesh.handlers.actions.contract import Reply, StepContext
from opsmesh.handlers.actions.mcp import Mcp
from opsmesh.handlers.errors import Ask, CallFailed
from opsmesh.handlers.mcp.pool import Pool
from opsmesh.handlers.mcp.session import Session
from opsmesh.router.mcp_servers import McpServer
from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas.envelope import Event

Context = Callable[..., StepContext]
PEER = Path(__file__).with_name("mcp_http_peer.py")
pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.xdist_group("mcp_http")]


class Peer:
    """The SDK's server in a process of its own."""

    def __init__(self, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PEER), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    """A server for all tests that leave it whole."""
    found = Peer()
    yield found
    found.kill()


def test_call(peer: Peer) -> None:
    """A tool is called, and the headers of the settings are sent with it."""

    async def body() -> None:
        before = asyncio.all_tasks()
        spec = McpServer(url=peer.url, headers={"X-Token": "reference"})
        found = await Session.open("peer", spec, fill=lambda text: text[::-1])
        assert (await found.call("add", {"a": 1, "b": 2}, timeout=60)).structured == {"result": 3}
        answer = await found.call("header", {"name": "x-token"}, timeout=60)
        assert answer.text == "ecnerefer"
        await found.aclose()
        assert asyncio.all_tasks() <= before

    run(body())


def test_cancelled_and_late(peer: Peer) -> None:
    """A call that is cancelled, or takes too long, leaves the session as it was."""

    async def body() -> None:
        found = await Session.open("peer", McpServer(url=peer.url), fill=str)
        seen: list[tuple[float, float | None, str | None]] = []

        async def progress(done: float, total: float | None, said: str | None) -> None:
            seen.append((done, total, said))

        seconds = 0.5
        while len(seen) < 2:
            seen.clear()
            seconds *= 2  # on a busy machine it takes some time to begin
            with pytest.raises(CallFailed) as caught:
                await found.call("count", {"n": 2}, timeout=seconds, progress=progress)
            assert caught.value.kind == "timeout"
        assert seen == [(0.0, 2.0, "step 0"), (1.0, 2.0, "step 1")]
        slow = asyncio.create_task(found.call("count", {"n": 0}, timeout=60))
        await asyncio.sleep(0)  # it is on its way, or not yet: both end well
        slow.cancel()
        await asyncio.wait([slow])
        assert slow.cancelled()
        assert (await found.call("add", {"a": 1, "b": 2}, timeout=60)).text == "3"
        await found.aclose()

    run(body())


def test_killed_and_back() -> None:
    """A server that dies is a dead one; the next call after it came back opens a session anew."""
    first = Peer(*free_ports(1))  # nobody else is given it while no one listens
    configure(peer={"url": first.url})

    async def body() -> None:
        sessions = Pool()
        found = await sessions.session("peer", str)
        first.kill()
        with pytest.raises(CallFailed) as caught:
            await found.call("add", {"a": 1, "b": 2}, timeout=60)
        assert caught.value.kind == "dead_server"
        second = await asyncio.to_thread(Peer, first.port)
        try:
            again = await sessions.session("peer", str)
            assert (await again.call("add", {"a": 1, "b": 2}, timeout=60)).text == "3"
        finally:
            await sessions.aclose()
            second.kill()

    run(body())


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(verdict="granted", answer={"name": "Ann"}), "hello Ann, remember me"),
        (Reply(verdict="denied"), "decline: nobody"),
        (Reply(verdict="expired"), "cancel: nobody"),
    ],
)
def test_tool_asks_a_person(
    peer: Peer, context: Context, published: list[Event], reply: Reply, said: str
) -> None:
    """With `ask`, a tool's question is asked of people, and the call goes on with their answer."""
    configure(peer={"url": peer.url})
    saved: dict[str, Any] = {}

    async def save(state: Any) -> None:
        saved.clear()
        saved.update(json.loads(json.dumps(state)))

    async def body() -> None:
        step = Mcp.parse(
            {"server": "peer", "tool": "greet", "ask": {"expires": "1h", "by": ["ann"]}}
        )
        async with steps(context) as make:
            with pytest.raises(Ask) as caught:
                await step.run(make(save=save))
        question = caught.value.question
        assert question.name == "input-1"
        assert question.prompt == "peer/greet asks: Who are you? [2J"
        assert (question.expires_s, question.by) == (3600, ("ann",))
        assert question.schema is not None
        assert question.schema["properties"] == {"name": {"type": "string"}}
        assert published == []
        async with steps(context) as make:  # another process, later
            result = await step.run(make(saved=saved, replies={"input-1": reply}))
        assert result.ok
        assert result.output["text"] == said

    run(body())


def test_tool_asks_in_a_run(peer: Peer, nats_server: EmbeddedServer) -> None:
    """A run whose tool asks waits, and goes on in the same attempt with the answer."""
    configure(peer={"url": peer.url})
    profile = """
profiles:
  greets:
    on: service.start.failed
    actions:
      - {id: call, mcp: {server: peer, tool: greet, ask: true}}
"""

    async def body() -> None:
        async with mesh(profile) as live:
            await live.publish()
            [one] = await asked(live)
            assert one.asked.prompt == "peer/greet asks: Who are you? [2J"
            await say(live, one, "granted", value={"name": "Ann"})
            done = await ended(live, "succeeded")
            assert (done.attempt, done.steps[0].output["text"]) == (1, "hello Ann, remember me")

    run(body())


def test_tool_may_not_ask(peer: Peer, context: Context) -> None:
    """Without `ask` the question is declined, the tool goes on without, and it is said."""
    configure(peer={"url": peer.url})

    async def body() -> None:
        async with steps(context) as make:
            result = await Mcp.parse({"server": "peer", "tool": "greet"}).run(make())
        assert (result.output["text"], result.output["refused"]) == (
            "decline: nobody",
            ["elicitation"],
        )

    run(body())


def stand_in(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Any:
    """An HTTP server that answers every POST like this; no MCP server, but a stand-in for a bad
    one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            answer(self)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True).start()
    return found


def _send(handler: http.server.BaseHTTPRequestHandler, data: bytes, **headers: str) -> None:
    handler.send_response(200)
    for name, value in {"content-type": "application/json", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    try:
        handler.wfile.write(data)
    except OSError:
        handler.close_connection = True


def _huge(handler: http.server.BaseHTTPRequestHandler) -> None:
    _send(handler, b'{"jsonrpc": "2.0", "id": 1, "result": "' + b"x" * 10_000_000 + b'"}')


def _packed(handler: http.server.BaseHTTPRequestHandler) -> None:
    _send(handler, gzip.compress(b"x" * 50_000_000), content_encoding="gzip")


def _forbidden(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(401)
    handler.send_header("content-length", "0")
    handler.end_headers()


def _elsewhere(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(307)
    handler.send_header("location", "http://192.0.2.1/mcp")
    handler.send_header("content-length", "0")
    handler.end_headers()


def _page(handler: http.server.BaseHTTPRequestHandler) -> None:
    _send(handler, b"<html>Sign in</html>", content_type="text/html")


@pytest.mark.parametrize("answer", [_huge, _packed, _forbidden, _elsewhere, _page])
def test_bad_http(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> None:
    """Bodies without an end, packed ones, refusals, redirects elsewhere and web pages are a dead
    server in a moment."""
    server = stand_in(answer)

    async def body() -> None:
        url = f"http://127.0.0.1:{server.server_address[1]}/mcp"
        with pytest.raises(CallFailed) as caught:
            await Session.open(
                "bad", McpServer.model_validate({"url": url, "timeout": "60s"}), fill=str
            )
        assert caught.value.kind == "dead_server"
        assert "was not ready within" not in str(caught.value)

    try:
        run(body())
    finally:
        server.shutdown()
        server.server_close()


def test_nobody_listens() -> None:
    """An address where nobody listens is a dead server."""
    [port] = free_ports(1)

    async def body() -> None:
        with pytest.raises(CallFailed, match="server 'x' cannot be reached: ConnectError"):
            await Session.open("x", McpServer(url=f"http://127.0.0.1:{port}/mcp"), fill=str)

    run(body())
