"""What `opsmesh doctor` says of the desktop: a real bus, a stand-in for the notification daemon."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.handlers import session_bus

from opsmesh.cli.doctor.desktop import desktop


def test_the_desktop(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a desktop nothing is wrong; the daemon that there is is named, with what it can."""
    found = desktop()
    assert (found.ok, found.detail) == (None, "there is no session bus")
    session_bus.required()
    with session_bus.running(home) as bus:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus.address)
        assert (desktop().ok, desktop().detail) == (None, "no notification daemon runs")
        bus.start_daemon()
        assert (desktop().ok, desktop().detail) == (True, "mock-notify 1.0, with buttons")
        bus.stop_daemon()
        bus.start_daemon("body")
        assert desktop().detail == "mock-notify 1.0, without buttons"
    found = desktop()
    assert (found.ok, "cannot be reached" in found.detail) == (False, True)
