"""The logind producer as its own process, on a real dbus-daemon with python3-dbusmock as logind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, new_signal
from jeepney.io.blocking import open_dbus_connection
from tests.conftest import PATIENCE
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.idle import idle
from tests.producers.process import producing, started
from tests.producers.system_bus import BUS, MANAGER, ROOT, SystemBus, required, running

from opsmesh.producers.logind import Logind, inbox
from opsmesh.schemas import times


@pytest.fixture
def bus(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SystemBus]:
    """A system bus of this test's own, and a logind with this user's session c1."""
    required()
    monkeypatch.delenv("XDG_SESSION_ID", raising=False)
    with running(home) as one:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", one.address)
        yield one


def said(home: Path, text: str) -> int:
    log = home / "log"
    return log.read_text().count(text) if log.exists() else 0


@contextmanager
def watching(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The producer, once it has compared what there is."""
    lives = said(home, "on the system bus")
    memory = home / "state/opsmesh/producers/logind/memory.json"
    with producing("logind", log=home / "log") as process:
        until(lambda: said(home, "on the system bus") > lives and memory.exists())
        yield process


def hypridle(*, locked: bool) -> None:
    """What hypridle's command does, run by the shell as hypridle runs it."""
    subprocess.run(["/bin/sh", "-c", inbox.command(inbox.folder(), locked=locked)], check=True)


def known(home: Path, locked: bool) -> bool:
    """Whether the producer has heard from both sources how the session is."""
    memory = json.loads((home / "state/opsmesh/producers/logind/memory.json").read_text())
    return bool(memory["locks"].get("c1") == [locked, locked])


def states(events: list[dict[str, Any]]) -> list[str]:
    return [event["payload"]["state"] for event in events]


def count(number: int) -> Any:
    return lambda events: len(events) >= number


def test_the_hint_is_a_lock_and_a_request_is_none(
    agent: StandInAgent, home: Path, bus: SystemBus
) -> None:
    """LockedHint is told; Lock and Unlock, which only ask for one, are not."""
    with watching(home):
        bus.request("c1", "Lock")
        bus.hint("c1", locked=True)
        bus.hint("c1", locked=True)
        agent.wait_for(count(1))
        bus.request("c1", "Unlock")
        bus.hint("c1", locked=False)
        events = agent.wait_for(count(2))
    assert [event["payload"] for event in events] == [
        {"locked": True, "state": "locked", "cause": "logind", "session": "c1"},
        {"locked": False, "state": "unlocked", "cause": "logind", "session": "c1"},
    ]
    assert (events[0]["topic"], events[0]["component"]) == ("desktop.idle.locked", "c1")


def test_a_lock_that_three_sources_see_is_one_event(
    agent: StandInAgent, home: Path, bus: SystemBus
) -> None:
    """hypridle, logind's hint and sleep together: one lock, one unlock, one sleep, one waking."""
    with watching(home):
        bus.prepare_for_sleep(True)
        agent.wait_for(count(1))
        hypridle(locked=True)
        bus.hint("c1", locked=True)
        agent.wait_for(count(2))
        bus.prepare_for_sleep(False)
        agent.wait_for(count(3))
        bus.hint("c1", locked=False)
        agent.wait_for(count(4))
        hypridle(locked=False)
        until(lambda: not inbox.words(inbox.folder()))
        bus.hint("c1", locked=True)
        events = agent.wait_for(count(5))
    assert states(events) == ["sleeping", "locked", "woke", "unlocked", "locked"]
    assert [event["payload"]["locked"] for event in events] == [False, True, True, False, True]
    assert {event["payload"]["session"] for event in events} == {"c1"}


def test_other_peoples_sessions_are_none(agent: StandInAgent, home: Path, bus: SystemBus) -> None:
    """Only the locks of this user's sessions are told, of those that come later, too."""
    with watching(home):
        bus.add_session("c9", uid=os.getuid() + 4242)
        bus.hint("c9", locked=True)
        bus.add_session("c2", locked=True)
        events = agent.wait_for(count(1))
    assert [event["payload"]["session"] for event in events] == ["c2"]


def test_ten_thousand_forged_signals_are_none(
    agent: StandInAgent, home: Path, bus: SystemBus
) -> None:
    """What a stranger sends to the producer directly passes every match rule of the bus; only what
    logind itself sends is believed, and of that only what makes sense."""
    path, properties = f"{ROOT}/session/c1", f"{BUS[1]}.Properties"
    changed: tuple[Any, ...] = (
        "org.freedesktop.login1.Session",
        {"LockedHint": ("b", True)},
        [],
    )
    forged = (
        (path, properties, "PropertiesChanged", "sa{sv}as", changed),
        (ROOT, MANAGER, "PrepareForSleep", "b", (True,)),
        (ROOT, MANAGER, "SessionRemoved", "so", ("c1", path)),
        (BUS[0], BUS[1], "NameOwnerChanged", "sss", ("org.freedesktop.login1", "", ":1.1")),
    )
    with watching(home) as process:
        to = bus.name_of(process.pid)
        with open_dbus_connection(bus.address, auth_timeout=PATIENCE) as stranger:
            for number in range(10_000):
                place, interface, member, signature, body = forged[number % len(forged)]
                emitter = DBusAddress(place, interface=interface)
                signal = new_signal(emitter, member, signature, body)
                signal.header.fields[HeaderFields.destination] = to
                stranger.send(signal)
        bus.emit("PrepareForSleep", "s", ("s", "soon"))
        bus.emit("SessionNew", "i", ("i", 7))
        bus.hint("c1", locked=True)
        events = agent.wait_for(count(1))
    assert states(events) == ["locked"]


def test_a_session_that_ends_is_no_unlock(agent: StandInAgent, home: Path, bus: SystemBus) -> None:
    """The next session with the same name begins unlocked, and its lock is news."""
    with watching(home):
        bus.hint("c1", locked=True)
        agent.wait_for(count(1))
        bus.end_session("c1")
        bus.add_session("c1")
        bus.hint("c1", locked=True)
        events = agent.wait_for(count(2))
    assert states(events) == ["locked", "locked"]


@pytest.mark.slow
def test_twenty_restarts_of_bus_and_logind_lose_nothing_and_tell_nothing_twice(
    agent: StandInAgent, home: Path, bus: SystemBus
) -> None:
    """What became of the lock while they were away is told by comparing; the rest is silence."""
    locked, restarts = False, 20
    with watching(home):
        for number in range(restarts):
            locked = not locked
            if number % 2:
                bus.stop_logind()
                bus.start_logind(locked=locked)
            else:
                bus.stop()
                hypridle(locked=locked)
                bus.start()
                bus.hint("c1", locked=locked)
            agent.wait_for(count(number + 1))
            until(partial(known, home, locked))
        bus.hint("c1", locked=not locked)
        events = agent.wait_for(count(restarts + 1))
    assert [event["payload"]["locked"] for event in events] == [
        number % 2 == 0 for number in range(restarts + 1)
    ]
    assert len({event["id"] for event in events}) == len(events)


def test_a_bus_that_hangs_keeps_hypridles_word_from_nobody(
    agent: StandInAgent, home: Path, bus: SystemBus
) -> None:
    """hypridle is told while the bus stands still, and the bus once it goes on."""
    with watching(home):
        with bus.hanging():
            hypridle(locked=True)
            agent.wait_for(count(1))
        bus.prepare_for_sleep(True)
        events = agent.wait_for(count(2))
    assert states(events) == ["locked", "sleeping"]


def test_its_own_restart_tells_what_happened_meanwhile(
    agent: StandInAgent, home: Path, bus: SystemBus
) -> None:
    """hypridle's words wait with their times, and the hint is compared; nothing comes twice."""
    memory = home / "state/opsmesh/producers/logind/memory.json"
    with watching(home):
        hypridle(locked=True)
        agent.wait_for(count(1))
        until(lambda: '"pending"' not in memory.read_text() and not inbox.words(inbox.folder()))
    hypridle(locked=False)
    [left] = inbox.words(inbox.folder())
    with watching(home):
        agent.wait_for(count(2))
        until(lambda: '"pending"' not in memory.read_text())
    bus.hint("c1", locked=True)
    with watching(home):
        events = agent.wait_for(count(3))
        bus.hint("c1", locked=False)
        events = agent.wait_for(count(4))
    assert states(events) == ["locked", "unlocked", "locked", "unlocked"]
    assert events[1]["ts_utc"][:19] <= events[2]["ts_utc"][:19]
    assert events[1]["ts_utc"].split(".")[1][:6] == f"{left.at_us % 1_000_000:06}"


def test_a_first_start_tells_nothing_that_was_so_before(
    agent: StandInAgent, home: Path, bus: SystemBus
) -> None:
    """A session that is locked already, and old words, are no news."""
    bus.hint("c1", locked=True)
    hypridle(locked=True)
    with watching(home):
        bus.hint("c1", locked=False)
        events = agent.wait_for(count(1))
    assert states(events) == ["unlocked"]


def test_a_crash_between_writing_down_and_telling_tells_it_once(home: Path, bus: SystemBus) -> None:
    """Killed while the mesh hung, the next life tells the event again under the same id."""
    memory = home / "state/opsmesh/producers/logind/memory.json"
    with standing_in(home, hang=True) as hanging:
        hanging.kills_at = 1  # it waits for two seconds, and no more
        process = started("logind", log=home / "log")
        until(lambda: said(home, "on the system bus") > 0 and memory.exists())
        bus.hint("c1", locked=True)
        process.wait(60)
    pending = json.loads(memory.read_text())["pending"]
    (home / "run/opsmesh/ingest.sock").unlink()
    with standing_in(home) as answering, watching(home):
        [event] = answering.wait_for(count(1))
        until(lambda: '"pending"' not in memory.read_text())
    assert states([event]) == ["locked"]
    assert event["ts_utc"] == times.format_us(pending["at_us"])
    assert all(kept["id"] == event["id"] for kept in spooled(home))


@pytest.mark.slow
def test_a_mesh_that_hangs_keeps_nobody_waiting(home: Path, bus: SystemBus) -> None:
    """Signals and words go on at once, and everything is in the spool in the end."""
    with standing_in(home, hang=True), watching(home):
        bus.hint("c1", locked=True)
        bus.hint("c1", locked=False)
        hypridle(locked=True)
        until(lambda: len(spooled(home)) >= 2)
        bus.prepare_for_sleep(True)
        until(lambda: "sleeping" in states(spooled(home)))
    assert states(spooled(home)).count("locked") in (1, 2)


def test_it_is_light(agent: StandInAgent, home: Path, bus: SystemBus) -> None:
    """Idle, it has less than 30 MB and uses no CPU."""
    rss_mb, cpu_s = idle("logind", {}, home)
    assert rss_mb < 30
    assert cpu_s < 0.2


def test_it_says_why_it_cannot_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a system bus there is a reason, and what to do."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={home}/none")
    assert "DBUS_SYSTEM_BUS_ADDRESS" in (Logind().available() or "")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:abstract=/tmp/somewhere")
    assert Logind().available() is None
