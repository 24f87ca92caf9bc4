"""What people see of hosts that come, go, age and begin anew, in network namespaces."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.router.agent_process import until
from tests.spread.machines import Machine, arrived, joined, machines

pytestmark = pytest.mark.slow

#: Seconds until a server gives up a connection on which nothing comes back, and some.
GIVEN_UP = 60.0


def standing(at: Machine, host: str) -> dict[str, Any]:
    """The row of `opsmesh hosts` for this host."""
    return next(row for row in at.json("hosts") if row["host"] == host)


def numbers(at: Machine, host: str) -> list[int]:
    """The numbers of this host's events, as EVENTS has them."""
    return [event["payload"]["n"] for _, event in at.events(f"evt.{host}.load.test")]


def is_away(at: Machine, host: str) -> Callable[[], bool]:
    return lambda: bool(standing(at, host)["state"] == "away")


def is_connected(at: Machine, host: str) -> Callable[[], bool]:
    return lambda: bool(standing(at, host)["state"] == "connected")


def test_a_leaf_that_is_cut_off_is_away_and_says_so_itself(tmp_path: Path) -> None:
    """The hub says since when, the leaf how many events wait; healed, both are well again."""
    with machines(tmp_path, "hub", "l1", "l2") as mesh:
        hub, one = mesh["hub"], mesh["l1"]
        joined(hub, one, mesh["l2"])
        until(is_connected(hub, "l1"), timeout=60)
        until(is_connected(hub, "l2"), timeout=60)
        assert standing(hub, "l1")["version"]
        assert one.json("status")["verdict"] == "ok"
        mesh.net.cut("l1")
        one.emit(0, 30).wait(60)
        until(is_away(hub, "l1"), timeout=GIVEN_UP)
        assert standing(hub, "l1")["since"]
        assert standing(hub, "l2")["state"] == "connected"
        until(is_away(one, "hub"), timeout=GIVEN_UP)
        status = one.json("status", codes=(1,))
        assert status["verdict"] == "degraded"
        assert any("30 events wait here" in one["what"] for one in status["problems"])
        doctor = {one["check"]: one for one in one.json("doctor", codes=(0, 1))}
        assert doctor["hub"]["ok"] is False
        assert hub.json("status")["verdict"] == "ok"
        mesh.net.heal("l1")
        arrived(hub, "evt.l1.load.test", 30)
        until(is_connected(hub, "l1"), timeout=GIVEN_UP)
        until(lambda: one.json("status", codes=(0, 1))["verdict"] == "ok", timeout=GIVEN_UP)


def test_what_a_leaf_let_go_of_before_the_hub_had_it_is_a_gap_there(tmp_path: Path) -> None:
    """Events that are removed at a leaf while it is cut off are told as lost by the hub's evidence,
    with their source and count; the others come."""
    with machines(tmp_path, "hub", "l1", OPSMESH_EVIDENCE__GAP_GRACE="1s") as mesh:
        hub, one = mesh["hub"], mesh["l1"]
        joined(hub, one)
        one.emit(0, 10).wait(60)
        arrived(hub, "evt.l1.load.test", 10)
        mesh.net.cut("l1")
        # until then what is sent lies in the kernel, and arrives after all
        until(is_away(one, "hub"), timeout=GIVEN_UP)
        one.emit(10, 100).wait(60)
        # as max_age and max_bytes do it, only now
        one.ask("STREAM.PURGE.EVENTS", keep=50)
        mesh.net.heal("l1")
        arrived(hub, "evt.l1.load.test", 60)
        assert numbers(hub, "l1") == [*range(10), *range(50, 100)]

        def told() -> list[dict[str, Any]]:
            gaps = [event["payload"] for _, event in hub.events("evt.hub.mesh.gap.detected")]
            return [gap for gap in gaps if gap.get("host") == "l1" and gap["source"] == "load"]

        until(lambda: sum(gap["lost"] for gap in told()) == 40, timeout=60)


def test_a_leaf_that_begins_anew_goes_on_at_the_hub(tmp_path: Path) -> None:
    """A host whose disk was exchanged joins under its name again: the hub keeps what it had, and
    gets what is new, once."""
    with machines(tmp_path, "hub", "l1") as mesh:
        hub, one = mesh["hub"], mesh["l1"]
        joined(hub, one)
        one.emit(0, 40).wait(60)
        arrived(hub, "evt.l1.load.test", 40)
        one.opsmesh("down")
        for name in ("config", "state"):
            shutil.rmtree(one.folder / name / "opsmesh")
        made = hub.opsmesh("hub", "token", "--host", "l1")
        one.opsmesh("join", "-", given=made)
        one.up()
        one.emit(40, 60).wait(60)
        arrived(hub, "evt.l1.load.test", 60)
        assert numbers(hub, "l1") == list(range(60))


def test_a_thin_host_spools_while_it_is_cut_off(tmp_path: Path) -> None:
    """It has no broker; its events wait in its spool, and are at the hub once and in order."""
    with machines(tmp_path, "hub", "t1") as mesh:
        hub, one = mesh["hub"], mesh["t1"]
        joined(hub, one, kind="thin")
        assert "broker" not in {c["name"] for c in one.json("status", codes=(0, 1))["components"]}
        one.emit(0, 20).wait(60)
        arrived(hub, "evt.t1.load.test", 20)
        until(is_connected(hub, "t1"), timeout=60)
        mesh.net.cut("t1")
        assert one.emit(20, 50).wait(120) == 0
        mesh.net.heal("t1")
        arrived(hub, "evt.t1.load.test", 50)
        assert numbers(hub, "t1") == list(range(50))


def test_a_host_that_was_removed_is_not_let_in(tmp_path: Path) -> None:
    """After `hub remove` nothing of a leaf arrives; it goes on by itself, and after `leave` and a
    new token everything is there."""
    with machines(tmp_path, "hub", "l1") as mesh:
        hub, one = mesh["hub"], mesh["l1"]
        joined(hub, one)
        one.emit(0, 5).wait(60)
        arrived(hub, "evt.l1.load.test", 5)
        hub.opsmesh("hub", "remove", "l1")
        until(is_away(one, "hub"), timeout=GIVEN_UP)
        assert "does not let this host in" in one.opsmesh("status", codes=(1,))
        one.emit(5, 9).wait(60)
        one.opsmesh("leave")
        assert one.json("status", codes=(0, 1))["mesh"] == {}
        assert numbers(hub, "l1") == list(range(5))
        made = hub.opsmesh("hub", "token", "--host", "l1")
        one.opsmesh("join", "-", given=made)
        arrived(hub, "evt.l1.load.test", 9)
        assert numbers(hub, "l1") == list(range(9))
