"""A private session bus: a real dbus-daemon, and python3-dbusmock standing in for the notification
daemon (its own template `notification_daemon`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import DBusErrorResponse, unwrap_msg
from tests.conftest import PATIENCE
from tests.conftest import until as until

#: The interpreter that Debian's python3-dbusmock belongs to.
PYTHON = "/usr/bin/python3"
SERVICE = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"
MOCK = "org.freedesktop.DBus.Mock"
BUS = ("/org/freedesktop/DBus", "org.freedesktop.DBus")
#: What most desktops can.
CAPABILITIES = "body body-markup actions persistence"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One notification as the daemon got it."""

    replaces: int
    icon: str
    title: str
    body: str
    actions: list[str]
    urgency: int
    resident: bool
    timeout_ms: int


def required(*, daemon: bool = True) -> None:
    """Skip when something is missing; in CI that is a failure."""
    missing = "dbus-daemon (Debian: dbus)" if shutil.which("dbus-daemon") is None else ""
    if not missing and daemon:
        asked = [PYTHON, "-c", "import dbusmock, dbus, gi"]
        if subprocess.run(asked, capture_output=True, check=False).returncode:
            missing = "python3-dbusmock"
    if missing:
        assert not os.environ.get("CI"), f"{missing} must be there in CI"
        pytest.skip(f"{missing} is not installed")


class Desktop:
    """The bus at `address`, with a notification daemon or without."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:path={folder / 'bus'}"
        command = ["dbus-daemon", "--session", f"--address={self.address}", "--nofork"]
        self._bus = subprocess.Popen(
            [*command, "--nopidfile"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self._daemon: subprocess.Popen[bytes] | None = None
        until(self._answers)

    def start_daemon(self, capabilities: str = CAPABILITIES) -> None:
        """A notification daemon that shows nothing and remembers everything."""
        parameters = json.dumps({"capabilities": capabilities})
        command = [PYTHON, "-m", "dbusmock", "--session", "--template", "notification_daemon"]
        self._daemon = subprocess.Popen(
            [*command, "--parameters", parameters],
            env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": self.address},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self.owner)

    def stop_daemon(self) -> None:
        """It dies."""
        _end(self._daemon)
        self._daemon = None
        until(lambda: not self.owner())

    def stop(self) -> None:
        """The bus dies, and everything on it."""
        _end(self._bus)
        _end(self._daemon)

    def owner(self) -> bool:
        """Whether there is a daemon."""
        return bool(self.call(BUS[0], BUS[1], "NameHasOwner", "s", SERVICE, to=BUS[1]))

    def seen(self) -> list[Seen]:
        """Every notification since the last `forget`."""
        found = []
        for _, name, arguments in self.call(PATH, MOCK, "GetCalls"):
            if name != "Notify":
                continue
            _, replaces, icon, title, body, actions, hints, timeout = [one[1] for one in arguments]
            found.append(
                Seen(
                    replaces=replaces,
                    icon=icon,
                    title=title,
                    body=body,
                    actions=actions,
                    urgency=hints["urgency"][1],
                    resident=hints.get("resident", ("b", False))[1],
                    timeout_ms=timeout,
                )
            )
        return found

    def closed(self) -> list[int]:
        """The ids that were asked to go."""
        calls = self.call(PATH, MOCK, "GetCalls")
        return [arguments[0][1] for _, name, arguments in calls if name == "CloseNotification"]

    def forget(self) -> None:
        """Begin anew, with the ids too."""
        self.call(PATH, MOCK, "ClearCalls")

    def press(self, id: int, key: str) -> None:
        """A person presses a button."""
        self._emit("ActionInvoked", "us", ("u", id), ("s", key))

    def dismiss(self, id: int) -> None:
        """A person waves a notification away."""
        self._emit("NotificationClosed", "uu", ("u", id), ("u", 2))

    def expire(self, id: int) -> None:
        """A notification's time is over."""
        self._emit("NotificationClosed", "uu", ("u", id), ("u", 1))

    def forge(self, id: int, key: str) -> None:
        """A stranger on the bus says that a button was pressed."""
        from jeepney import new_signal

        with open_dbus_connection(self.address, auth_timeout=PATIENCE) as connection:
            where = DBusAddress(PATH, interface=SERVICE)
            connection.send(new_signal(where, "ActionInvoked", "us", (id, key)))
            # the bus has it when it has answered what came after it
            unwrap_msg(connection.send_and_get_reply(_call(*BUS, "GetId", to=BUS[1]), timeout=60))

    def call(
        self,
        path: str,
        interface: str,
        method: str,
        signature: str | None = None,
        *body: Any,
        to: str = SERVICE,
    ) -> Any:
        """One call; its only answer, or None."""
        with open_dbus_connection(self.address, auth_timeout=PATIENCE) as connection:
            message = _call(path, interface, method, signature, *body, to=to)
            answer = unwrap_msg(connection.send_and_get_reply(message, timeout=60))
        return answer[0] if answer else None

    def _emit(self, name: str, signature: str, *arguments: tuple[str, Any]) -> None:
        self.call(PATH, MOCK, "EmitSignal", "sssav", SERVICE, name, signature, list(arguments))

    def _answers(self) -> bool:
        try:
            with open_dbus_connection(self.address, auth_timeout=PATIENCE):
                return True
        except (OSError, DBusErrorResponse):
            return False


def _call(
    path: str, interface: str, method: str, signature: str | None = None, *body: Any, to: str
) -> Any:
    address = DBusAddress(path, bus_name=to, interface=interface)
    return new_method_call(address, method, signature, body)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait(60)


@contextmanager
def running(folder: Path) -> Iterator[Desktop]:
    """A bus without a daemon."""
    desktop = Desktop(folder)
    try:
        yield desktop
    finally:
        desktop.stop()
