"""The system bus: this user's sessions, their hints, and signals that can be believed.

`Lock` and `Unlock` are requests to lock programs, and prove nothing: they are not asked for
(org.freedesktop.login1(5)). The system bus lets anybody send a signal to us directly, past all
match rules: only what the owner of logind's name sends is believed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jeepney import DBusAddress, HeaderFields, MatchRule, Message, MessageType, new_method_call
from jeepney.bus import find_system_bus
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.wrappers import DBusErrorResponse, unwrap_msg

SERVICE: Final = "org.freedesktop.login1"
MANAGER: Final = "org.freedesktop.login1.Manager"
SESSION: Final = "org.freedesktop.login1.Session"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"
ROOT: Final = "/org/freedesktop/login1"
DBUS: Final = "org.freedesktop.DBus"

#: Seconds that the bus, or logind, may take to answer.
PATIENCE: Final = 5.0
#: What is asked of the bus; the kernel's and the daemon's queues hold it while the mesh is slow.
RULES: Final = (
    MatchRule(
        type="signal",
        sender=SERVICE,
        interface=PROPERTIES,
        member="PropertiesChanged",
        path_namespace=f"{ROOT}/session",
    ),
    MatchRule(type="signal", sender=SERVICE, interface=MANAGER, member="PrepareForSleep"),
    MatchRule(type="signal", sender=SERVICE, interface=MANAGER, member="SessionNew"),
    MatchRule(type="signal", sender=SERVICE, interface=MANAGER, member="SessionRemoved"),
    MatchRule(type="signal", sender=DBUS, interface=DBUS, member="NameOwnerChanged"),
)
RULES[-1].add_arg_condition(0, SERVICE)

#: Types of a session that a compositor has.
GRAPHICAL: Final = ("wayland", "x11", "mir")


class BusError(Exception):
    """The bus is away, or does not answer."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """One session of this user."""

    id: str
    path: str
    locked: bool
    graphical: bool
    seated: bool


@dataclass(frozen=True)
class Hint:
    """A session's LockedHint became another."""

    path: str
    locked: bool


@dataclass(frozen=True)
class Sleep:
    """The machine is about to sleep, or is back."""

    asleep: bool


@dataclass(frozen=True)
class Began:
    """A session began."""

    path: str


@dataclass(frozen=True)
class Ended:
    """A session is over."""

    id: str


@dataclass(frozen=True)
class Restarted:
    """There is a logind, and it is another one than before."""


Signal = Hint | Sleep | Began | Ended | Restarted


def socket_path() -> Path | None:
    """The bus's socket in the file system; None where it has another kind of address."""
    try:
        address = find_system_bus()
    except (RuntimeError, ValueError, KeyError, IndexError):
        return None
    return None if address.startswith("\0") else Path(address)


class Bus:
    """A connection to the system bus. BusError from everything once it is away."""

    def __init__(self) -> None:
        self._owner = ""
        self._signals: deque[Message] = deque()
        try:
            self._connection: DBusConnection = open_dbus_connection(bus="SYSTEM")
        except (OSError, RuntimeError, ValueError, KeyError, DBusErrorResponse) as error:
            raise BusError(f"no system bus: {error}") from error
        self._connection.filter(MatchRule(type="signal"), queue=self._signals)
        try:
            for rule in RULES:
                self._call(DBUS, "/org/freedesktop/DBus", DBUS, "AddMatch", "s", rule.serialise())
            self._find_owner()
        except BusError:
            self.close()
            raise

    def fileno(self) -> int:
        """For select: readable means that `signals` may have something."""
        return int(self._connection.sock.fileno())

    def close(self) -> None:
        """Leave the bus."""
        self._connection.close()

    @property
    def has_logind(self) -> bool:
        """Whether anybody has logind's name. It is not started for asking."""
        return bool(self._owner)

    def sessions(self) -> list[Session]:
        """This user's sessions now; BusError when logind does not answer."""
        (listed,) = self._call(SERVICE, ROOT, MANAGER, "ListSessions")
        found = (self.session(str(entry[4])) for entry in listed if entry[1] == os.getuid())
        return [session for session in found if session is not None]

    def session(self, path: str) -> Session | None:
        """The session at `path`; None when it is over, or is not one that this user works in."""
        try:
            (properties,) = self._call(SERVICE, path, PROPERTIES, "GetAll", "s", SESSION)
        except DBusErrorResponse:
            return None
        facts = {name: value for name, (_, value) in properties.items()}
        user, seat = facts.get("User") or (None,), facts.get("Seat") or ("",)
        # not a greeter, and not the manager of user units
        if user[0] != os.getuid() or not str(facts.get("Class", "user")).startswith("user"):
            return None
        return Session(
            id=str(facts.get("Id", "")),
            path=path,
            locked=facts.get("LockedHint") is True,
            graphical=facts.get("Type") in GRAPHICAL,
            seated=bool(seat[0]),
        )

    def preparing_for_sleep(self) -> bool:
        """Whether the machine is about to sleep."""
        (value,) = self._call(SERVICE, ROOT, PROPERTIES, "Get", "ss", MANAGER, "PreparingForSleep")
        return bool(value[1])

    def signals(self) -> Iterator[Signal]:
        """What has arrived, without waiting; BusError once nothing more can."""
        while True:
            while self._signals:
                signal = self._believed(self._signals.popleft())
                if signal is not None:
                    yield signal
            try:
                self._connection.recv_messages(timeout=0)
            except TimeoutError:
                return
            except (OSError, ValueError) as error:
                raise BusError(f"the system bus is away: {error}") from error

    def _believed(self, message: Message) -> Signal | None:
        fields, body = message.header.fields, message.body
        sender, member = fields.get(HeaderFields.sender), fields.get(HeaderFields.member)
        path = str(fields.get(HeaderFields.path))
        if sender == DBUS and member == "NameOwnerChanged" and body[0] == SERVICE:
            before, self._owner = self._owner, body[2]
            return Restarted() if self._owner and self._owner != before else None
        if not self._owner or sender != self._owner:
            return None
        match member, body:
            case "PropertiesChanged", (interface, dict(changed), _) if interface == SESSION:
                return _hint(path, changed)
            case "PrepareForSleep", (bool(asleep),):
                return Sleep(asleep)
            case "SessionNew", (_, str(new)):
                return Began(new)
            case "SessionRemoved", (str(id), _):
                return Ended(id)
        return None

    def _find_owner(self) -> None:
        try:
            (owner,) = self._call(DBUS, "/org/freedesktop/DBus", DBUS, "GetNameOwner", "s", SERVICE)
        except DBusErrorResponse:
            owner = ""
        self._owner = str(owner)

    def _call(
        self, service: str, path: str, interface: str, method: str, signature: str = "", *body: str
    ) -> tuple[Any, ...]:
        address = DBusAddress(path, bus_name=service, interface=interface)
        message = new_method_call(address, method, signature or None, body)
        try:
            answer = self._connection.send_and_get_reply(message, timeout=PATIENCE)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise BusError(f"{method} of {service}: {error or 'no answer'}") from error
        if answer.header.message_type is MessageType.error:
            raise DBusErrorResponse(answer)
        return tuple(unwrap_msg(answer))


def _hint(path: str, changed: Mapping[str, Any]) -> Hint | None:
    match changed.get("LockedHint"):
        case ("b", bool(locked)):
            return Hint(path, locked)
    return None
