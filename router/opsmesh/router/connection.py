"""Connections to the broker: where it is, who we are, and quiet reconnects.

A broker that is away is said when it goes, once a minute, and when it is back, not once an attempt
(`logs.away`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import StaleConnectionError

from opsmesh.router import logs, paths, server, wire
from opsmesh.router.errors import BrokerUnavailable, NotAcknowledged
from opsmesh.router.settings import Settings

#: Seconds between attempts to reach a broker that is away.
RECONNECT_WAIT = 0.5
#: Seconds that a command line waits for its first connection.
CLI_TIMEOUT = 3.0

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

    def options(self) -> dict[str, Any]:
        """The arguments of `nats.connect`."""
        options: dict[str, Any] = {"servers": self.url.split(",")}
        if self.user:
            options |= {"user": self.user, "password": self.password}
        if self.credentials:
            options["user_credentials"] = str(self.credentials)
        return options


def endpoint(settings: Settings) -> Endpoint:
    """The server that is set, or the embedded one; BrokerUnavailable when there is neither."""
    if settings.nats.url:
        return Endpoint(
            url=settings.nats.url,
            user=settings.nats.user,
            password=settings.nats.password,
            credentials=settings.nats.credentials,
        )
    broker = server.known(Path(paths.state_dir()))
    if broker is None:
        raise BrokerUnavailable("", "")
    return Endpoint(url=broker.url, user=broker.user, password=broker.password)


async def connect(
    where: Endpoint,
    *,
    name: str,
    patient: bool = True,
    changed: Callable[[], None] = lambda: None,
) -> Client:
    """A connection. A `patient` one waits for the broker and reconnects for ever (components);
    an impatient one raises BrokerUnavailable after CLI_TIMEOUT (the command line). `changed` is
    called when the broker goes or comes back, and when the connection has ended for good."""
    client = _Client()
    wire.install(client)
    quiet = _Quiet(name, client, speaks=patient, changed=changed)
    options: dict[str, Any] = {
        **where.options(),
        "name": f"opsmesh-{name}",
        "allow_reconnect": patient,
        "max_reconnect_attempts": -1 if patient else 0,
        "reconnect_time_wait": RECONNECT_WAIT,
        "connect_timeout": CLI_TIMEOUT,
        "error_cb": quiet.error,
        "disconnected_cb": quiet.disconnected,
        "reconnected_cb": quiet.reconnected,
        "closed_cb": quiet.closed,
    }
    try:
        if patient:
            await client.connect(**options)
        else:
            async with asyncio.timeout(CLI_TIMEOUT + 1):
                await client.connect(**options)
    except (NatsError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(where.url, str(error) or type(error).__name__) from error
    return client


class _Client(Client):
    """nats-py's client (2.16), which goes deaf no more: still connected, and hearing nothing, until
    its own pings notice after six minutes. What is not public here, test_connection guards."""

    async def _process_pong(self) -> None:
        # A PING whose wait was given up leaves a cancelled future behind; setting its result would
        # end the reading of the connection. The PONG is still the answer to that PING.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _read_loop(self) -> None:
        await super()._read_loop()
        if self.is_connected:  # ended by a mistake in what it called: nats-py tells nobody
            log.error("broker.reader_ended")
            await self._process_op_err(StaleConnectionError())


class _Quiet:
    """Callbacks of one connection that do not log the same thing over and over; and nothing at all
    on the command line: its errors are exceptions, and its output is a program's."""

    def __init__(
        self, name: str, client: Client, *, speaks: bool, changed: Callable[[], None]
    ) -> None:
        self._changed = changed
        self._client = client
        self._speaks = speaks
        self._log = log.bind(connection=name)
        self._throttle = logs.Throttle()
        self._reason = ""
        self._said = False

    async def error(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if not self._speaks:
            return
        if self._client.is_connected and isinstance(error, _BREAKS):
            self._reason = text  # `disconnected` comes next, and says it
        elif not self._client.is_connected:
            self._away("broker.unreachable", text)
        elif self._throttle.allows(text):
            self._log.warning("broker.error", error=text)

    async def disconnected(self) -> None:
        # nats-py calls this for a close of our own, too
        if self._speaks and not self._client.is_closed:
            self._away("broker.disconnected", self._reason)
        self._changed()

    async def reconnected(self) -> None:
        self._reason = ""
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
