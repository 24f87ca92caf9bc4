"""`opsmesh checks serve`: deterministic checks for MCP clients, each by an allow-list."""

from __future__ import annotations

import typer

from opsmesh.cli import output
from opsmesh.cli.mcp import serve as mcp_serve
from opsmesh.cli.mcp.serve import Certificate, Host, Http, Key, Names, NoAuth, Port, Token
from opsmesh.router.settings import Settings, config_file

#: The port of --http, unless another one is given.
PORT = 9472

app = typer.Typer(
    no_args_is_help=True,
    help="""Checks that agents may have run: tests, linter, schemas, restarts, configuration.

    Example: opsmesh checks serve
    """,
)


@app.command("serve")
def serve(
    http: Http = False,
    host: Host = "127.0.0.1",
    port: Port = None,
    token: Token = None,
    name: Names = None,
    no_auth: NoAuth = False,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
) -> None:
    """Be an MCP server whose tools run checks, over standard input or with --http.

    What it may touch stands under `checks` in config.yaml; what does not is refused. `opsmesh
    checks ls` shows it.

    Example: opsmesh checks serve --http
    """
    mcp_serve.extra()
    from opsmesh.handlers.checks import server

    address = mcp_serve.address_of(
        host, PORT if port is None else port, token, name, no_auth, tls_certificate, tls_key
    )
    mcp_serve.run("checks", Settings(), server.make, address if http else None)


@app.command("ls")
def ls(as_json: mcp_serve.AsJson = False) -> None:
    """List the checks, and what each may touch.

    Example: opsmesh checks ls
    """
    section = Settings().checks
    rows = [
        {"check": "run_pytest", "allowed": section.pytest, "setting": "checks.pytest"},
        {"check": "run_lint", "allowed": section.lint, "setting": "checks.lint"},
        {"check": "validate_schema", "allowed": [*section.schemas], "setting": "checks.schemas"},
        {
            "check": "collect_evidence",
            "allowed": section.collectors,
            "setting": "checks.collectors",
        },
        {
            "check": "restart_unit",
            "allowed": [*section.restart.user, *(f"{u} (system)" for u in section.restart.system)],
            "setting": "checks.restart",
        },
        {"check": "apply_config", "allowed": [*section.config], "setting": "checks.config"},
    ]
    if as_json:
        output.as_json(rows)
        return
    shown = [{**row, "allowed": ", ".join(row["allowed"]) or "nothing: off"} for row in rows]
    output.table(shown, ["check", "allowed", "setting"], empty="none")
    output.note(f"what is off is allowed in {config_file()}")
