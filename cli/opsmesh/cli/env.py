"""`opsmesh env`: everything a foreign client needs, as shell assignments, JSON, or a context of
the `nats` command line."""

from __future__ import annotations

import json as jsonlib
import os
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from opsmesh.cli import output
from opsmesh.router import connection, paths, topology
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

    It prints the broker's password: keep it out of logs.
    """
    settings = Settings()
    where = connection.endpoint(settings)
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
        "NATS_CREDS": str(where.credentials) if where.credentials else None,
        "OPSMESH_STREAM_EVENTS": topology.EVENTS,
        "OPSMESH_STREAM_DLQ": topology.DLQ,
        "OPSMESH_STREAM_DECISIONS": topology.DECISIONS,
        "OPSMESH_STATE_DIR": paths.state_dir(),
        "OPSMESH_EVIDENCE_DIR": str(settings.evidence_dir),
        "OPSMESH_INGEST_SOCKET": paths.ingest_socket(),
        "OPSMESH_SUBJECT": f"evt.{host_token(settings.host)}",
    }
    return {key: value for key, value in found.items() if value}


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
        "creds": str(where.credentials or ""),
    }
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        jsonlib.dump(context, file, indent=2)
    new.replace(path)
    return path
