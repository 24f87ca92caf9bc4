"""The endpoint: `/metrics` for Prometheus, `/healthz` for whoever watches the endpoint itself.

The one rule: a question costs the mesh what it asks, and nobody can change anything here. Questions
are answered one after the other, each with figures of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as Late
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import structlog
from nats.aio.client import Client

from opsmesh.handlers import http_server
from opsmesh.handlers.errors import ExtraMissing, MetricsNotServed
from opsmesh.handlers.metrics import outside
from opsmesh.router import connection, tasks
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.metrics import telling
from opsmesh.router.settings import Settings

#: Seconds for one answer; Prometheus gives a scrape ten.
PATIENCE: Final = 8.0
#: Seconds between looks for a broker that is not known yet.
RETRY: Final = 2.0
#: Seconds that a client may take to say what it wants.
IDLE: Final = 10.0

_PLAIN: Final = "text/plain; charset=utf-8"
_INDEX: Final = b"opsmesh: /metrics for Prometheus, /healthz says whether this endpoint answers\n"

log = structlog.get_logger()


class Endpoint:
    """Answers while `run` runs; `port` is then the one it has."""

    def __init__(self, settings: Settings, *, address: str, port: int) -> None:
        try:
            from opsmesh.handlers.metrics import text
        except ImportError as error:
            raise ExtraMissing("metrics", str(error)) from error
        self._render = text.render
        self._settings = settings
        self._client: Client | None = None
        self._turn = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        try:
            ours = http_server.is_loopback(address)
            self._server = ThreadingHTTPServer((address, port), _handler(self._answer, ours=ours))
        except OSError as error:
            raise MetricsNotServed(address, port, error.strerror or str(error)) from error
        self._server.daemon_threads = True
        self._ended = False
        self.address = f"http://{address}:{self._server.server_address[1]}"

    async def run(self, ready: Callable[[str], None]) -> None:
        """Serve until cancelled; `ready` is told the address."""
        connecting = asyncio.create_task(self._connect())
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        ready(self.address)
        try:
            await asyncio.Event().wait()
        finally:
            self._ended = True
            self._server.socket.shutdown(socket.SHUT_RDWR)  # whoever waits for a client wakes up
            await asyncio.to_thread(thread.join)
            self._server.server_close()
            await tasks.end([connecting])
            if self._client is not None:
                await self._client.close()

    def _serve(self) -> None:
        # not serve_forever: it looks twice a second whether it is to end
        while not self._ended:
            self._server.handle_request()

    async def _connect(self) -> None:
        while self._client is None:
            with contextlib.suppress(BrokerUnavailable):
                where = connection.endpoint(self._settings, role="viewer")
                self._client = await connection.connect(where, name="metrics")
                return
            await asyncio.sleep(RETRY)

    def _answer(self, accept: str) -> tuple[bytes, str]:
        """For a thread of the HTTP server."""
        asked = asyncio.run_coroutine_threadsafe(self.text(accept), self._loop)
        try:
            return asked.result(PATIENCE)
        except Late:
            asked.cancel()
            raise

    async def text(self, accept: str) -> tuple[bytes, str]:
        """All figures as they are now, and the content type that `accept` led to."""
        async with self._turn:
            return await gathered(self._client, self._settings, self._render, accept)


async def gathered(
    client: Client | None,
    settings: Settings,
    render: Callable[..., tuple[bytes, str]],
    accept: str = "",
) -> tuple[bytes, str]:
    """Ask everybody, and make the answer of it."""
    reports, components, broker = await asyncio.gather(
        telling.reports(),
        outside.components(),
        outside.broker(client, host=settings.host),
    )
    return render(reports, [*components, *broker], accept=accept)


def _handler(
    answer: Callable[[str], tuple[bytes, str]], *, ours: bool
) -> type[BaseHTTPRequestHandler]:
    """`ours`: only this machine reaches it, so that only its own names lead here. A page of a
    browser under another one that was made to (DNS rebinding) would read all of it."""

    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE
        protocol_version = "HTTP/1.1"
        server_version, sys_version = "opsmesh", ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if ours and not http_server.is_loopback(http_server.host_name(self._host)):
                self._send(HTTPStatus.MISDIRECTED_REQUEST, b"this endpoint has another name\n")
            elif path == "/metrics":
                try:
                    self._send(HTTPStatus.OK, *answer(self.headers.get("Accept", "")))
                except Late:
                    self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"the mesh does not answer\n")
                except Exception as error:
                    log.exception("metrics.not_answered")
                    said = f"{type(error).__name__}: see the log of the component metrics\n"
                    self._send(HTTPStatus.INTERNAL_SERVER_ERROR, said.encode())
            elif path == "/healthz":
                self._send(HTTPStatus.OK, b"ok\n")
            elif path == "/":
                self._send(HTTPStatus.OK, _INDEX)
            else:
                self._send(HTTPStatus.NOT_FOUND, _INDEX)

        do_HEAD = do_GET

        @property
        def _host(self) -> str:
            return self.headers.get("Host") or "localhost"  # HTTP/1.0 has none

        def _send(self, status: HTTPStatus, body: bytes, kind: str = _PLAIN) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug("metrics.asked", what=format % args)

    return Handler
