"""`opsmesh mcp serve` and `opsmesh mcp config`: the mesh for MCP clients. `opsmesh checks serve` is
served the same way."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from opsmesh.cli import output
from opsmesh.handlers.errors import ExtraMissing
from opsmesh.router.settings import Settings

if TYPE_CHECKING:
    from opsmesh.handlers.mcp_serve.records import Transport
    from opsmesh.handlers.mcp_serve.serve import Address
    from opsmesh.handlers.mcp_serve.server import Serving

#: What `--allow` takes.
ALLOWANCES: Final = ("trigger", "approve", "approve-alone")

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
Http = Annotated[bool, typer.Option("--http", help="Streamable HTTP, not standard input.")]
Host = Annotated[str, typer.Option(help="With --http: the address to serve on.")]
Port = Annotated[int | None, typer.Option(help="With --http: the port; 0 is a free one.")]
Token = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="The file (0600) with what clients have to know."
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", help="What clients call this host, beyond loopback; repeatable."),
]
NoAuth = Annotated[
    bool, typer.Option("--no-auth", help="No token, for programs of this machine alone.")
]
Certificate = Annotated[
    Path | None,
    typer.Option("--tls-certificate", metavar="FILE", help="PEM; needed beyond this machine."),
]
Key = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="The key of that certificate.")
]


def serve(
    http: Http = False,
    host: Host = "127.0.0.1",
    port: Port = None,
    token: Token = None,
    name: Names = None,
    no_auth: NoAuth = False,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(ALLOWANCES), help="What it does beside reading; repeatable."),
    ] = None,
) -> None:
    """Be an MCP server: agents search events, ask why, check and backtest profiles.

    Over standard input, as desktop clients start it, or with --http on this machine, for clients
    that have the token. It only reads, unless --allow or mcp_serve in config.yaml says more.

    Example: opsmesh mcp serve --http --allow trigger
    """
    extra()
    from opsmesh.handlers.mcp_serve import server

    settings = Settings()
    if unknown := [one for one in allow or () if one not in ALLOWANCES]:
        output.fail(
            f"--allow {unknown[0]!r} is not one of {', '.join(ALLOWANCES)}", code=output.USAGE
        )
    allowed = [*settings.mcp_serve.allow, *(allow or ())]
    section = settings.mcp_serve.model_copy(update={"allow": list(dict.fromkeys(allowed))})
    settings = settings.model_copy(update={"mcp_serve": section})
    address = address_of(
        host, section.port if port is None else port, token, name, no_auth, tls_certificate, tls_key
    )
    run("mcp", settings, server.make, address if http else None)


def config(
    http: Http = False,
    server: Annotated[str, typer.Option(help="Which server: mcp or checks.")] = "mcp",
) -> None:
    """Print the lines that a desktop MCP client's settings need.

    Examples: opsmesh mcp config
              opsmesh mcp config --server checks
    """
    if server not in ("mcp", "checks"):
        output.fail(f"--server {server!r} is neither mcp nor checks", code=output.USAGE)
    entry: dict[str, Any]
    if http:
        from opsmesh.router import paths

        port = Settings().mcp_serve.port if server == "mcp" else 9472
        entry = {
            "type": "http",
            "url": f"http://127.0.0.1:{port}/mcp",
            "headers": {"Authorization": "Bearer ${OPSMESH_TOKEN}"},
        }
        file = Path(paths.state_dir(), f"{server}-serve.token")
        output.note(f"OPSMESH_TOKEN is what stands in {file}, once it has been served")
    else:
        program = shutil.which("opsmesh") or str(Path(sys.executable).with_name("opsmesh"))
        entry = {"command": program, "args": [server, "serve"]}
    name = "opsmesh" if server == "mcp" else "opsmesh-checks"
    output.as_json({"mcpServers": {name: entry}})


def address_of(
    host: str,
    port: int,
    token: Path | None,
    names: list[str] | None,
    no_auth: bool,
    certificate: Path | None,
    key: Path | None,
) -> Address:
    """The options as one fact."""
    from opsmesh.handlers.mcp_serve.serve import Address

    return Address(
        host=host,
        port=port,
        names=tuple(names or ()),
        token_file=token,
        no_auth=no_auth,
        certificate=certificate,
        key=key,
    )


def run(
    which: str,
    settings: Settings,
    make: Callable[..., Serving],
    address: Address | None,
) -> None:
    """Serve over HTTP at the address, or over standard input and output."""
    from opsmesh.handlers.mcp_serve import serve as serving
    from opsmesh.router import logs, redaction

    logs.configure(
        which, level=settings.log_level, style=settings.log, redactor=redaction.of_logs(settings)
    )
    # before the SDK sets up its own way of saying things, with boxes and with values in them
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(name)s: %(message)s")
    # before anything is bound or opened
    token = None if address is None else serving.token(address, which)

    async def body() -> None:
        transport: Transport = "stdio" if address is None else "http"
        made = make(settings, transport=transport)
        if address is None:
            await serving.stdio(made)
        else:
            await serving.http(made, address, token=token, ready=_ready)

    asyncio.run(body())


def _ready(url: str) -> None:
    print(f"serving {url}", flush=True)


def extra() -> None:
    """ExtraMissing unless the extra `mcp` is there."""
    try:
        import mcp.server.mcpserver  # noqa: F401
    except ImportError as error:
        raise ExtraMissing("mcp", str(error)) from error
