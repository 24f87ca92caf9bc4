"""What a hub says of its leaves: two machines, joined by what a person types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.router.agent_process import until
from tests.spread.machines import Machine, arrived, joined, machines

pytestmark = pytest.mark.slow

PROFILES = """
profiles:
  acts: {on: load.test, where: event.payload.n > 0, actions: [command: [echo, done]]}
  there: {on: load.test, where: event.payload.n > 0, run_on: any, actions: [collect: [env_summary]]}
"""


def about(asked: Machine, event: str, *, profile: str = "acts") -> dict[str, Any]:
    """What is said there of the profile and the event."""
    found = json.loads(asked.opsmesh("why", event, "--json"))
    [one] = [one for one in found["profiles"] if one["profile"] == profile]
    return dict(one)


def test_why_and_run_show_of_a_leaf(tmp_path: Path) -> None:
    """At the hub `why` shows what a leaf decided, recorded and derived, in the leaf's own numbers,
    and `run show` what is told of its run and which host has the rest; the leaf decides over the
    hub what runs anywhere, and its bundle is the hub's to show."""
    with machines(tmp_path, "hub", "l1") as mesh:
        hub, l1 = mesh["hub"], mesh["l1"]
        l1.profiles(PROFILES)
        joined(hub, l1)
        until(lambda: "profile.owned" in l1.log("handlers"))
        until(lambda: "profile.owned" in l1.log("handlers-hub"))
        assert l1.emit(0, 2).wait(60) == 0
        arrived(hub, "evt.l1.load.test", 2)
        arrived(hub, "evt.l1.automation.run.succeeded", 2)
        low, high = (event["id"] for _, event in hub.events("evt.l1.load.test"))
        [made] = json.loads(l1.opsmesh("run", "ls", "--json"))

        fired = about(hub, high)
        assert (fired["status"], fired["host"], fired["leaf"]) == ("decided", "l1", True)
        [finding] = fired["findings"]
        assert finding["recorded"] is True
        assert finding["verdicts"]
        told = finding["told"]
        assert (told["state"], told["run_id"]) == ("succeeded", made["run_id"])
        [finding] = about(hub, low)["findings"]
        assert finding["recorded"] is False
        assert finding["decision"]["outcome"] == "filtered"
        rest = f"all of it is on l1: there, opsmesh run show {made['run_id']}"
        assert rest in hub.opsmesh("why", high)
        shown = json.loads(hub.opsmesh("run", "show", made["run_id"], "--json"))
        assert (shown["ledger"], shown["profile"]) == ("l1", "acts")
        hub.opsmesh("run", "show", "0000", codes=(3,))
        assert "decided by l1's own handlers" in hub.opsmesh("why-not", "acts")
        assert "checked" in hub.opsmesh("why", high, "--rederive", codes=(0, 1))

        [anywhere] = json.loads(l1.opsmesh("--hub", "run", "ls", "--json"))
        assert (anywhere["profile"], anywhere["host"]) == ("there", "l1")
        assert about(hub, high, profile="there")["leaf"] is False

        def bundles() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(
                hub.opsmesh("evidence", "bundle", "ls", "--json")
            )
            return found

        until(lambda: bool(bundles()))
        seen = json.loads(hub.opsmesh("evidence", "bundle", "show", anywhere["run_id"], "--json"))
        assert seen["host"] == "l1"
        status = json.loads(l1.opsmesh("status", "--json", codes=(0, 1)))
        assert status["problems"] == []
