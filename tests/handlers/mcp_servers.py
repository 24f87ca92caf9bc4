"""Settings with MCP servers, and sessions that are closed with the test."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.actions.shared import Shared
from opsmesh.router import paths
from opsmesh.router.mcp_servers import McpServer

LIAR = Path(__file__).with_name("mcp_liar.py")


def liar(mode: str = "", **more: Any) -> dict[str, Any]:
    """The settings of a server that lies."""
    return {"command": sys.executable, "args": [str(LIAR), mode], **more}


def spec(mode: str = "", **more: Any) -> McpServer:
    """The same, as it is read."""
    return McpServer.model_validate(liar(mode, **more))


def configure(**servers: Mapping[str, Any]) -> Path:
    """config.yaml of this test with these servers; `{}` takes all away."""
    path = Path(paths.config_dir(), "config.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"mcp_servers": dict(servers)}))
    return path


@asynccontextmanager
async def steps(context: Callable[..., StepContext]) -> AsyncIterator[Callable[..., StepContext]]:
    """Makes contexts of steps of one process: they share sessions, which are closed at the end."""
    shared = Shared()

    def make(**changes: Any) -> StepContext:
        return context(shared=shared, **changes)

    try:
        yield make
    finally:
        await shared.aclose()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
