"""The Hyprland producer as its own process, before a stand-in compositor on real sockets.

A replay, not Hyprland: no binary of it can be had here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.compositor import StandInCompositor, monitor, running
from tests.producers.idle import idle
from tests.producers.process import producing

from opsmesh.producers import registry
from opsmesh.producers.errors import OptionError
from opsmesh.producers.hyprland import Hyprland

ONE = "6ffae9c_1790000000_111"
TWO = "6ffae9c_1790000100_222"
QUICK = ("focus_settle=1ms", "layout_settle=10ms")
FIXTURE = Path(__file__).parent / "data/hyprland/socket2.txt"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mesh of this test's own with a short path: a socket's address has 107 bytes, and an
    instance's signature has 60 of them."""
    with TemporaryDirectory(prefix="opsmesh-") as folder:
        for variable, name in (("XDG_STATE_HOME", "state"), ("XDG_RUNTIME_DIR", "run")):
            Path(folder, name).mkdir()
            monkeypatch.setenv(variable, str(Path(folder, name)))
        monkeypatch.delenv("HYPRLAND_INSTANCE_SIGNATURE", raising=False)
        yield Path(folder)


def payloads(events: list[dict[str, Any]], topic: str) -> list[dict[str, Any]]:
    return [event["payload"] for event in events if event["topic"] == topic]


def workspaces(events: list[dict[str, Any]]) -> list[str]:
    return [payload["workspace"] for payload in payloads(events, "desktop.workspace.changed")]


def ready(compositor: StandInCompositor, asked: int = 1) -> None:
    """The producer listens, and has seen the layout."""
    compositor.joined()
    until(lambda: compositor.asked.count("j/monitors") >= asked)


def test_the_fixture_is_replayed_into_events(agent: StandInAgent, home: Path) -> None:
    """Every topic comes of the fixture's lines, in their order, with what was left."""
    with (
        running(home, ONE, [monitor("DP-1")]) as hypr,
        producing("hyprland", *QUICK, log=home / "log"),
    ):
        ready(hypr)
        hypr.send(*FIXTURE.read_bytes().splitlines())
        events = agent.wait_for(
            lambda e: (
                bool(payloads(e, "desktop.session.reloaded"))
                and bool(payloads(e, "desktop.window.focus.changed"))
            )
        )
    assert workspaces(events) == ["2", "name,with,commas"]
    first = next(e for e in events if e["topic"] == "desktop.workspace.changed")
    assert first["payload"] == {
        "workspace": "2",
        "workspace_id": 2,
        "monitor": "DP-1",
        "previous": "1",
    }
    assert (first["source"], first["workspace"]) == ("hyprland", "2")
    [focus] = payloads(events, "desktop.window.focus.changed")
    assert focus["title"] == "nvim a, b >> c.py"
    changes = payloads(events, "desktop.monitor.layout.changed")
    assert [(c["change"], c["monitor"]) for c in changes] == [
        ("added", "HDMI-A-1"),
        ("removed", "HDMI-A-1"),
    ]


def test_a_reload_tells_errors_and_what_the_monitors_became(
    agent: StandInAgent, home: Path
) -> None:
    """Mode, scale and position have no event: they are compared after the reload."""
    with (
        running(home, ONE, [monitor("DP-1"), monitor("DP-2", id=1)]) as hypr,
        producing("hyprland", *QUICK, log=home / "log"),
    ):
        ready(hypr)
        hypr.errors = ["Config error at line 3", ""]
        hypr.monitors = [monitor("DP-1", scale=1.25), monitor("DP-2", id=1, x=-1920)]
        hypr.send(b"configreloaded>>")
        events = agent.wait_for(lambda e: len(e) >= 3)
    assert payloads(events, "desktop.session.reloaded") == [
        {"compositor": "hyprland", "errors": ["Config error at line 3"]}
    ]
    changes = payloads(events, "desktop.monitor.layout.changed")
    assert [(c["change"], c["monitor"], c["scale"], c["x"]) for c in changes] == [
        ("reconfigured", "DP-1", 1.25, 0),
        ("moved", "DP-2", 1.0, -1920),
    ]


def test_a_monitor_that_comes_tells_its_mode(agent: StandInAgent, home: Path) -> None:
    """The event has a name; the mode is asked for."""
    with (
        running(home, ONE, [monitor("DP-1")]) as hypr,
        producing("hyprland", *QUICK, log=home / "log"),
    ):
        ready(hypr)
        hypr.monitors.append(monitor("HDMI-A-1", id=1, width=3840, x=1920, transform=1))
        hypr.send(b"monitoradded>>HDMI-A-1", b"monitoraddedv2>>1,HDMI-A-1,Dell, Inc.")
        agent.wait_for(lambda e: bool(e))
        ready(hypr, 3)  # the comparison afterwards finds nothing new
        hypr.send(b"workspacev2>>5,5")
        events = agent.wait_for(lambda e: workspaces(e) == ["5"])
    [came] = payloads(events, "desktop.monitor.layout.changed")
    assert (came["change"], came["width"], came["x"], came["transform"]) == ("added", 3840, 1920, 1)
    assert came["description"] == "Dell, Inc."


def test_twenty_restarts_lose_nothing_and_tell_nothing_twice(
    agent: StandInAgent, home: Path
) -> None:
    """Each new instance is found, told once, and its events follow; crashes leave folders."""
    with producing("hyprland", *QUICK, log=home / "log"):
        for number in range(20):
            signature = f"6ffae9c_{1790000000 + number}_{number}"
            screens = [monitor("DP-1", workspace=str(100 + number))]
            hypr = StandInCompositor(home / "run", signature, screens)
            hypr.joined()
            hypr.send(b"workspacev2>>%d,%d" % (200 + number, 200 + number))
            agent.wait_for(lambda e, n=number: str(200 + n) in workspaces(e))  # type: ignore[misc]
            hypr.crash() if number % 2 else hypr.close()
    events = agent.events
    assert len(payloads(events, "desktop.session.reloaded")) == 19
    assert all(p["restarted"] for p in payloads(events, "desktop.session.reloaded"))
    mine = [w for w in workspaces(events) if w.startswith("2")]
    assert mine == [str(200 + number) for number in range(20)]
    assert not payloads(events, "mesh.gap.detected")


def test_a_stale_signature_in_the_environment_does_no_harm(
    agent: StandInAgent, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live instance is found although our environment names a dead one, and dead ones lie
    about with a newer start."""
    monkeypatch.setenv("HYPRLAND_INSTANCE_SIGNATURE", TWO)
    StandInCompositor(home / "run", TWO, []).crash()
    dead = StandInCompositor(home / "run", "6ffae9c_1790000200_3", [], pid=2**22)
    with (
        running(home, ONE, [monitor("DP-1")]) as hypr,
        producing("hyprland", *QUICK, log=home / "log"),
    ):
        ready(hypr)
        hypr.send(b"workspacev2>>2,2")
        agent.wait_for(lambda e: workspaces(e) == ["2"])
    assert not dead.asked
    dead.crash()


def test_being_dropped_is_a_gap_and_the_state_is_compared(agent: StandInAgent, home: Path) -> None:
    """The same instance ends the connection: what changed meanwhile is told, and the gap."""
    with (
        running(home, ONE, [monitor("DP-1")]) as hypr,
        producing("hyprland", *QUICK, log=home / "log"),
    ):
        ready(hypr)
        hypr.monitors = [monitor("DP-1", workspace="4", scale=2.0)]
        hypr.drop()
        events = agent.wait_for(lambda e: len(e) >= 3)
    [gap] = payloads(events, "mesh.gap.detected")
    assert (gap["source"], gap["kind"]) == ("hyprland", "dropped")
    assert payloads(events, "desktop.workspace.changed")[0]["previous"] == "1"
    assert workspaces(events) == ["4"]
    assert payloads(events, "desktop.monitor.layout.changed")[0]["change"] == "reconfigured"


def test_its_own_restart_tells_what_changed_meanwhile(agent: StandInAgent, home: Path) -> None:
    """The next life knows what was told last, and tells only what is different."""
    with running(home, ONE, [monitor("DP-1")]) as hypr:
        with producing("hyprland", *QUICK, log=home / "log"):
            ready(hypr)
            hypr.send(b"workspacev2>>3,3")
            agent.wait_for(lambda e: workspaces(e) == ["3"])
            memory = home / "state/opsmesh/producers/hyprland/memory.json"
            until(lambda: memory.exists() and '"name": "3"' in memory.read_text())
        hypr.monitors = [monitor("DP-1", workspace="3")]
        with producing("hyprland", *QUICK, log=home / "log"):
            ready(hypr, 2)
        hypr.monitors = [monitor("DP-1", workspace="9", width=2560)]
        with producing("hyprland", *QUICK, log=home / "log"):
            events = agent.wait_for(lambda e: len(e) >= 3)
    assert workspaces(events) == ["3", "9"]
    assert payloads(events, "desktop.workspace.changed")[1]["previous"] == "3"
    assert [c["width"] for c in payloads(events, "desktop.monitor.layout.changed")] == [2560]


@pytest.mark.slow
def test_a_compositor_that_gives_no_answer_holds_nothing_up(
    agent: StandInAgent, home: Path
) -> None:
    """Questions time out; events are told all the same."""
    with running(home, ONE, [monitor("DP-1")]) as hypr:
        hypr.silent = True
        with producing("hyprland", *QUICK, log=home / "log"):
            hypr.joined()
            hypr.send(b"workspacev2>>2,2", b"configreloaded>>")
            events = agent.wait_for(lambda e: len(e) >= 2)
    assert workspaces(events) == ["2"]
    assert payloads(events, "desktop.session.reloaded") == [{"compositor": "hyprland"}]


def test_a_mesh_that_hangs_never_keeps_the_compositor_waiting(home: Path) -> None:
    """10,000 lines, hostile ones among them, while the agent hangs: the client is never dropped,
    and every event is in the spool."""
    hostile = [
        b"activewindow>>kitty," + b"\xff" * 900,
        b"activewindowv2>>aa",
        b"workspacev2>>x,y",
        b"no event at all",
        b"a" * 9000,
        b"windowtitlev2>>aa,>>>>,,",
    ]
    with (
        standing_in(home, hang=True),
        running(home, ONE, [monitor("DP-1")]) as hypr,
        producing("hyprland", "focus_settle=1h", "layout_settle=10ms", log=home / "log"),
    ):
        ready(hypr)
        late = 0
        for number in range(10_000):
            if number % 4000 == 0:
                workspace = 2 + number // 4000
                hypr.send(b"workspacev2>>%d,%d" % (workspace, workspace))
            hypr.send(hostile[number % len(hostile)])
            if number % 32 == 0:  # the compositor comes back to its loop
                begun = time.monotonic()
                hypr.flush()
                late += time.monotonic() - begun > 1.0
        assert late < 3  # each of three emits waits for two seconds; a busy machine is late once
        hypr.flush()
        memory = home / "state/opsmesh/producers/hyprland/memory.json"
        until(
            lambda: memory.exists() and '"name": "4"' in memory.read_text()
        )  # the last emit has returned
        assert hypr.dropped == 0
    assert workspaces(spooled(home)) == ["2", "3", "4"]
    said = (home / "log").read_text()
    assert "skipping lines that are none" in said
    assert "5000 lines skipped" in said  # workspacev2>>x,y, no arrows, and one that is too long


def test_it_is_light(agent: StandInAgent, home: Path) -> None:
    """Idle, it has less than 30 MB and uses no CPU."""
    with running(home, ONE, [monitor("DP-1")]):
        rss_mb, cpu_s = idle("hyprland", {}, home)
    assert rss_mb < 30
    assert cpu_s < 0.2


def test_it_says_why_it_cannot_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a runtime directory or Hyprland there is a reason; a folder of it is enough."""
    monkeypatch.setenv("PATH", str(home))
    assert "not on PATH" in (Hyprland().available() or "")
    (home / "run/hypr").mkdir()
    assert Hyprland().available() is None
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert "XDG_RUNTIME_DIR" in (Hyprland().available() or "")


@pytest.mark.parametrize(
    ("option", "value"),
    [("titles", "hide"), ("focus_settle", "soon"), ("layout_settle", "-1"), ("instance", "../x")],
)
def test_a_wrong_option_is_named(option: str, value: str) -> None:
    """Each wrong value is an OptionError with the option's name."""
    with pytest.raises(OptionError, match=option):
        registry.load("hyprland", {option: value})
