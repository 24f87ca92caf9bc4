"""A private system bus: a real dbus-daemon, and python3-dbusmock standing in for logind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import DBusErrorResponse, unwrap_msg
from tests.conftest import PATIENCE
from tests.producers.agent import until

CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/><allow user="*"/><allow send_destination="*"/><allow receive_sender="*"/>
    <allow send_type="signal"/>
  </policy>
</busconfig>
"""

#: The interpreter that Debian's python3-dbusmock belongs to.
PYTHON = "/usr/bin/python3"
ROOT = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
BUS = ("/org/freedesktop/DBus", "org.freedesktop.DBus")
MOCK = "org.freedesktop.DBus.Mock"


def missing() -> str | None:
    """What is not here of what the tests need."""
    if shutil.which("dbus-daemon") is None:
        return "dbus-daemon (Debian: dbus)"
    asked = subprocess.run(
        [PYTHON, "-c", "import dbusmock, dbus, gi"], capture_output=True, check=False
    )
    return "python3-dbusmock" if asked.returncode else None


def required() -> None:
    """Skip when something is missing; in CI that is a failure."""
    if reason := missing():
        assert not os.environ.get("CI"), f"{reason} must be there in CI"
        pytest.skip(f"{reason} is not installed")


class SystemBus:
    """The bus at `address`, and a logind on it."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "bus"
        self._config = folder / "bus.conf"
        self._config.write_text(CONFIG.format(socket=self._socket))
        self.address = f"unix:path={self._socket}"
        self._bus: subprocess.Popen[bytes] | None = None
        self._logind: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """A bus that answers, and a logind with this user's session c1."""
        command = ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--nopidfile"]
        self._bus = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(self._answers)
        self.start_logind()

    def start_logind(self, *, locked: bool = False) -> None:
        """A logind; its session is there before it has its name, as after a real restart, or comes
        with a signal."""
        command = [PYTHON, "-m", "dbusmock", "--system", "--template", "logind"]
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.address}
        self._logind = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        until(self.has_logind)
        self.add_session("c1", locked=locked)

    def stop_logind(self) -> None:
        """logind dies."""
        _end(self._logind)
        self._logind = None

    def stop(self) -> None:
        """The bus dies, and logind with it."""
        _end(self._bus)
        self._bus = None
        self.stop_logind()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """The bus takes nothing and says nothing, and then goes on."""
        assert self._bus is not None
        self._bus.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._bus.send_signal(signal.SIGCONT)

    def add_session(self, id: str, *, uid: int | None = None, locked: bool = False) -> None:
        """A new session, of this user unless told."""
        user = os.getuid() if uid is None else uid
        path = self.call(ROOT, MOCK, "AddSession", "ssusb", id, "seat0", user, "someone", True)
        if locked:
            self.hint(id, locked=True)
        self.emit("SessionNew", "so", ("s", id), ("o", path))

    def end_session(self, id: str) -> None:
        """A session ends."""
        self.call(ROOT, MOCK, "RemoveObject", "s", f"{ROOT}/session/{id}")
        self.emit("SessionRemoved", "so", ("s", id), ("o", f"{ROOT}/session/{id}"))

    def hint(self, id: str, *, locked: bool) -> None:
        """What a lock program says to logind."""
        interface = "org.freedesktop.login1.Session"
        self.call(f"{ROOT}/session/{id}", interface, "SetLockedHint", "b", locked)

    def request(self, id: str, what: str) -> None:
        """`loginctl lock-session`: a request, not a lock."""
        self.call(f"{ROOT}/session/{id}", "org.freedesktop.login1.Session", what)

    def prepare_for_sleep(self, asleep: bool) -> None:
        """The machine is about to sleep, or is back."""
        self.emit("PrepareForSleep", "b", ("b", asleep))

    def emit(self, name: str, signature: str, *arguments: tuple[str, Any]) -> None:
        """A signal of logind's manager."""
        self.call(ROOT, MOCK, "EmitSignal", "sssav", MANAGER, name, signature, list(arguments))

    def has_logind(self) -> bool:
        """Whether somebody has logind's name."""
        return bool(self.call(*BUS, "NameHasOwner", "s", "org.freedesktop.login1", to=BUS[1]))

    def name_of(self, pid: int) -> str:
        """The unique name of the process's connection."""
        for name in self.call(*BUS, "ListNames", to=BUS[1]):
            with suppress(DBusErrorResponse):  # one that asks goes at once
                if self.call(*BUS, "GetConnectionUnixProcessID", "s", name, to=BUS[1]) == pid:
                    return str(name)
        raise AssertionError(f"process {pid} is not on the bus")

    def call(
        self,
        path: str,
        interface: str,
        method: str,
        signature: str | None = None,
        *body: Any,
        to: str = "org.freedesktop.login1",
    ) -> Any:
        """One call; its only answer, or None."""
        address = DBusAddress(path, bus_name=to, interface=interface)
        with open_dbus_connection(self.address, auth_timeout=PATIENCE) as connection:
            message = new_method_call(address, method, signature, body)
            answer = unwrap_msg(connection.send_and_get_reply(message, timeout=60))
        return answer[0] if answer else None

    def _answers(self) -> bool:
        try:
            with open_dbus_connection(self.address, auth_timeout=PATIENCE):
                return True
        except (OSError, DBusErrorResponse):
            return False


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait(60)


@contextmanager
def running(folder: Path) -> Iterator[SystemBus]:
    """A bus with a logind."""
    bus = SystemBus(folder)
    try:
        bus.start()
        yield bus
    finally:
        bus.stop()
