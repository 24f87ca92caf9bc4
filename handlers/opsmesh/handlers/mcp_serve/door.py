"""Who comes in over HTTP: a request with the token, for a name that is this server's.

A web page that somebody looks at can send requests to this machine too, under a name of its own
that leads here (DNS rebinding). It is told apart by what a browser adds (Origin) and by the name
that it was told (Host): MCP, "Streamable HTTP", Security Warning.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from opsmesh.handlers import http_server
from opsmesh.handlers.mcp_serve.answers import Refused
from opsmesh.router import paths

#: Characters that a token has at least.
SHORTEST: Final = 20
#: Bytes of a token's file that are read.
MAX_FILE: Final = 4096


class Door:
    """Lets a request in, or answers it. `token` None: none is needed; `hosts` are our names."""

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: frozenset[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(Headers(scope=scope))
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> JSONResponse | None:
        if http_server.host_name(headers.get("host", "")) not in self._hosts:
            return JSONResponse({"error": "this server has another name"}, 421)
        origin = headers.get("origin")
        if origin is not None and (urlsplit(origin).hostname or "") not in self._hosts:
            return JSONResponse({"error": "requests of web pages are refused"}, 403)
        if self._token is None:
            return None
        given = http_server.bearer(headers.get("authorization", ""))
        if given is None or not hmac.compare_digest(given, self._token.encode()):
            wrong = {"error": "a bearer token is needed"}
            return JSONResponse(wrong, 401, headers=http_server.UNAUTHORIZED)
        return None


def default_file(which: str) -> Path:
    """Where a server's token is unless said otherwise."""
    return Path(paths.state_dir(), f"{which}-serve.token")


def read(file: Path) -> str:
    """The token in a file that its user alone can read; Refused otherwise."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}", hint="a token's file is a plain one") from None
    with os.fdopen(descriptor, "rb") as opened:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o077:
            raise Refused(f"{file} can be read by others", hint=f"chmod 600 {file}")
        if facts.st_uid not in (os.geteuid(), 0):
            raise Refused(f"{file} belongs to somebody else")
        token = opened.read(MAX_FILE).decode(errors="replace").strip()
    if len(token) < SHORTEST or not token.isascii() or any(c.isspace() for c in token):
        raise Refused(
            f"{file} holds no token of at least {SHORTEST} characters without spaces",
            hint=f"openssl rand -hex 32 > {file}",
        )
    return token


def made(file: Path) -> str:
    """The same, made when there is no such file."""
    if not file.exists():
        paths.private_dir(str(file.parent))
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return read(file)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(secrets.token_hex(32) + "\n")
            opened.flush()
            os.fsync(descriptor)
    return read(file)
