"""`opsmesh env`: everything a foreign client needs, as shell assignments, JSON, or a context of
the `nats` command line."""

from __future__ import annotations

import json as jsonlib
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from opsmesh.cli import output
from opsmesh.router import connection, files, paths, topology
from opsmesh.router.connection import Endpoint
from opsmesh.router.settings import Settings
from opsmesh.schemas.envelope import host_token


def env(
    json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
    nats_context: Annotated[
        bool, typer.Option("--nats-context", help="Write a context for the nats command line.")
    ] = False,
    name: Annotated[str, typer.Argument(help="With --nats-context: its name.")] = "opsmesh",
) -> None:
    """Print shell assignments for any other client: eval "$(opsmesh env)".

    Credentials are named by their file; the password of a broker that takes one is printed.
    """
    settings = Settings()
    where = connection.endpoint(settings, role="admin")
    if nats_context:
        path = write_context(where, name)
        output.note(f"wrote {path}; use it: nats --context {name} stream ls")
        return
    values = variables(settings, where)
    if json:
        output.as_json(values)
        return
    for key, value in values.items():
        print(f"export {key}={shlex.quote(value)}")


def variables(settings: Settings, where: Endpoint) -> dict[str, str]:
    """Names and values; what is not set (a user, with credentials in a file) is left out."""
    found = {
        "NATS_URL": where.url,
        "NATS_USER": where.user,
        "NATS_PASSWORD": where.password,
        "NATS_CREDS": _text(where.credentials),
        "NATS_CA": _text(where.tls.ca) if where.tls else None,
        "NATS_CERT": _text(where.tls.certificate) if where.tls else None,
        "NATS_KEY": _text(where.tls.key or where.tls.certificate) if where.tls else None,
        "OPSMESH_STREAM_EVENTS": topology.EVENTS,
        "OPSMESH_STREAM_DLQ": topology.DLQ,
        "OPSMESH_STREAM_DECISIONS": topology.DECISIONS,
        "OPSMESH_STATE_DIR": paths.state_dir(),
        "OPSMESH_EVIDENCE_DIR": str(settings.evidence_dir),
        "OPSMESH_INGEST_SOCKET": paths.ingest_socket(),
        "OPSMESH_SUBJECT": f"evt.{host_token(settings.host)}",
    }
    return {key: value for key, value in found.items() if value}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def write_context(where: Endpoint, name: str) -> Path:
    """A context as `nats context` keeps it: nats/context/NAME.json in the configuration folder."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise typer.BadParameter(f"{name!r} is not a name of letters, digits, '_', '-' and '.'")
    path = Path(paths.config_dir()).parent / "nats" / "context" / f"{name}.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # field names: jsm.go, natscontext
    context = {
        "description": "opsmesh on this machine",
        "url": where.url,
        "user": where.user or "",
        "password": where.password or "",
        "creds": _text(where.credentials) or "",
        "ca": (where.tls and _text(where.tls.ca)) or "",
        "cert": (where.tls and _text(where.tls.certificate)) or "",
        "key": (where.tls and _text(where.tls.key or where.tls.certificate)) or "",
    }
    files.write_private(path, jsonlib.dumps(context, indent=2).encode())
    return path
