"""From the file of a desktop MCP client to servers of ours.

The one rule: no secret is copied. What looks like one becomes a reference, and the person is told
how to store it; where a reference cannot stand (an argument, an address), the server is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from opsmesh.router.mcp_servers import NAME, McpServer
from opsmesh.schemas.redact import Redactor

#: The keys under which clients keep their servers.
SECTIONS: Final = ("mcpServers", "servers", "mcp_servers")

_SECRET_NAME = re.compile(
    r"(?i)(key|token|secret|passw|passphrase|credential|auth|cookie|session|bearer|private)"
)
_REFERENCE = re.compile(r"""\$\{\{\s*secret\(.*\)\s*\}\}""")
#: `${VAR}`, `${env:VAR}`, `${input:id}`: other clients' own.
_FOREIGN = re.compile(r"\$\{(?!\{)[^}]*\}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
#: Keys of other clients that mean nothing here.
_IGNORED: Final = frozenset({"disabled", "autoApprove", "alwaysAllow", "gallery", "description"})


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A secret that the file held in plain: store it under `secret`. Its text is not kept here."""

    server: str
    where: str
    secret: str


@dataclass(frozen=True, kw_only=True)
class Import:
    """What a file gives: servers in our keys, the secrets to store, and what was left out."""

    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    moved: list[Moved] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(text: str, redactor: Redactor) -> Import:
    """The servers of a client's file; ValueError when it is no such file."""
    found = json.loads(text)
    section = next(
        (found[key] for key in SECTIONS if isinstance(found, dict) and key in found), None
    )
    if not isinstance(section, dict):
        raise ValueError(f"has no mapping {' or '.join(repr(key) for key in SECTIONS)}")  # noqa: TRY004
    result = Import()
    for name, value in section.items():
        _one(str(name), value, result, redactor)
    return result


def _one(name: str, value: Any, result: Import, redactor: Redactor) -> None:
    if not NAME.fullmatch(name):
        near = _UNSAFE.sub("-", name).strip("-.")[:64]
        result.left_out[name] = f"no name for a server here; call it {near or 'something'!r}"
        return
    if not isinstance(value, dict):
        result.left_out[name] = "is no mapping"
        return
    if value.get("disabled") is True:
        result.left_out[name] = "is disabled in that file"
        return
    if value.get("type") == "sse":
        result.left_out[name] = "speaks the old HTTP+SSE; opsmesh speaks stdio and streamable HTTP"
        return
    ignored = sorted(key for key in value if key in _IGNORED)
    if ignored:
        result.notes.append(f"{name}: {', '.join(ignored)} means nothing here")
    server = {key: one for key, one in value.items() if key not in _IGNORED}
    moved: list[Moved] = []
    for section in ("env", "headers"):
        if isinstance(server.get(section), dict):
            server[section] = _referred(name, section, server[section], moved, redactor)
    if reason := _unfit(server, redactor):
        result.left_out[name] = reason
        return
    result.servers[name] = server
    result.moved.extend(moved)


def _referred(
    name: str, section: str, values: Mapping[Any, Any], moved: list[Moved], redactor: Redactor
) -> dict[str, Any]:
    done: dict[str, Any] = {}
    for key, text in values.items():
        plain = isinstance(text, str) and not _REFERENCE.fullmatch(text)
        if plain and text and (_SECRET_NAME.search(str(key)) or _holds_secret(text, redactor)):
            secret = _UNSAFE.sub("_", f"{name}.{key}")[:64]
            moved.append(Moved(server=name, where=f"{section}.{key}", secret=secret))
            text = f'${{{{ secret("{secret}") }}}}'
        done[str(key)] = text
    return done


def _unfit(server: dict[str, Any], redactor: Redactor) -> str:
    """Why a server cannot be taken as it stands; no text of it is in the reason."""
    texts = [("command", server.get("command")), ("url", server.get("url"))]
    args = server.get("args")
    texts += [(f"args[{n}]", one) for n, one in enumerate(args if isinstance(args, list) else [])]
    for where, text in texts:
        if isinstance(text, str) and _holds_secret(text, redactor):
            return f"{where} looks like a secret, which everybody sees there: move it to env"
    for section in ("env", "headers"):
        inner = server.get(section)
        texts += list(inner.items()) if isinstance(inner, dict) else []
    for where, text in texts:
        if isinstance(text, str) and _FOREIGN.search(text):
            return f"{where} holds a ${{…}} that its own client fills in; write it out"
    try:
        McpServer.model_validate(server)
    except ValidationError as error:
        fact = error.errors()[0]
        where = ".".join(str(part) for part in fact["loc"])
        said = fact["msg"].removeprefix("Value error, ")
        return f"{where}: {said}" if where else said
    return ""


def _holds_secret(text: str, redactor: Redactor) -> bool:
    return redactor.text(text, context="mcp.import", path="$") != text
