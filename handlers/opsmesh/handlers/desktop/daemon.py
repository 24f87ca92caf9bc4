"""The notification daemon, org.freedesktop.Notifications 1.2 on the session bus.

Anybody on the bus may send a signal that looks like the daemon's: only what the owner of its name
sends is believed. The ids that it gives are worth nothing to its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jeepney import MatchRule, Message

from opsmesh.handlers.desktop.bus import DBUS, DBUS_PATH, BusRefusal, SessionBus, member, sender
from opsmesh.handlers.errors import DesktopAway

SERVICE: Final = "org.freedesktop.Notifications"
PATH: Final = "/org/freedesktop/Notifications"
APP: Final = "opsmesh"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"

#: Urgency as the daemon has it.
URGENCY: Final = {"low": 0, "normal": 1, "critical": 2}
#: What the bus says when nobody has the name, and nobody can be started for it.
_NOBODY: Final = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Spawn",
)
#: Daemons that tell buttons only to the connection that asked, and take its notifications away with
#: it (gnome-shell, js/dbusServices/notifications/notificationDaemon.js). Others tell everybody.
SENDER_BOUND: Final = ("gnome-shell",)
#: Why a notification was closed: its time was over.
_EXPIRED: Final = 1
#: Where daemons say that they are told not to disturb: the name of the daemon, then service, path
#: and property. The first one is Plasma's, and may become the specification's.
_INHIBITED: Final = (
    ("", SERVICE, PATH, SERVICE, "Inhibited"),
    ("dunst", SERVICE, PATH, "org.dunstproject.cmd0", "paused"),
)


@dataclass(frozen=True)
class Pressed:
    """A button of a notification."""

    id: int
    key: str


@dataclass(frozen=True)
class Closed:
    """A notification is gone; `expired`: by itself."""

    id: int
    expired: bool = False


@dataclass(frozen=True)
class Changed:
    """Another daemon has the name now; "": nobody has."""

    owner: str


Signal = Pressed | Closed | Changed


@dataclass(frozen=True, kw_only=True)
class About:
    """Which daemon it is, and what it can."""

    name: str
    version: str
    capabilities: frozenset[str]

    @property
    def sender_bound(self) -> bool:
        """Whether its buttons die with the connection that asked for them."""
        return self.name.casefold() in SENDER_BOUND


class Daemon:
    """The daemon that there is; `tell` hears what it says, synchronously and in order."""

    def __init__(self, tell: Callable[[Signal], None]) -> None:
        self._tell = tell
        self._bus: SessionBus | None = None
        self._joining = asyncio.Lock()
        self._about: About | None = None
        #: Interfaces that do not tell whether it is inhibited.
        self._mute: set[str] = set()
        self.owner = ""
        #: Which bus it is: ids of another one mean nothing.
        self.bus_id = ""

    async def join(self) -> None:
        """Connect, unless that is done; DesktopAway."""
        async with self._joining:
            if self._bus is not None:
                return
            bus = await SessionBus.connect(self._heard, self._ended)
            try:
                await bus.listen(MatchRule(type="signal", sender=SERVICE, interface=SERVICE))
                changes = MatchRule(type="signal", sender=DBUS, member="NameOwnerChanged")
                changes.add_arg_condition(0, SERVICE)
                await bus.listen(changes)
                [self.bus_id] = (await bus.call(DBUS, DBUS_PATH, f"{DBUS}.GetId")).body
                self.owner = await _owner(bus)
            except (BusRefusal, DesktopAway) as error:
                await bus.aclose()
                raise DesktopAway(f"the session bus refuses us: {error}") from error
            self._bus = bus

    async def about(self) -> About:
        """What is known of the daemon; one that can be started by asking is. DesktopAway."""
        if self._about is None:
            can = (await self._call("GetCapabilities")).body
            who = (await self._call("GetServerInformation")).body
            match can, who:
                case ([*capabilities],), (str(name), _, str(version), _):
                    about = About(name=name, version=version, capabilities=frozenset(capabilities))
                case _:
                    raise DesktopAway("the notification daemon does not say what it is")
            self._about, self._mute = about, set()
        return self._about

    async def show(
        self,
        title: str,
        body: str,
        *,
        replaces: int = 0,
        icon: str = "",
        actions: Sequence[tuple[str, str]] = (),
        urgency: str = "normal",
        resident: bool = False,
        timeout_ms: int = -1,
    ) -> int:
        """Show a notification; its id. DesktopAway."""
        hints: dict[str, tuple[str, Any]] = {"urgency": ("y", URGENCY[urgency])}
        if resident:  # it stays when a button is pressed
            hints["resident"] = ("b", True)
        pairs = [part for action in actions for part in action]
        reply = await self._call(
            *("Notify", "susssasa{sv}i"),
            *(APP, replaces, icon, title, body, pairs, hints, timeout_ms),
        )
        match reply.body:
            case (int(id),):
                self.owner = sender(reply)
                return id
        raise DesktopAway("the notification daemon gives no id")

    async def close(self, id: int) -> None:
        """Take a notification away; one that is gone is gone."""
        await self._call("CloseNotification", "u", id)

    async def inhibited(self) -> bool:
        """Whether the daemon says that it is told not to disturb; False where it cannot say so."""
        about = await self.about()
        for name, service, path, interface, prop in _INHIBITED:
            if (name and about.name.casefold() != name) or interface in self._mute:
                continue
            try:
                reply = await self._call_at(
                    service, path, f"{PROPERTIES}.Get", "ss", interface, prop
                )
            except (BusRefusal, DesktopAway):
                self._mute.add(interface)  # it is not asked again for every notice
                continue
            match reply.body:
                case (("b", bool(value)),):
                    return value
        return False

    async def aclose(self) -> None:
        """Leave the bus; what is shown stays."""
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.aclose()

    async def _call(self, method: str, signature: str = "", *body: Any) -> Message:
        try:
            return await self._call_at(SERVICE, PATH, f"{SERVICE}.{method}", signature, *body)
        except BusRefusal as refusal:
            if refusal.name.startswith(_NOBODY):
                raise DesktopAway("no notification daemon is there") from refusal
            raise DesktopAway(f"the notification daemon refuses: {refusal}") from refusal

    async def _call_at(self, service: str, path: str, member: str, *body: Any) -> Message:
        await self.join()
        if self._bus is None:
            raise DesktopAway("the session bus is away")
        return await self._bus.call(service, path, member, *body)

    def _heard(self, message: Message) -> None:
        by, name, body = sender(message), member(message), message.body
        if by == DBUS and name == "NameOwnerChanged" and body[0] == SERVICE:
            if body[2] != self.owner:
                self.owner, self._about = str(body[2]), None
                self._tell(Changed(self.owner))
            return
        if not self.owner or by != self.owner:
            return
        match name, body:
            case "ActionInvoked", (int(id), str(key)):
                self._tell(Pressed(id, key))
            case "NotificationClosed", (int(id), int(reason)):
                self._tell(Closed(id, expired=reason == _EXPIRED))

    def _ended(self) -> None:
        self._bus, self._about, self.owner = None, None, ""
        self._tell(Changed(""))


async def _owner(bus: SessionBus) -> str:
    try:
        reply = await bus.call(DBUS, DBUS_PATH, f"{DBUS}.GetNameOwner", "s", SERVICE)
    except BusRefusal:
        return ""
    return str(reply.body[0])
