"""The session bus, for asyncio: calls, and signals in the order in which they came.

Nothing here starts a bus, or waits for one: DesktopAway when there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog
from jeepney import (
    DBusAddress,
    HeaderFields,
    MatchRule,
    Message,
    MessageType,
    new_method_call,
)
from jeepney.io.asyncio import DBusConnection, open_dbus_connection

from opsmesh.handlers.errors import DesktopAway
from opsmesh.router import tasks

log = structlog.get_logger()

DBUS: Final = "org.freedesktop.DBus"
DBUS_PATH: Final = "/org/freedesktop/DBus"
#: Seconds that the bus, or a service on it, may take to answer.
PATIENCE: Final = 5.0


class BusRefusal(Exception):
    """A service answered with an error; `name` is that of D-Bus."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}" if text else name)
        self.name = name


def address() -> str | None:
    """The session bus's address: what the variable says, or the user's own bus of systemd."""
    if found := os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return found
    socket = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent", "bus")
    return f"unix:path={socket}" if socket.is_socket() else None


class SessionBus:
    """One connection; `heard` gets every signal, and `ended` is called when it breaks."""

    def __init__(
        self,
        connection: DBusConnection,
        heard: Callable[[Message], None],
        ended: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._heard = heard
        self._ended = ended
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls, heard: Callable[[Message], None], ended: Callable[[], None]
    ) -> SessionBus:
        """Join the bus; DesktopAway when that cannot be."""
        where = address()
        if where is None:
            raise DesktopAway("there is no session bus", retryable=False)
        try:
            async with asyncio.timeout(PATIENCE):
                return cls(await open_dbus_connection(where), heard, ended)
        # jeepney raises RuntimeError and ValueError for an address it cannot read
        except (OSError, EOFError, RuntimeError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise DesktopAway(f"the session bus cannot be reached: {reason}") from error

    async def call(
        self, service: str, path: str, member: str, signature: str = "", *body: Any
    ) -> Message:
        """Call `interface.member`; the answer. BusRefusal, or DesktopAway when none comes."""
        interface, _, method = member.rpartition(".")
        where = DBusAddress(path, bus_name=service, interface=interface)
        message = new_method_call(where, method, signature or None, body)
        serial = next(self._connection.outgoing_serial)
        answer = self._answers[serial] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._connection.send(message, serial=serial)
                reply = await answer
        except TimeoutError as error:
            raise DesktopAway(f"no reply from {service} within {PATIENCE:g} s") from error
        except OSError as error:
            raise DesktopAway(f"the session bus is away: {error}") from error
        finally:
            self._answers.pop(serial, None)
        if reply.header.message_type is MessageType.error:
            text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
            raise BusRefusal(str(reply.header.fields.get(HeaderFields.error_name)), text)
        return reply

    async def listen(self, rule: MatchRule) -> None:
        """Have the bus send what the rule matches."""
        await self.call(DBUS, DBUS_PATH, f"{DBUS}.AddMatch", "s", rule.serialise())

    async def aclose(self) -> None:
        """Leave the bus."""
        await tasks.end([self._reading])
        with contextlib.suppress(OSError):
            await self._connection.close()

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self._connection.receive())
        except Exception as error:  # what cannot be read any more is over, whatever it is
            log.info("desktop.bus_left", reason=str(error) or type(error).__name__)
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("it broke the connection"))
            self._ended()

    def _take(self, message: Message) -> None:
        header = message.header
        if header.message_type is MessageType.signal:
            self._heard(message)
            return
        if header.message_type is MessageType.method_call:
            # We offer nothing. A caller that waits gets the bus's own time-out.
            return
        answer = self._answers.get(header.fields.get(HeaderFields.reply_serial, 0))
        if answer is not None and not answer.done():
            answer.set_result(message)


def sender(message: Message) -> str:
    """The unique name of who sent it, as the bus itself wrote it."""
    return str(message.header.fields.get(HeaderFields.sender, ""))


def member(message: Message) -> str:
    """The name of a signal."""
    return str(message.header.fields.get(HeaderFields.member, ""))
