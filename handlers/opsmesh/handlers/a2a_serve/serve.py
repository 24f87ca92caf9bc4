"""The server of `opsmesh a2a serve`: HTTP on one address, over one connection to the mesh.

The one rule: nobody beyond this machine is heard without a token and without TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.types import AgentCard
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from starlette.applications import Starlette
from starlette.middleware import Middleware

from opsmesh.handlers import http_server
from opsmesh.handlers.a2a.agents import Fills
from opsmesh.handlers.a2a_serve import exposed
from opsmesh.handlers.a2a_serve.door import Door
from opsmesh.handlers.a2a_serve.exposed import Exposed
from opsmesh.handlers.a2a_serve.mesh import Mesh
from opsmesh.handlers.a2a_serve.push import Herald
from opsmesh.handlers.a2a_serve.records import Records
from opsmesh.handlers.a2a_serve.requests import Requests
from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.router import connection, paths, redaction, topology
from opsmesh.router.errands import PATIENCE, RUNNABLE
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.publish import Publisher
from opsmesh.router.settings import Settings
from opsmesh.router.settings_a2a import A2aServe
from opsmesh.schemas.envelope import Event, encode, subject

if TYPE_CHECKING:
    import uvicorn

#: Requests that are under way at once.
MOST: Final = 128
#: Seconds that streams have to end when the server does.
GRACE_S: Final = 2
#: Seconds that the broker has to be there.
CONNECT_S: Final = 10.0
#: Characters that a token has at least.
SHORTEST: Final = 16
#: Seconds between looks for the bucket that the agent makes.
STREAM_WAIT_S: Final = 0.25

log = structlog.get_logger()


class Refused(HandlersError):
    """It cannot be served like this; `hint` says how it can."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def tokens(settings: A2aServe, secrets: Fills, *, no_auth: bool) -> Mapping[str, str]:
    """The callers' tokens; none with `no_auth`. Refused for an address that must not be served."""
    loopback = http_server.is_loopback(settings.host)
    tls = settings.tls_certificate is not None and settings.tls_key is not None
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise Refused("TLS needs a2a_serve.tls_certificate and a2a_serve.tls_key")
    if not loopback and not tls:
        raise Refused(
            f"{settings.host} is reached from elsewhere, and there is no TLS",
            hint="set a2a_serve.tls_certificate and .tls_key, or serve on 127.0.0.1 behind a proxy",
        )
    if no_auth:
        if not loopback:
            raise Refused(f"--no-auth is for this machine alone, and not for {settings.host}")
        return {}
    found = {name: secrets.fill(text) for name, text in settings.tokens.items()}
    if not found:
        raise Refused(
            "nobody may ask: a2a_serve.tokens is empty",
            hint="a2a_serve: {tokens: {planner: '${{ secret(\"planner-token\") }}'}}; "
            "or --no-auth, for programs of this machine",
        )
    for name, token in found.items():
        if len(token) < SHORTEST or token != token.strip():
            raise Refused(f"the token of {name} has fewer than {SHORTEST} characters, or spaces")
    if len(set(found.values())) < len(found):
        raise Refused("two callers have the same token")
    return found


def listen(settings: A2aServe) -> socket.socket:
    """The socket; Refused when the address is taken."""
    try:
        return http_server.listen(settings.host, settings.port)
    except OSError as error:
        raise Refused(
            f"{settings.host}:{settings.port} cannot be served: {error.strerror or error}",
            hint="another port: opsmesh a2a serve --port 0",
        ) from error


def address(settings: A2aServe, listener: socket.socket) -> str:
    """Where agents reach us."""
    if settings.url is not None:
        return settings.url.rstrip("/")
    return http_server.url(settings.host, listener, tls=settings.tls_certificate is not None)


def application(
    mesh: Mesh, settings: A2aServe, *, at: str, callers: Mapping[str, str]
) -> Starlette:
    """The routes, behind the door."""
    requests = Requests(mesh, settings)

    def now() -> AgentCard:
        return exposed.card(mesh.exposed.profiles(), settings, address=at, token=bool(callers))

    async def fresh(_: AgentCard) -> AgentCard:
        return await asyncio.to_thread(now)

    compat = settings.v0_3
    return Starlette(
        routes=[
            *create_agent_card_routes(now(), card_modifier=fresh, cache_control="max-age=60"),
            # clients that join paths end it with a slash
            *create_jsonrpc_routes(requests, exposed.RPC, enable_v0_3_compat=compat),
            *create_jsonrpc_routes(requests, f"{exposed.RPC}/", enable_v0_3_compat=compat),
            *create_rest_routes(requests, path_prefix=exposed.REST, enable_v0_3_compat=compat),
        ],
        middleware=[Middleware(Door, tokens=callers)],
    )


async def serve(
    settings: Settings,
    secrets: Fills,
    *,
    no_auth: bool = False,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` gets the address."""
    about = settings.a2a_serve
    callers = tokens(about, secrets, no_auth=no_auth)
    with contextlib.closing(listen(about)) as listener:
        at = address(about, listener)
        client = await _connected(settings)
        try:
            mesh = await _mesh(client, settings)
            app = application(mesh, about, at=at, callers=callers)
            server = http_server.server(
                app,
                most=MOST,
                grace_s=GRACE_S,
                certificate=about.tls_certificate,
                key=about.tls_key,
                lifespan="off",
            )
            await mesh.herald.start()
            ending = asyncio.create_task(_until_told(server))
            try:
                ready(at)
                await server.serve(sockets=[listener])
            finally:
                ending.cancel()
                await mesh.herald.stop()
        finally:
            await client.close()


async def _until_told(server: uvicorn.Server) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, told.set)
    await told.wait()
    server.should_exit = True


async def _connected(settings: Settings) -> Client:
    """A connection that outlives the broker's restarts; BrokerUnavailable when there is none."""
    where = connection.endpoint(settings, role="admin")
    try:
        async with asyncio.timeout(CONNECT_S):
            return await connection.connect(where, name="a2a")
    except TimeoutError as error:
        raise BrokerUnavailable(where.url, "no answer") from error


async def _mesh(client: Client, settings: Settings) -> Mesh:
    await _streams(client)
    redactor = redaction.load(settings)
    events = Publisher(client)
    ledger, records = Ledger(client, lease_s=settings.runs.lease), Records(client)

    async def publish(event: Event) -> None:
        data, _ = redactor.event(encode(event))
        await events.publish(subject(event.host, event.topic), data, msg_id=event.id)

    async def hindrance(profile: str) -> str:
        asked = msgspec.json.encode({"profile": profile, "host": settings.host})
        try:
            answer = await client.request(RUNNABLE, asked, timeout=PATIENCE)
        except (NoRespondersError, NatsTimeout):
            return "no handlers are running; nothing was begun"
        found = msgspec.json.decode(answer.data)
        return "" if found.get("ok") is True else str(found.get("error", "not now"))[:300]

    return Mesh(
        client=client,
        ledger=ledger,
        records=records,
        exposed=Exposed(Path(paths.config_dir())),
        herald=Herald(client, records, ledger, settings.a2a_serve.push_urls),
        redactor=redactor,
        host=settings.host,
        publish=publish,
        hindrance=hindrance,
    )


async def _streams(client: Client) -> None:
    js = client.jetstream()
    for name in (f"KV_{topology.A2A}", f"KV_{topology.RUNS}", topology.TRIGGERS):
        while True:
            try:
                await js.stream_info(name)
                break
            except Exception as error:
                log.debug("stream.awaited", stream=name, error=str(error))
                await asyncio.sleep(STREAM_WAIT_S)
