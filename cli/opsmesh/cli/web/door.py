"""Who may look: a browser of this machine that was given the token.

The token comes in the address's fragment, which no server and no log ever sees, and is good for a
session: a cookie that scripts cannot read, and a key that only pages of this address have. A cookie
is sent to every port of this machine, so that it is worth nothing without the key; a page under
another name that leads here (DNS rebinding) has neither.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opsmesh.handlers import http_server

#: The header that the key comes in.
KEY: Final = "x-opsmesh-key"
#: Where a token becomes a session; the one path under `/api/` that is open.
ENTRANCE: Final = "/api/session"
#: Sessions at once; the oldest ends when there is one more.
SESSIONS: Final = 64
#: What may be done by what is shown: our own files, this address, and nothing that is made of text.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Door:
    """Lets a request in, or answers it."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self._app = app
        self._token = token
        self._keys: OrderedDict[str, str] = OrderedDict()

    def enter(self, token: str) -> tuple[str, str] | None:
        """A new session's cookie and key; None for a wrong token."""
        if not hmac.compare_digest(token.encode(errors="replace"), self._token.encode()):
            return None
        cookie, key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._keys[cookie] = key
        while len(self._keys) > SESSIONS:
            self._keys.popitem(last=False)
        return cookie, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope), scope["path"])
        await (refusal or self._app)(scope, receive, sent)

    def _refusal(self, headers: Headers, path: str) -> JSONResponse | None:
        host = headers.get("host", "")
        if http_server.host_name(host) not in http_server.LOOPBACK:
            return JSONResponse({"error": "this server has another name"}, 421)
        if not path.startswith("/api/"):
            return None
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "same-origin")
        if site != "same-origin" or (origin is not None and urlsplit(origin).netloc != host):
            return JSONResponse({"error": "requests of other pages are refused"}, 403)
        if path == ENTRANCE or self._knows(headers):
            return None
        wrong = {
            "error": "this browser has no session",
            "hint": "open the address that opsmesh web printed",
        }
        return JSONResponse(wrong, 401)

    def _knows(self, headers: Headers) -> bool:
        cookies = cookie_parser(headers.get("cookie", ""))
        key = self._keys.get(cookies.get(cookie_name(headers.get("host", "")), ""))
        given = headers.get(KEY, "").encode(errors="replace")
        return key is not None and hmac.compare_digest(given, key.encode())


def cookie_name(host: str) -> str:
    """The session's cookie at this address: two servers of one machine keep apart."""
    port = host.rpartition(":")[2]
    return f"opsmesh-web-{port if port.isdigit() else '80'}"
