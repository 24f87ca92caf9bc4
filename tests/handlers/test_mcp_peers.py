"""Public MCP servers as strangers wrote them: mcp-server-time, -git, and server-everything."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import pytest
from tests.conftest import eventually, run

from opsmesh.handlers.errors import CallFailed
from opsmesh.handlers.mcp.session import Session
from opsmesh.router.mcp_servers import McpServer

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.xdist_group("mcp_peers")]

EVERYTHING: Final = "@modelcontextprotocol/server-everything"
VERSION: Final = "2026.8.31"


def module(name: str, *args: str) -> McpServer:
    """A server of a Python package."""
    return McpServer(command=sys.executable, args=["-m", name, *args])


def test_time() -> None:
    """mcp-server-time converts a time, and says what is wrong with a zone."""

    async def body() -> None:
        found = await Session.open(
            "time", module("mcp_server_time", "--local-timezone", "UTC"), fill=str
        )
        arguments = {
            "source_timezone": "UTC",
            "time": "12:00",
            "target_timezone": "Asia/Kolkata",
        }
        answer = await found.call("convert_time", arguments, timeout=60)
        assert answer.structured["target"]["datetime"].endswith("17:30:00+05:30")
        with pytest.raises(CallFailed, match="Invalid timezone") as caught:
            await found.call("get_current_time", {"timezone": "No/Where"}, timeout=60)
        assert caught.value.kind == "tool_error"
        await found.aclose()

    run(body())


def test_git(tmp_path: Path) -> None:
    """mcp-server-git tells the state of a repository that it was given."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "new.txt").write_text("x")

    async def body() -> None:
        found = await Session.open(
            "git", module("mcp_server_git", "--repository", str(tmp_path)), fill=str
        )
        answer = await found.call("git_status", {"repo_path": str(tmp_path)}, timeout=60)
        assert "new.txt" in answer.text
        with pytest.raises(CallFailed) as caught:
            await found.call("git_status", {"repo_path": "/"}, timeout=60)
        assert caught.value.kind == "tool_error"
        await found.aclose()

    run(body())


@pytest.fixture(scope="module")
def everything() -> Path:
    """The program of server-everything, installed once into a cache of the user's."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "opsmesh-tests" / f"server-everything-{VERSION}"
    program = folder / "node_modules" / EVERYTHING / "dist" / "index.js"
    if not program.exists():
        if not shutil.which("npm") or not shutil.which("node"):
            _missing("node and npm are not here")
        folder.mkdir(parents=True, exist_ok=True)
        argv = ["npm", "install", "--no-audit", "--no-fund", f"{EVERYTHING}@{VERSION}"]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=300)
        if not program.exists():
            _missing(f"npm could not install {EVERYTHING}: {done.stderr[-300:]}")
    return program


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def everything_http(everything: Path) -> Iterator[str]:
    """The address of one that runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["node", str(everything), "streamableHttp"],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        run(eventually(listens))
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


async def _all(spec: McpServer) -> None:
    found = await Session.open("everything", spec, fill=str)
    assert found.protocol >= "2025-06-18"
    answer = await found.call("get-structured-content", {"location": "Chicago"}, timeout=60)
    assert set(answer.structured) == {"temperature", "conditions", "humidity"}
    image = await found.call("get-tiny-image", {}, timeout=60)
    assert image.parts[0].startswith("image image/png, ")
    seen: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None, _: str | None) -> None:
        seen.append((done, total))

    slow = {"duration": 1, "steps": 4}
    answer = await found.call("trigger-long-running-operation", slow, timeout=60, progress=progress)
    assert answer.text.startswith("Long running operation completed")
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(CallFailed) as caught:
        await found.call("trigger-long-running-operation", {"duration": 30}, timeout=0.5)
    assert caught.value.kind == "timeout"
    seen.clear()
    waiting = asyncio.create_task(
        found.call(
            "trigger-long-running-operation",
            {"duration": 30, "steps": 300},
            timeout=60,
            progress=progress,
        )
    )
    await eventually(lambda: seen)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    with pytest.raises(CallFailed) as caught:
        await found.call("get-sum", {"a": "one", "b": 2}, timeout=60)
    assert str(caught.value) == "tool 'get-sum': argument 'a': 'one' is not of type 'number'"
    assert (await found.call("get-sum", {"a": 1, "b": 2}, timeout=60)).text.endswith("is 3.")
    await found.aclose()


@pytest.mark.slow
def test_everything_stdio(everything: Path) -> None:
    """server-everything over stdio: structured content, images, progress, time-out, cancelling."""
    run(_all(McpServer(command="node", args=[str(everything), "stdio"])))


@pytest.mark.slow
def test_everything_http(everything_http: str) -> None:
    """The same over streamable HTTP."""
    run(_all(McpServer(url=everything_http)))
