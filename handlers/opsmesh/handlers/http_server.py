"""What our HTTP servers share: the address, whose name a request was sent to, its bearer token, and
a server that ends when it is told to.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import uvicorn

#: Names that this machine has for itself.
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
#: What a request without the right token is answered with (RFC 6750, 3).
UNAUTHORIZED: Final = {"WWW-Authenticate": 'Bearer realm="opsmesh"'}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """The socket; OSError when the address is taken, or is none of ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def url(host: str, listener: socket.socket, *, tls: bool) -> str:
    """Where clients reach what listens there."""
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{name}:{listener.getsockname()[1]}"


def host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


def bearer(authorization: str) -> bytes | None:
    """The token of an Authorization header; None for one of another kind."""
    kind, _, given = authorization.partition(" ")
    return given.strip().encode(errors="replace") if kind.lower() == "bearer" else None


def server(
    app: Any,
    *,
    most: int,
    grace_s: int,
    certificate: Path | None,
    key: Path | None,
    lifespan: Literal["auto", "off"] = "auto",
) -> uvicorn.Server:
    """A server for `most` requests at once, which leaves signals to whoever runs it."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    tls: dict[str, Any] = {}
    if certificate is not None and key is not None:
        tls = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=most,
        timeout_graceful_shutdown=grace_s,
        lifespan=lifespan,
        ws="none",
        proxy_headers=False,
        **tls,
    )
    return Server(config)
