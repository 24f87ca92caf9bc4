"""`opsmesh mcp`: the MCP servers that profiles call, and a call by hand."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from opsmesh.cli import output
from opsmesh.cli.mcp import serve as mcp_serve
from opsmesh.cli.mcp import taken_over as mcp_import
from opsmesh.cli.pairs import pair
from opsmesh.router import logs
from opsmesh.router.settings import Settings
from opsmesh.schemas import durations

if TYPE_CHECKING:
    from opsmesh.handlers.mcp.answer import Answer
    from opsmesh.handlers.mcp.pool import Pool
    from opsmesh.handlers.mcp.session import Session
    from opsmesh.handlers.secrets.store import SecretStore

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]

app = typer.Typer(
    no_args_is_help=True,
    help="""MCP servers: what profiles can call, and one call by hand.

    Example: opsmesh mcp import ~/.config/Claude/claude_desktop_config.json
    """,
)

app.command("serve")(mcp_serve.serve)
app.command("config")(mcp_serve.config)


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """Every server of the settings: whether it answers, its protocol, how many tools it has.

    Exit code 1 when one does not answer.

    Example: opsmesh mcp ls --json
    """
    servers = Settings().mcp_servers
    rows = asyncio.run(_looked_at(sorted(servers)))
    if as_json:
        output.as_json(rows)
    else:
        output.table(
            rows,
            ("server", "kind", "ready", "protocol", "tools", "took_ms", "place", "error"),
            empty="no servers; mcp_servers in config.yaml, or opsmesh mcp import FILE.json",
        )
    if any(row["error"] for row in rows):
        raise typer.Exit(output.FAILED)


@app.command("tools")
def tools(
    server: Annotated[str, typer.Argument(help="A server of the settings.", metavar="SERVER")],
    as_json: AsJson = False,
) -> None:
    """A server's tools and their arguments, as the server itself describes them.

    Example: opsmesh mcp tools time
    """
    rows = asyncio.run(_with(server, _tools))
    if as_json:
        output.as_json(rows)
        return
    output.table(
        [
            {
                **row,
                "arguments": ", ".join(_arguments(row["input_schema"])),
                "structured": row["output_schema"] is not None,
                "description": mcp_import.printable(" ".join(row["description"].split()))[:100],
            }
            for row in rows
        ],
        ("tool", "arguments", "structured", "description"),
        empty=f"{server} has no tools",
    )


@app.command("call")
def call(
    server: Annotated[str, typer.Argument(help="A server of the settings.", metavar="SERVER")],
    tool: Annotated[str, typer.Argument(help="One of its tools.", metavar="TOOL")],
    arg: Annotated[
        list[str],
        typer.Option(
            "--arg", metavar="K=V", help="An argument; V as JSON, else as text; repeatable."
        ),
    ] = [],  # noqa: B006 (Typer copies it)
    timeout: Annotated[
        str | None, typer.Option(help="The call's limit, like 10s; else the server's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Call a tool as a profile would: checked, bounded, and its answer shown. No event is sent.

    Example: opsmesh mcp call time get_current_time --arg timezone=Europe/Berlin
    """
    from opsmesh.handlers.errors import CallFailed

    arguments = dict(_argument(text) for text in arg)
    limit = _seconds(timeout)

    async def body(session: Session) -> Answer:
        return await session.call(
            tool, arguments, timeout=limit or session.spec.timeout, progress=_progress
        )

    failure: CallFailed | None = None
    answer: Answer | None = None
    try:
        answer = asyncio.run(_with(server, body))
    except CallFailed as error:
        failure, answer = error, error.answer
    if as_json:
        known = {} if answer is None else answer.output()
        output.as_json(
            {**known, "kind": failure and failure.kind, "error": failure and str(failure)}
        )
    elif answer is not None:
        if answer.structured is not None:
            print(
                mcp_import.printable(
                    json.dumps(answer.structured, indent=2, ensure_ascii=False), "\n"
                )
            )
        elif answer.text:
            print(mcp_import.printable(answer.text, "\n"))
        for part in (*answer.parts, *(f"refused: {what}" for what in answer.refused)):
            output.note(mcp_import.printable(part))
    if failure is not None:
        if as_json:
            raise typer.Exit(output.FAILED)
        output.fail(mcp_import.printable(str(failure)), hint=f"failure of the kind {failure.kind}")


async def _looked_at(names: list[str]) -> list[dict[str, Any]]:
    pool = _pool()
    try:
        return list(await asyncio.gather(*(_look(pool, name) for name in names)))
    finally:
        await pool.aclose()


async def _look(pool: Pool, name: str) -> dict[str, Any]:
    from opsmesh.handlers.errors import HandlersError

    spec = pool.spec(name)
    row: dict[str, Any] = {
        "server": name,
        "kind": "stdio" if spec.url is None else "http",
        "place": spec.place,
        "ready": "no",
        "protocol": None,
        "tools": None,
        "took_ms": None,
        "error": "",
    }
    began = time.monotonic()
    try:
        session = await pool.session(name, _secrets().fill)
        row |= {
            "ready": "yes",
            "protocol": session.protocol,
            "tools": len(await session.tools()),
            "took_ms": round((time.monotonic() - began) * 1e3),
        }
    except (HandlersError, ValueError) as error:
        row["error"] = mcp_import.printable(str(error))
    return row


async def _with(server: str, body: Callable[[Session], Awaitable[T]]) -> T:
    from opsmesh.handlers.errors import CallFailed

    pool = _pool()
    try:
        pool.spec(server)
    except CallFailed as error:
        output.fail(str(error), hint="opsmesh mcp ls", code=output.NOT_FOUND)
    try:
        return await body(await pool.session(server, _secrets().fill))
    finally:
        await pool.aclose()


async def _tools(session: Session) -> list[dict[str, Any]]:
    return [
        {
            "tool": tool.name,
            "title": tool.title or "",
            "description": tool.description or "",
            "input_schema": tool.input_schema,
            "output_schema": tool.output_schema,
        }
        for tool in await session.tools()
    ]


async def _progress(done: float, total: float | None, message: str | None) -> None:
    of = f" of {total:g}" if total is not None else ""
    output.note(f"{done:g}{of} {mcp_import.printable(message or '')}".rstrip())


def _pool() -> Pool:
    from opsmesh.handlers.errors import ExtraMissing

    logs.configure("mcp", level="error")
    try:
        from opsmesh.handlers.mcp.pool import Pool
    except ImportError as error:
        raise ExtraMissing("mcp", str(error)) from error
    return Pool()


def _secrets() -> SecretStore:
    from opsmesh.handlers.secrets import store
    from opsmesh.schemas.exact import Known

    return store.load(Settings().secrets, Known())


def _arguments(schema: dict[str, Any]) -> list[str]:
    required = schema.get("required")
    must = required if isinstance(required, list) else []
    properties = schema.get("properties")
    names = properties if isinstance(properties, dict) else {}
    return [mcp_import.printable(str(name)) + ("" if name in must else "?") for name in names]


def _argument(text: str) -> tuple[str, Any]:
    found = pair(text)
    if found is None or not found[0]:
        output.fail(f"--arg {text}: is not K=V", code=output.USAGE)
    return found


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else durations.parse(text)
    except ValueError as error:
        output.fail(f"--timeout: {error}", code=output.USAGE)


app.command("import")(mcp_import.import_)
