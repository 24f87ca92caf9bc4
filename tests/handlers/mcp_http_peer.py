"""A public peer over streamable HTTP: the SDK's own server. Prints its port, then serves."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult

server = MCPServer("peer")


@server.tool()
def header(name: str, ctx: Context) -> str:
    """A header of the request."""
    return (ctx.headers or {}).get(name, "")


@server.tool()
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@server.tool()
async def count(n: int, ctx: Context) -> str:
    """Report progress n times, then go on for ever."""
    for done in range(n):
        await ctx.report_progress(done, n, f"step {done}")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise
    return "done"


@server.tool()
def greet(ctx: Context) -> Any:
    """Ask for a name, then greet."""
    given: Any = (ctx.input_responses or {}).get("who")
    if given is None:
        return InputRequiredResult(
            request_state="remember me",
            input_requests={
                "who": ElicitRequest(
                    params=ElicitRequestFormParams(
                        message="Who are you?\x1b[2J",
                        requested_schema={
                            "type": "object",
                            "properties": {"name": {"type": "string", "pattern": "^(a+)+$"}},
                            "required": ["name"],
                        },
                    )
                )
            },
        )
    if given.action != "accept":
        return f"{given.action}: nobody"
    return f"hello {given.content['name']}, {ctx.request_state}"


async def main() -> None:
    """Serve on a free port until killed."""
    listening = socket.create_server(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0))
    print(listening.getsockname()[1], flush=True)
    app = server.streamable_http_app()
    await uvicorn.Server(uvicorn.Config(app, log_level="error")).serve(sockets=[listening])


if __name__ == "__main__":
    asyncio.run(main())
