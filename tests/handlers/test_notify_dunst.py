"""The action `notify` with a real notification daemon: dunst, on a virtual screen."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import eventually, run
from tests.handlers import session_bus
from tests.handlers.mesh import mesh
from tests.handlers.session_bus import Desktop, until
from tests.handlers.test_notify_buttons import ASKS

from opsmesh.router.server import EmbeddedServer

pytestmark = pytest.mark.slow

#: dunst tells a script what it shows, and asks a program of ours which button a person chooses.
CONFIG = """
[global]
    follow = none
    dmenu = "/usr/bin/grep Approve"
[question]
    appname = opsmesh
    summary = "Restart*"
    script = {script}
"""


@contextmanager
def dunst(folder: Path, desktop: Desktop, script: Path) -> Iterator[None]:
    """dunst on a screen that nobody sees; `script` is told of questions."""
    for tool in ("dunst", "dunstctl", "Xvfb"):
        if shutil.which(tool) is None:
            assert not os.environ.get("CI"), f"{tool} must be there in CI"
            pytest.skip(f"{tool} is not installed")
    config = folder / "dunstrc"
    config.write_text(CONFIG.format(script=script))
    read, write = os.pipe()
    screen = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as said:
        number = said.readline().strip()
    environment = {
        **os.environ,
        "DISPLAY": f":{number}",
        "DBUS_SESSION_BUS_ADDRESS": desktop.address,
    }
    shown = subprocess.Popen(["dunst", "-config", str(config)], env=environment)
    try:
        until(desktop.owner)
        yield
    finally:
        for process in (shown, screen):
            process.terminate()
            process.wait(60)


def test_dunst(nats_server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dunst shows a question; its own menu of buttons approves it, and the step is run."""
    session_bus.required(daemon=False)
    out = home / "shown"
    script = home / "tell"
    script.write_text(f'#!/bin/sh\necho "$1|$2|$3|$5" >>{out}\n')
    script.chmod(0o700)

    async def body() -> None:
        async with mesh(ASKS.format(approve="expires: 10m")) as m:
            await m.publish()
            await eventually(out.exists)
            await asyncio.to_thread(subprocess.run, ["dunstctl", "context"], check=True)
            [told] = await m.wait("automation.approval.granted")
            assert told.payload["via"] == "notification"
            await m.wait("automation.run.succeeded")

    with session_bus.running(home) as desktop, dunst(home, desktop, script):
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", desktop.address)
        run(body())
    assert out.read_text().startswith("opsmesh|Restart backup.service?|restart, step restart")
