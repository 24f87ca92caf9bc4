"""Serving: over standard input and output, or over HTTP.

The one rule: nobody beyond this machine is heard without a token that was given, and without TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opsmesh.handlers import http_server
from opsmesh.handlers.mcp_serve import door
from opsmesh.handlers.mcp_serve.answers import Refused
from opsmesh.handlers.mcp_serve.server import Serving

#: The path of the protocol.
PATH: Final = "/mcp"
#: Addresses that are no names.
ANY: Final = ("0.0.0.0", "::")  # noqa: S104 (looked for, not bound)
#: Bytes of one request.
MAX_BODY: Final = 1024 * 1024
#: Requests under way at once, sessions at once, and seconds after which an idle one ends.
MOST: Final = 64
SESSIONS: Final = 32
IDLE_S: Final = 1800.0
#: Seconds that streams have to end when the server does, and answers over standard output.
GRACE_S: Final = 2
LAST_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where it is served, and who may come in."""

    host: str = "127.0.0.1"
    port: int = 0
    #: What clients call this machine, where `host` is not it.
    names: tuple[str, ...] = ()
    token_file: Path | None = None
    no_auth: bool = False
    certificate: Path | None = None
    key: Path | None = None

    @property
    def hosts(self) -> frozenset[str]:
        """The names that a request may be for."""
        if http_server.is_loopback(self.host):
            return http_server.LOOPBACK
        return frozenset(name.lower() for name in (self.names or (self.host,)))

    @property
    def tls(self) -> bool:
        """Whether what is said on the way is secret."""
        return self.certificate is not None and self.key is not None


def token(address: Address, which: str) -> str | None:
    """What a client has to know; None: nothing. Refused for what must not be served like this."""
    if (address.certificate is None) != (address.key is None):
        raise Refused("TLS needs both --tls-certificate and --tls-key")
    if not http_server.is_loopback(address.host):
        if address.no_auth:
            raise Refused(f"--no-auth is for this machine alone, and not for {address.host}")
        if address.token_file is None:
            raise Refused(
                f"{address.host} is reached from elsewhere, and there is no --token-file",
                hint=f"--token-file FILE, of mode 0600; {door.default_file(which)} is for this "
                "machine",
            )
        if address.host in ANY and not address.names:
            raise Refused(f"{address.host} is no name", hint="--name HOST, as clients call it")
        if not address.tls:
            raise Refused(
                f"{address.host} is reached from elsewhere, and there is no TLS",
                hint="--tls-certificate and --tls-key, or serve on 127.0.0.1 behind a proxy",
            )
    if address.no_auth:
        return None
    if address.token_file is not None:
        return door.read(address.token_file.expanduser())
    return door.made(door.default_file(which))


async def stdio(serving: Serving) -> None:
    """Serve until the client closes our standard input, or SIGTERM."""
    work = asyncio.ensure_future(serving.server.run_stdio_async())
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    waiting = asyncio.ensure_future(told.wait())
    await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    work.cancel()
    _, reads = await asyncio.wait((work,), timeout=LAST_S)
    await serving.close()
    if reads:  # a thread of the SDK waits for the client's next line, and hears of nothing else
        os._exit(0)
    if not work.cancelled():
        work.result()


async def http(
    serving: Serving, address: Address, *, token: str | None, ready: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` gets the address."""
    from mcp.server.transport_security import TransportSecuritySettings

    try:
        listener = http_server.listen(address.host, address.port)
    except OSError as error:
        raise Refused(
            f"{address.host}:{address.port} cannot be served: {error.strerror or error}",
            hint="another port: --port 0 takes a free one",
        ) from error
    with contextlib.closing(listener):
        # names and origins are the door's to check: it knows them for any address
        app = serving.server.streamable_http_app(
            streamable_http_path=PATH,
            max_request_body_size=MAX_BODY,
            max_sessions=SESSIONS,
            session_idle_timeout=IDLE_S,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            host=address.host,
        )
        server = http_server.server(
            door.Door(app, token=token, hosts=address.hosts),
            most=MOST,
            grace_s=GRACE_S,
            certificate=address.certificate,
            key=address.key,
        )
        loop = asyncio.get_running_loop()

        def end() -> None:
            server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        try:
            ready(http_server.url(address.host, listener, tls=address.tls) + PATH)
            await server.serve(sockets=[listener])
        finally:
            await serving.close()
