"""`opsmesh producer`: which producers there are, what they do, and running one."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from opsmesh.cli import output
from opsmesh.router import paths, running
from opsmesh.schemas import times

app = typer.Typer(help="Producers: the small processes that watch one tool each.")

_Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.command("ls")
def ls(as_json: _Json = False) -> None:
    """List the producers: whether each can run here, and what it emits."""
    from opsmesh.producers import registry

    found = registry.discover()
    rows: list[dict[str, Any]] = []
    for name, producer in found.producers.items():
        reason = producer.available()
        rows.append(
            {
                "name": name,
                "available": reason is None,
                "reason": reason,
                "topics": list(producer.topics),
                "description": producer.description,
            }
        )
    rows += [
        {"name": name, "available": False, "reason": f"broken: {why}", "topics": []}
        for name, why in found.problems.items()
    ]
    if as_json:
        output.as_json(rows)
        return
    shown = [
        {**row, "available": "yes" if row["available"] else f"no: {row['reason']}"}
        | {"topics": "\n".join(row["topics"])}
        for row in rows
    ]
    output.table(
        shown, ("name", "available", "topics", "description"), empty="no producers installed"
    )


@app.command("run")
def run(
    name: Annotated[str, typer.Argument(help="The producer's name, as in `producer ls`.")],
    option: Annotated[
        list[str] | None, typer.Option("-o", "--option", metavar="KEY=VALUE", help="An option.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Where a first start begins; the same as -o since=…")
    ] = None,
) -> None:
    """Run one producer in this process, until it is told to stop."""
    pairs = [*(option or ()), *([f"since={since}"] if since else ())]
    arguments = [word for pair in pairs for word in ("-o", pair)]
    # The same process goes on as a bare producer: what the command line has imported would be a
    # burden for weeks. -P: a folder `opsmesh` in the current one is not ours.
    command = [sys.executable, "-P", "-m", "opsmesh.producers.host", name, *arguments]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 (our own interpreter, an argv list)


@app.command("status")
def status(as_json: _Json = False) -> None:
    """Show each producer's process, its last event, and how old its position is."""
    found = rows()
    if as_json:
        output.as_json(found)
        return
    for row in found:
        if row["last_event"]:
            row["last_event"] = f"{output.local(row['last_time'])} {row['last_event']}"
        if row["cursor_age_s"] is not None:
            row["cursor_age_s"] = round(row["cursor_age_s"])
    output.table(
        found,
        ("name", "state", "pid", "restarts", "events", "last_event", "cursor_age_s"),
        empty="no producer has run here yet",
    )


def rows() -> list[dict[str, Any]]:
    """Each producer that runs, or has run here: its process, and what it last told."""
    mesh = running.mesh()
    known = {
        component.name.removeprefix("producer:"): asdict(component)
        for component in (mesh.components if mesh is not None else ())
        if component.name.startswith("producer:")
    }
    folder = Path(paths.state_dir(), "producers")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [_row(name, known.get(name, {}), folder / name) for name in sorted(names | {*known})]


def _row(name: str, component: dict[str, Any], folder: Path) -> dict[str, Any]:
    told = _read(folder / "status.json")
    last = told.get("last", {})
    return {
        "name": name,
        "state": component.get("state", "not supervised"),
        "pid": component.get("pid"),
        "restarts": component.get("restarts"),
        "events": told.get("events"),
        "refused": told.get("refused"),
        "last_event": last.get("topic"),
        "last_id": last.get("id"),
        "last_time": last.get("ts_utc"),
        "cursor_age_s": _age(folder),
    }


def _age(folder: Path) -> float | None:
    """Seconds since the producer noted how far it is."""
    for name in ("cursor", "memory.json"):
        with contextlib.suppress(OSError):
            return max(0.0, times.now_us() / 1e6 - (folder / name).stat().st_mtime)
    return None


def _read(path: Path) -> dict[str, Any]:
    """A state file's content; nothing of one that is missing, or just being made."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}
