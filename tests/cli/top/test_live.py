"""`opsmesh top` over a real broker, with handlers that run; in a real terminal; in a flood."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("textual", reason="textual is not installed: make extras")

from tests.cli.top.seen import SIZE, asks, event, screen, shows
from tests.conftest import eventually, mesh_client, run, until
from tests.handlers.mesh import Mesh, mesh, write_profiles
from textual.pilot import Pilot

from opsmesh.cli.top.app import Top
from opsmesh.cli.top.doing import Doing, NotDone
from opsmesh.cli.view.follower import Follower
from opsmesh.cli.view.model import View
from opsmesh.router import deadletter, user
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.schemas.envelope import encode, subject

TEXT = """
profiles:
  restart:
    on: service.start.failed
    actions:
      - {id: ask, approve: {prompt: "Restart it?", expires: 1h, otherwise: skip}}
      - command: [echo, "${{ steps.ask.approval.verdict }}"]
  broken:
    on: deploy.requested
    retry: {attempts: 1}
    actions:
      - command: [no-such-command-of-ours]
"""


@asynccontextmanager
async def top(start: str = "events") -> AsyncIterator[Pilot[None]]:
    """`opsmesh top`, without its terminal."""
    settings, view = Settings(), View()
    follower = Follower(view, settings)
    app = Top(
        view,
        Doing(settings, lambda: follower.client),
        follow=follower.run,
        look=follower.look,
        start=start,
    )
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        yield pilot


def test_done_by_hand(nats_server: EmbeddedServer) -> None:
    """An answer, and a dead letter given up, are on record as by their commands."""

    async def body(m: Mesh) -> None:
        await m.publish()
        await m.publish("deploy.requested", payload={"target": "x"})
        async with top("approvals") as pilot:
            await shows(pilot, "Restart it?")
            await pilot.press("y")
            await asks(pilot)
            await pilot.press(*"go on", "enter")
            [granted] = await m.wait("automation.approval.granted")
            assert granted.payload["by"] == user.name()
            assert (granted.payload["via"], granted.payload["comment"]) == ("top", "go on")
            await shows(pilot, "nothing waits for an approval")
            await pilot.press("4")
            await shows(pilot, "command 'no-such")
            await pilot.press("enter")
            await shows(pilot, "dlq · 1 of broken")
            await pilot.press("ctrl+d")
            await shows(pilot, '"target": "x"')  # its event was fetched
            await pilot.press("d")
            await asks(pilot)
            await pilot.press(*"gone", "enter")
            [dropped] = await m.wait("automation.deadletter.dropped")
            assert dropped.payload["reason"] == "gone"
            await shows(pilot, "no dead letters")

    async def meshed() -> None:
        async with mesh(TEXT) as m:
            await body(m)

    run(meshed())


def test_a_broker_that_goes_and_comes(nats_server: EmbeddedServer) -> None:
    """A broker that is killed is said to be away; what happens once it is back is shown."""

    async def body() -> None:
        async with mesh_client() as client, top() as pilot:
            await shows(pilot, "no events yet")
            before = client.stats["reconnects"]
            await asyncio.to_thread(nats_server.kill)
            await shows(pilot, "the broker is away")
            await asyncio.to_thread(nats_server.start)
            await eventually(lambda: client.is_connected and client.stats["reconnects"] > before)
            one = event("deploy.requested", payload={"target": "back"})
            await client.jetstream().publish(subject("desk", one.topic), encode(one))
            await shows(pilot, "target=back")
            assert "away" not in screen(pilot)

    run(body())


def test_a_profile_that_nobody_decides(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile without handlers stands out, and Enter tells what mends it."""
    broker = nats_server.broker  # without a supervisor, only a server that is named is looked at
    monkeypatch.setenv("OPSMESH_NATS_URL", broker.url)
    monkeypatch.setenv("OPSMESH_NATS__CREDENTIALS", str(broker.credentials("admin")))

    async def body() -> None:
        write_profiles(TEXT)
        async with mesh_client(), top("profiles") as pilot:
            await shows(pilot, "nobody decides")
            await pilot.press("enter")
            await shows(pilot, "mend it      opsmesh up --detach")

    run(body())


def test_what_is_refused(nats_server: EmbeddedServer, home: Path) -> None:
    """A letter whose profile is gone stays, with what to do; so does any while a file is broken,
    and while there is no broker."""

    async def body() -> None:
        settings = Settings()
        async with mesh_client() as client:
            seq = await deadletter.write(
                client,
                profile="gone",
                host="desk",
                topic="deploy.requested",
                data=encode(event("deploy.requested")),
                reason="it failed",
                msg_id="1",
            )
            doing = Doing(settings, lambda: client)
            with pytest.raises(NotDone, match=r"no profile 'gone' is in force\n.*dlq drop"):
                await doing.settle([seq], "retry")
            write_profiles("profiles: [")
            with pytest.raises(NotDone, match=r"profiles are broken(.|\n)*profile validate"):
                await doing.settle([seq], "retry")
            with pytest.raises(NotDone, match="no approval"):
                await doing.answer("01a21f7d", "granted")
            with pytest.raises(NotDone, match="the broker is away"):
                await Doing(settings, lambda: None).settle([seq], "drop")
            assert await doing.settle([seq], "drop") == f"dropped: {seq}"
            assert (await doing.settle([seq], "drop")).startswith("gone already")

    run(body())


class Terminal:
    """A real terminal of 80×24: tmux' own."""

    def __init__(self, folder: Path) -> None:
        self._socket = str(folder / "tmux")

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-f", "/dev/null", "-S", self._socket, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def start(self, *command: str) -> None:
        self.tmux("new-session", "-d", "-x", "80", "-y", "24", "--", *command)

    def screen(self) -> list[str]:
        return self.tmux("capture-pane", "-p").splitlines()

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def shows(self, text: str) -> None:
        try:
            until(lambda: any(text in line for line in self.screen()))
        except AssertionError as error:  # what was there instead
            raise AssertionError("\n".join([text, *self.screen()])) from error


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        if os.environ.get("CI"):
            pytest.fail("tmux is missing, and CI has to have it")
        pytest.skip("tmux is not installed")
    found = Terminal(tmp_path)
    yield found
    subprocess.run(["tmux", "-S", str(tmp_path / "tmux"), "kill-server"], check=False)


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["", "--light", "--dark"])
def test_in_a_terminal(nats_server: EmbeddedServer, terminal: Terminal, theme: str) -> None:
    """In tmux at 80×24 the command fills the screen, takes keys, and leaves nothing behind."""
    command = f"{sys.executable} -m opsmesh.cli.entry top {theme}; echo ended with $?; cat"

    async def prepare() -> None:
        async with mesh_client() as client:
            one = event("deploy.requested", payload={"target": "seen"})
            await client.jetstream().publish(subject("desk", one.topic), encode(one))

    run(prepare())
    terminal.start("sh", "-c", command)
    terminal.shows("target=seen")
    assert "? help" in terminal.screen()[23]
    terminal.press("?")
    terminal.shows("a page")
    terminal.press("Escape")
    terminal.shows("TIME     LEVEL")  # a key at once after it would be one with Alt
    terminal.press("Enter")
    terminal.shows("events · deploy.requested")
    terminal.press("G")
    terminal.shows("next: opsmesh why")
    terminal.press("q")
    terminal.shows("1 events")
    terminal.press("q")
    terminal.shows("ended with 0")
    assert not any("opsmesh  " in line for line in terminal.screen())


#: The flood: events a second, and for how many seconds.
RATE, SECONDS = 1000, 10


@pytest.mark.slow
def test_a_flood(nats_server: EmbeddedServer, terminal: Terminal) -> None:
    """At 1,000 events a second the newest is on the screen within two seconds, all the time."""
    command = f"exec {sys.executable} -m opsmesh.cli.entry top"

    def newest() -> int:
        shown = [line.rpartition("n=")[2] for line in terminal.screen() if "n=" in line]
        return max((int(text) for text in shown if text.strip().isdigit()), default=-1)

    async def flood() -> list[int]:
        behind = []
        async with mesh_client() as client:
            one = event("deploy.requested", payload={"n": -1})
            await client.jetstream().publish(subject("desk", one.topic), encode(one))
            terminal.start("sh", "-c", command)
            await asyncio.to_thread(terminal.shows, "deploy.requested")
            began, sent = time.monotonic(), 0
            while sent < RATE * SECONDS:
                one = event("deploy.requested", payload={"n": sent})
                await client.publish(subject("desk", one.topic), encode(one))
                sent += 1
                if sent % RATE == 0:
                    behind.append(sent - await asyncio.to_thread(newest))
                ahead = sent / RATE - (time.monotonic() - began)
                if ahead > 0:
                    await asyncio.sleep(ahead)
            await client.flush()
            await eventually(lambda: newest() == sent - 1)
        return behind

    behind = run(flood(), timeout=120)
    assert max(behind) < 2 * RATE, behind
