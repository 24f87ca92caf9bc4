"""`opsmesh mcp import`: another client's servers, shown, and taken over without their secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opsmesh.cli import output
from opsmesh.router import paths
from opsmesh.router.mcp_servers import imported, imported_file
from opsmesh.router.settings import Settings

if TYPE_CHECKING:
    from opsmesh.handlers.mcp.importing import Import


def import_(
    file: Annotated[Path, typer.Argument(help="Another client's JSON file.", metavar="FILE.json")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also servers that were imported before.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document, for programs.")
    ] = False,
) -> None:
    """Take over another client's servers: show, ask, write mcp_servers.json.

    config.yaml is never touched, and what stands there wins. Secrets are not copied: each becomes a
    reference, and the command that stores it is shown. With --json it only writes with --yes.

    Example: opsmesh mcp import ~/.cursor/mcp.json
    """
    from opsmesh.handlers.mcp import importing
    from opsmesh.router import redaction

    try:
        found = importing.read(file.read_text(encoding="utf-8"), redaction.load(Settings()))
    except OSError as error:
        output.fail(f"{file}: {error.strerror}", code=output.NOT_FOUND)
    except ValueError as error:
        output.fail(f"{file}: {error}", hint="it is the file with mcpServers in it that is wanted")
    here = Settings().mcp_servers
    before = imported()
    states = {name: _state(name, one, before, here, replace) for name, one in found.servers.items()}
    new = {
        name: found.servers[name] for name, state in states.items() if state in ("new", "changed")
    }
    if as_json:
        output.as_json(_as_json(found, states, written=bool(new) and yes))
    else:
        _show(found, states)
    if not new:
        if not as_json:
            output.note("nothing to write")
        return
    if not yes and (as_json or not typer.confirm(f"Write {imported_file()}?", err=True)):
        return
    _write({**before, **new})
    if not as_json:
        output.note(f"{len(new)} written to {imported_file()}\nnext: opsmesh mcp ls")


def _state(name: str, one: dict[str, Any], before: dict[str, Any], here: Any, replace: bool) -> str:
    if name not in before:
        return "in config.yaml" if name in here else "new"
    if before[name] == one:
        return "unchanged"
    return "changed" if replace else "kept (--replace)"


def _show(found: Import, states: dict[str, str]) -> None:
    for name, one in found.servers.items():
        print(f"{states[name]}: {name}")
        for line in json.dumps(one, indent=2, ensure_ascii=False).splitlines()[1:-1]:
            print(f"  {printable(line)}")
    for name, reason in found.left_out.items():
        output.note(f"left out: {printable(name)}: {printable(reason)}")
    for text in found.notes:
        output.note(printable(text))
    for secret in found.moved:
        output.note(
            f"{secret.server}: {secret.where} is a secret and was not copied; store it, its whole "
            f"value: opsmesh secret set {secret.secret}"
        )


def _as_json(found: Import, states: dict[str, str], *, written: bool) -> dict[str, Any]:
    return {
        "file": str(imported_file()),
        "written": written,
        "servers": [{"name": n, "state": states[n], **one} for n, one in found.servers.items()],
        "secrets": [
            {"server": m.server, "where": m.where, "secret": m.secret} for m in found.moved
        ],
        "left_out": found.left_out,
        "notes": found.notes,
    }


def _write(servers: dict[str, Any]) -> None:
    path = imported_file()
    paths.private_dir(str(path.parent))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps({"mcpServers": servers}, indent=2, ensure_ascii=False) + "\n"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def printable(text: str, also: str = "") -> str:
    """Text of a stranger on a terminal: what it could steer is shown, not done."""
    return "".join(
        one if one.isprintable() or one in also else f"\\x{ord(one):02x}" for one in text
    )
