"""A call of an MCP tool as a step makes it, beside the SDK's own client on a server of its own.

Both servers are `mcp-server-time` over stdio. Ours checks arguments and answer, and makes the event
that tells of it; nothing is written, so the broker has no part in it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Final

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from figure import Figure
from lab import HOST, Lab
from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.actions.mcp import Mcp
from opsmesh.handlers.actions.shared import Shared
from opsmesh.router import paths
from opsmesh.schemas.envelope import Event, decode
from samples import messages

#: The server, and what is asked of it.
ARGV: Final = [sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"]
TOOL: Final = "get_current_time"
ARGUMENTS: Final = {"timezone": "UTC"}


async def calls(lab: Lab) -> list[Figure]:
    """Milliseconds a call, and until a session is open."""
    config = Path(paths.config_dir(), "config.yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    server = {"command": ARGV[0], "args": ARGV[1:]}
    config.write_text(json.dumps({"mcp_servers": {"time": server}}), encoding="utf-8")
    amount = lab.amount(500)
    opened: dict[str, list[float]] = {"ours": [], "plain": []}
    called: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(lab.rounds):
        shared = Shared()
        ctx = _context(lab.folder, shared)
        step = Mcp.parse({"server": "time", "tool": TOOL, "arguments": ARGUMENTS})
        began = time.perf_counter()
        await step.run(ctx)
        opened["ours"].append((time.perf_counter() - began) * 1e3)
        began = time.perf_counter()
        for _ in range(amount):
            await step.run(ctx)
        called["ours"].append((time.perf_counter() - began) * 1e3 / amount)
        await shared.aclose()
        began = time.perf_counter()
        async with Client(StdioServerParameters(command=ARGV[0], args=ARGV[1:])) as client:
            await client.call_tool(TOOL, ARGUMENTS)
            opened["plain"].append((time.perf_counter() - began) * 1e3)
            began = time.perf_counter()
            for _ in range(amount):
                await client.call_tool(TOOL, ARGUMENTS)
            called["plain"].append((time.perf_counter() - began) * 1e3 / amount)
    sides = {
        "mcp_open": ("a session, opened, and its first call", opened),
        "mcp_call": ("a call of a tool by the action, over an open session", called),
    }
    return [
        Figure(
            name=name,
            what=what,
            unit="ms",
            ours=seen["ours"],
            beside="the SDK's client",
            plain=seen["plain"],
            details={"calls_a_round": amount},
        )
        for name, (what, seen) in sides.items()
    ]


def _context(folder: Path, shared: Shared) -> StepContext:
    data = messages(1)[0].data
    event = decode(data)

    async def publish(_: Event) -> None:
        """The broker is another figure's."""

    return StepContext(
        event=event,
        data=data,
        profile="bench",
        profile_hash="",
        run_id="bench",
        step_id="call",
        attempt=1,
        idempotency_key="bench:call",
        variables={"event": event.view()},
        timeout=None,
        folder=folder,
        bundles=folder,
        publish=publish,
        host=HOST,
        shared=shared,
    )
