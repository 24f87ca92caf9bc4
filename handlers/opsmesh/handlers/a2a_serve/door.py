"""Who comes in: a caller with its token, or, where none is needed, a program of this machine.

A web page that somebody looks at can send requests to this machine too. Without a token it is told
apart by what a browser adds (Origin) and by the name that it was told (Host).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from typing import Final

from a2a.utils.constants import AGENT_CARD_WELL_KNOWN_PATH
from starlette.authentication import AuthCredentials, SimpleUser, UnauthenticatedUser
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opsmesh.handlers import http_server

#: Bytes of one request.
MAX_BODY: Final = 1024 * 1024
#: Seconds in which a request has to have come.
BODY_S: Final = 30.0
#: What is read, and what is said of anything else (A2A 1.0, section 5.4: -32005).
JSON_TYPES: Final = ("application/json", "application/a2a+json")
_NOT_JSON: Final = {
    "jsonrpc": "2.0",
    "id": None,
    "error": {"code": -32005, "message": f"send {' or '.join(JSON_TYPES)}"},
}


class Door:
    """Lets a request in, or answers it. `tokens` are the callers' by name; none: no token is
    needed, and only what looks like a local program comes in."""

    def __init__(self, app: ASGIApp, *, tokens: Mapping[str, str]) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return JSONResponse({"error": f"a request has {MAX_BODY} bytes at most"}, 413)
        if scope["method"] == "POST" and length != "0" and not _is_json(headers):
            return JSONResponse(_NOT_JSON, 415)
        if not self._tokens:
            name = http_server.host_name(headers.get("host", ""))
            if "origin" in headers or name not in http_server.LOOPBACK:
                return JSONResponse({"error": "only programs of this machine may ask"}, 403)
            scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
            return None
        if scope["path"] == AGENT_CARD_WELL_KNOWN_PATH:  # how to prove oneself stands in it
            return None
        caller = self._caller(headers.get("authorization", ""))
        if caller is None:
            wrong = {"error": "a bearer token is needed"}
            return JSONResponse(wrong, 401, headers=http_server.UNAUTHORIZED)
        scope["user"], scope["auth"] = SimpleUser(caller), AuthCredentials(["ask"])
        return None

    def _caller(self, authorization: str) -> str | None:
        given = http_server.bearer(authorization)
        if given is None:
            return None
        found = None
        for name, token in self._tokens.items():  # all of them: how long it takes says nothing
            if hmac.compare_digest(token.encode(), given):
                found = name
        return found


def _is_json(headers: Headers) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in JSON_TYPES


def _bounded(receive: Receive) -> Receive:
    """Reads no more than a request may have; once it is read, only its end is waited for."""
    size, whole = 0, False

    async def bounded() -> Message:
        nonlocal size, whole
        if whole:
            return await receive()
        async with asyncio.timeout(BODY_S):
            message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise HTTPException(413, f"a request has {MAX_BODY} bytes at most")
        whole = not message.get("more_body", False)
        return message

    return bounded
