"""Connections to the broker: where it is, who we are, and quiet reconnects.

A broker that is away is said when it goes, once a minute, and when it is back, not once an attempt
(`logs.away`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import AuthorizationError, StaleConnectionError
from nats.errors import Error as NatsError

from opsmesh.router import joined, leaderless, logs, paths, server, tasks, wire
from opsmesh.router.auth import creds
from opsmesh.router.auth.creds import Creds
from opsmesh.router.auth.reads import REFUSED
from opsmesh.router.auth.tls import Tls
from opsmesh.router.errors import (
    AuthError,
    BadFile,
    BrokerSilent,
    BrokerUnavailable,
    CredentialsRefused,
    NotAcknowledged,
    PermissionDenied,
    Unreadable,
)
from opsmesh.router.hub import cluster
from opsmesh.router.joined import Joined
from opsmesh.router.roles import ROLES, Role
from opsmesh.router.settings import Settings

#: Seconds between attempts to reach a broker that is away.
RECONNECT_WAIT = 0.5
#: Seconds that a command line tries for while nobody takes its connection: a broker may just start.
CLI_TIMEOUT = 3.0
#: Seconds that one which has taken it has to let us in: on a busy machine it may have to wait for
#: its turn, and so may we.
LOGIN_TIMEOUT = 10.0
#: Seconds that a close waits for the broker to take what it has not been sent yet.
CLOSE_PATIENCE: Final = 1.0

#: What the server says of a publication that its permissions do not allow, and of credentials that
#: are not valid any more (nats-server 2.15, client.go); nats-py hands it on in lower case.
_REFUSED: Final = re.compile(r'permissions violation for publish to "([^"]+)"', re.I)
_UNAUTHORISED: Final = re.compile(r"authentication (revoked|expired)|authorization violation", re.I)
#: Subjects that were found to be allowed and are remembered; then it begins anew.
REMEMBERED = 10_000

#: What a broker's absence looks like to whoever asks it something.
AWAY: Final = (NatsError, OSError, TimeoutError, NotAcknowledged)
#: What ends a connection: nats-py reports the error first, and then the end.
_BREAKS: Final = (OSError, StaleConnectionError)

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the broker is, and as whom to connect."""

    url: str
    user: str | None = None
    password: str | None = None
    credentials: Path | None = None
    tls: Tls | None = None
    #: The first address is tried first: others are as good, but farther away.
    in_order: bool = False

    def options(self) -> dict[str, Any]:
        """The arguments of `nats.connect`; AuthError or BadFile when a file cannot be used."""
        options: dict[str, Any] = {"servers": self.url.split(","), "dont_randomize": self.in_order}
        if self.user:
            options |= {"user": self.user, "password": self.password}
        if self.tls:
            options["tls"] = self.tls.context()
        if self.credentials:
            options["user_credentials"] = str(self.credentials)
        return options

    def identity(self) -> Creds | None:
        """Who the credentials say we are, and what that may; None without any. BadFile when they
        cannot be read."""
        if self.credentials is None:
            return None
        try:
            return creds.read(self.credentials)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadFile(str(self.credentials), f"cannot be read: {reason}") from error


def endpoint(settings: Settings, *, role: Role) -> Endpoint:
    """The server that is set, the hub for a host that has none of its own, or the embedded one;
    BrokerUnavailable when there is none of them."""
    nats = settings.nats
    if nats.url:
        return Endpoint(
            url=nats.url,
            user=nats.user,
            password=nats.password,
            credentials=nats.credentials,
            tls=nats.tls.files() if nats.tls else None,
        )
    found = joined.read()
    if found is not None and found.hub.kind == "thin":
        return _at_hub(found, role)
    broker = server.known(Path(paths.state_dir()))
    if broker is None:
        raise BrokerUnavailable("", "")
    urls = [broker.url, *(cluster.urls(node) if (node := cluster.read()) is not None else ())]
    return Endpoint(
        url=",".join(urls),
        credentials=broker.credentials(role),
        tls=broker.auth.own_tls,
        in_order=True,
    )


def hub_endpoint(settings: Settings, *, role: Role) -> Endpoint | None:
    """The hub that this host has joined; None for a host that has joined none (and for a hub)."""
    found = None if settings.nats.url else joined.read()
    return None if found is None else _at_hub(found, role)


def leaf_endpoint(found: Joined) -> Endpoint:
    """The hub, as whom this leaf's own server connects."""
    return replace(_at_hub(found, "viewer"), credentials=found.file(joined.LEAF_CREDS))


def _at_hub(found: Joined, role: Role) -> Endpoint:
    """As that role, or the next stronger one that this host was given; the strongest it has, where
    that is less: the broker then says what it may not."""
    at = ROLES.index(role)
    asked = [*ROLES[at:], *reversed(ROLES[:at])]
    files = (found.file(f"{one}.creds") for one in asked)
    ca, certificate = found.file("ca.pem"), found.file("host.pem")
    return Endpoint(
        url=",".join(found.hub.urls),
        credentials=next((file for file in files if file is not None), None),
        tls=Tls(ca=ca, certificate=certificate) if ca or certificate else None,
    )


async def connect(
    where: Endpoint,
    *,
    name: str,
    patient: bool = True,
    changed: Callable[[], None] = lambda: None,
) -> Client:
    """A connection. A `patient` one waits for the broker and reconnects for ever (components);
    an impatient one (the command line) raises BrokerUnavailable after these times, and
    CredentialsRefused when the broker answers and does not let it in. `changed` is
    called when the broker goes or comes back, and when the connection has ended for good."""
    logging.getLogger("asyncio").addFilter(logs.without_tls_ends)  # once, however often
    if not structlog.is_configured():  # a command: its standard output is for its answer
        logs.configure(name, level="warning")
    identity, began = where.identity(), time.monotonic()
    client = _Client(identity, taken_within=None if patient else CLI_TIMEOUT)
    wire.install(client)
    known = where.options()
    quiet = _Quiet(name, client, where, known.get("tls"), speaks=patient, changed=changed)
    options: dict[str, Any] = {
        **known,
        **({"inbox_prefix": identity.inbox} if identity and identity.inbox else {}),
        "name": f"opsmesh-{name}",
        "allow_reconnect": patient,
        "max_reconnect_attempts": -1 if patient else 0,
        "reconnect_time_wait": RECONNECT_WAIT,
        "connect_timeout": CLI_TIMEOUT if patient else LOGIN_TIMEOUT,
        # nats-py would wait for ever, in a place that swallows cancellations
        "flush_timeout": wire.PATIENCE,
        "flusher_queue_size": 0,
        "error_cb": quiet.error,
        "disconnected_cb": quiet.disconnected,
        "reconnected_cb": quiet.reconnected,
        "closed_cb": quiet.closed,
    }
    try:
        if patient:
            await client.connect(**options)
        else:
            async with asyncio.timeout(CLI_TIMEOUT + LOGIN_TIMEOUT):
                await client.connect(**options)
    except (NatsError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        fault = where.tls.fault() if where.tls is not None else ""
        if fault:
            reason = f"{reason}; {fault}"
        if _UNAUTHORISED.search(reason):
            user = identity.name if identity is not None else where.user or ""
            raise CredentialsRefused(where.url, reason, user=user) from error
        if isinstance(error, TimeoutError) and not fault:
            raise BrokerSilent(where.url, round(time.monotonic() - began)) from error
        raise BrokerUnavailable(where.url, reason) from error
    quiet.connecting = False
    return client


class _Client(Client):
    """nats-py's client (2.16), which goes deaf no more: still connected, and hearing nothing, until
    its own pings notice after six minutes. And its close ends, whatever the broker does. What is
    not public here, test_connection guards.

    What its credentials do not allow is refused here, before it is sent: the broker would tell in a
    message that belongs to no request, and the asker would wait for its time-out.
    """

    def __init__(self, identity: Creds | None, *, taken_within: float | None = None) -> None:
        super().__init__()
        self.identity = identity
        self._taken_within = taken_within
        #: Subjects that the broker has refused, whatever the credentials say; in lower case.
        self.denied: set[str] = set()
        self._allowed: set[str] = set()
        self._gate = identity.gate if identity is not None else None

    def renew(self, identity: Creds | None) -> None:
        """Go by these credentials from now on; what was refused may be allowed since."""
        self.identity = identity
        self._gate = identity.gate if identity is not None else None
        self.denied.clear()
        self._allowed.clear()

    def check(self, subject: str) -> None:
        """PermissionDenied when this may not be published to."""
        if subject in self._allowed and not self.denied:
            return
        who = self.identity
        denied = subject.lower() in self.denied
        if denied or not (who is None or who.permissions.may_publish(subject)):
            raise PermissionDenied(subject, user=who.name if who else "")
        if len(self._allowed) >= REMEMBERED:
            self._allowed.clear()
        self._allowed.add(subject)

    def road(self, subject: str) -> str:
        """Where to publish what is meant for a subject: a handler of its profiles asks the agent
        for what others ask of JetStream (`router.gate`)."""
        if self._gate is None or not subject.startswith("$JS."):
            return subject
        return self._gate + subject.removeprefix("$JS.")

    async def publish(self, subject: str, *args: Any, **more: Any) -> None:
        subject = self.road(subject)
        self.check(subject)
        await super().publish(subject, *args, **more)

    async def request(self, subject: str, *args: Any, **more: Any) -> Msg:
        subject = self.road(subject)
        self.check(subject)
        send = functools.partial(super().request, subject, *args, **more)
        # a server that is alone leads, or has no JetStream; another domain's may be a cluster
        alone = not self._server_info.get("cluster") and subject.startswith("$JS.API.")
        # a command's only patience: components ask again by themselves
        impatient = self._taken_within is not None and not alone
        answer = await (leaderless.asked(subject, send) if impatient else send())
        if self._gate is not None and (what := (answer.headers or {}).get(REFUSED)):
            who, stored = self.identity, (answer.headers or {}).get("Nats-Time-Stamp", "")
            raise Unreadable(what, user=who.name if who else "", stored=stored)
        return answer

    async def subscribe(self, subject: str, *args: Any, **more: Any) -> Subscription:
        who = self.identity
        if who is not None and not who.permissions.may_subscribe(subject):
            raise PermissionDenied(subject, user=who.name, doing="subscribe to")
        return await super().subscribe(subject, *args, **more)

    async def _connect_to_server(self, s: Any) -> None:
        async with asyncio.timeout(self._taken_within):
            await super()._connect_to_server(s)

    async def _process_err(self, err_msg: str) -> None:
        if (refused := _REFUSED.search(err_msg)) is not None:
            self.denied.add(refused[1].lower())
        elif self.is_connected and _UNAUTHORISED.search(err_msg):
            # revoked, or expired: nats-py would give up for good, but the file may hold new ones
            await self._process_op_err(AuthorizationError())
            return
        await super()._process_err(err_msg)

    async def _close(self, *args: Any, **more: Any) -> None:
        # nats-py waits until all that was to be sent is: for ever, when the broker hangs
        reconnecting = self._reconnection_task
        if reconnecting is not None and reconnecting is not asyncio.current_task():
            await tasks.end([reconnecting])
        if not self.is_connected:
            # or for the end of a connection of which it hears no more: after half a TLS handshake
            wire.let_go(self)
            self._transport = None
        timer = asyncio.get_running_loop().call_later(CLOSE_PATIENCE, wire.let_go, self)
        try:
            await super()._close(*args, **more)
        finally:
            timer.cancel()

    async def _attempt_reconnect(self) -> None:
        wire.let_go(self)  # as above: a broker that hangs, or is cut off, takes nothing of it
        await super()._attempt_reconnect()

    async def _process_pong(self) -> None:
        # A PING whose wait was given up leaves a cancelled future behind; setting its result would
        # end the reading of the connection. The PONG is still the answer to that PING.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _read_loop(self) -> None:
        await super()._read_loop()
        current = asyncio.current_task()
        cancelled = current is not None and current.cancelling()  # the end of the process
        # otherwise ended by a mistake in what it called: nats-py tells nobody
        if self.is_connected and not cancelled:
            log.error("broker.reader_ended")
            await self._process_op_err(StaleConnectionError())


class _Quiet:
    """Callbacks of one connection that do not log the same thing over and over; and nothing at all
    on the command line: its errors are exceptions, and its output is a program's."""

    def __init__(
        self,
        name: str,
        client: _Client,
        where: Endpoint,
        tls: ssl.SSLContext | None,
        *,
        speaks: bool,
        changed: Callable[[], None],
    ) -> None:
        self._changed = changed
        self._client = client
        self._where = where
        self._tls = tls
        self._speaks = speaks
        self._log = log.bind(connection=name)
        self._throttle = logs.Throttle()
        self._began, self._refused = time.monotonic(), 0
        #: Until there was a first connection.
        self.connecting = True
        self._reason = ""
        self._said = False

    async def error(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if not self._speaks:
            self._refused += 1
            waited = time.monotonic() - self._began
            asked = self._refused >= len(self._client.servers)
            if self.connecting and asked and waited >= CLI_TIMEOUT:
                raise error  # nats-py would try until it is interrupted
            return
        if self._client.is_connected and isinstance(error, _BREAKS):
            self._reason = text  # `disconnected` comes next, and says it
        elif not self._client.is_connected:
            self._away("broker.unreachable", text)
        elif self._throttle.allows(text):
            self._log.warning("broker.error", error=text)

    async def disconnected(self) -> None:
        if self._where.tls is not None and self._tls is not None:
            with contextlib.suppress(AuthError):  # the ones before may do yet
                self._where.tls.renew(self._tls)
        # nats-py calls this for a close of our own, too
        if self._speaks and not self._client.is_closed:
            self._away("broker.disconnected", self._reason)
        self._changed()

    async def reconnected(self) -> None:
        self._reason = ""
        # nats-py reads the file of the credentials for each connection
        with contextlib.suppress(BadFile):
            self._client.renew(self._where.identity())
        if self._said:
            self._said = False
            self._log.info("broker.reconnected")
        self._changed()

    async def closed(self) -> None:
        self._changed()

    def _away(self, event: str, reason: str) -> None:
        if logs.away.allows(logs.BROKER):
            self._said = True
            self._log.warning(event, error=reason)
