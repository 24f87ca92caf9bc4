"""Three leaf hosts and their hub in network namespaces, with all that `opsmesh up` starts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.router.agent_process import until
from tests.spread.machines import Machine, arrived, joined, machines

pytestmark = pytest.mark.slow

LEAVES = ("l1", "l2", "l3")
ROUNDS, EACH = 10, 500
#: The round whose cut lasts until servers give the connection up (three pings of ten seconds).
LONG, LONG_S = 6, 35.0
#: Rounds in which the hub's broker is killed, too.
KILLED = (3, 7)
FIRES_EVERY = 20

PROFILE = """\
version: 1
profiles:
  effect:
    on: [load.test]
    where: event.payload.n % {every} == 0
    run_on: origin
    concurrency: {{mode: parallel, limit: 4}}
    actions:
      - command: [sh, -c, 'echo "$0" >> {path}', "${{{{ event.payload.n }}}}"]
"""


def effects(one: Machine) -> list[int]:
    """The numbers of the events on which this host has acted, sorted."""
    path = one.folder / "effects"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def test_every_event_is_at_the_hub_once_and_in_order_whatever_was_cut(tmp_path: Path) -> None:
    """Ten cuts of links and two kills of the hub later it has every event of each host exactly
    once, in that host's order, and each host has acted on all of its own, also while cut off."""
    with machines(tmp_path, "hub", *LEAVES) as mesh:
        hub, leaves = mesh["hub"], [mesh[name] for name in LEAVES]
        for one in leaves:
            text = PROFILE.format(every=FIRES_EVERY, path=one.folder / "effects")
            one.profiles(text)
        joined(hub, *leaves)
        for n in range(ROUNDS):
            cut = leaves[n % len(leaves)]
            mesh.net.cut(cut.name)
            began = time.monotonic()
            loads = [one.emit(n * EACH, (n + 1) * EACH) for one in leaves]
            if n in KILLED:
                hub.kill("broker")
            assert [load.wait(120) for load in loads] == [0, 0, 0]
            # the cable is out still: what this host does, it does by itself
            wanted = list(range(0, (n + 1) * EACH, FIRES_EVERY))
            until(lambda cut=cut, wanted=wanted: effects(cut) == wanted, timeout=60)  # type: ignore[misc]
            if n == LONG:
                until(lambda: time.monotonic() - began > LONG_S, timeout=60)  # noqa: B023
            mesh.net.heal(cut.name)
        total = ROUNDS * EACH
        for one in leaves:
            arrived(hub, f"evt.{one.name}.load.test", total)
        stored = hub.events("evt.*.load.test")
        for one in leaves:
            here = [event for _, event in one.events("evt.*.load.test")]
            there = [event for subject, event in stored if subject.split(".")[1] == one.name]
            assert [event["payload"]["n"] for event in there] == list(range(total))
            assert there == here
            assert effects(one) == list(range(0, total, FIRES_EVERY))
        assert len({event["id"] for _, event in stored}) == len(leaves) * total == len(stored)
        standing = {row["host"]: row for row in hub.json("hosts")}
        assert {standing[name]["state"] for name in LEAVES} == {"connected"}
        until(lambda: archived(hub) >= 3 * total, timeout=120)
        hub.opsmesh("evidence", "verify")


def archived(hub: Machine) -> int:
    """How many of the events of the load the hub's evidence holds."""
    sql = "SELECT count(*) AS n FROM events WHERE topic = 'load.test'"
    found = json.loads(hub.opsmesh("evidence", "query", sql, "--json"))
    return int(found[0]["n"])
