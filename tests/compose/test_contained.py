"""The mesh in containers, from nothing to evidence, on a real Docker."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from opsmesh.router.client import Client
from opsmesh.schemas import ids
from tests.compose.contained import Contained, until
from tests.compose.images import docker

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker")]

PROFILE = """\
version: 1
profiles:
  greet:
    on: demo.hello
    actions:
      - collect: [{name: disk, command: [df, -h]}]
      - command: [echo, "hello ${{ event.payload.who }}"]
"""
SERVICES = ("nats", "agent", "handlers", "sink")
#: Events that are sent while the broker is killed, and how often it is.
EVENTS, KILLS = 3_000, 3


def test_from_nothing_to_a_fired_profile(contained: Contained) -> None:
    """`make compose-up` brings a mesh in which an event from the host's socket fires a profile of
    the host's file, and its evidence is verified on the host."""
    began = time.monotonic()
    contained.profiles(PROFILE)
    said = contained.make("compose-up")
    up = time.monotonic() - began
    assert "everything runs" in said
    event = contained.opsmesh("emit", "demo.hello", "who=world").strip()
    (ran,) = until(lambda: _runs(contained, event))
    fired = time.monotonic() - began
    assert ran["state"] == "succeeded"
    until(lambda: event in {one["id"] for one in contained.archived()})
    assert "intact" in contained.opsmesh("evidence", "verify", "--against-stream")
    print(f"\nup after {up:.1f} s, fired after {fired:.1f} s; images were built, or cached")
    status = json.loads(contained.opsmesh("status", "--json"))
    assert {one["name"]: one["state"] for one in status["components"]} == dict.fromkeys(
        ("broker", "agent", "handlers", "sink"), "running"
    )
    (bundle,) = json.loads(contained.opsmesh("evidence", "bundle", "ls", "--json"))
    assert "Filesystem" in Path(bundle["folder"], "disk").read_text()


def test_hardened(contained: Contained) -> None:
    """Every container runs as the user, without capabilities, on a root that it cannot write to, in
    bounds; and all that can be asked come to say that they are well."""
    contained.make("compose-up")
    for service in SERVICES:
        facts = contained.facts(service)
        host = facts["HostConfig"]
        assert facts["Config"]["User"] == f"{contained.uid}:{contained.uid}"
        assert host["ReadonlyRootfs"] is True
        assert (host["CapDrop"], host["Privileged"]) == (["ALL"], False)
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
        assert host["PidsLimit"] > 0
        bound = {port["HostIp"] for one in (host["PortBindings"] or {}).values() for port in one}
        assert bound == ({"127.0.0.1"} if service == "nats" else set())
    handlers = contained.container("handlers")
    writes = "import os; os.open('/opt/opsmesh/x', os.O_CREAT | os.O_WRONLY)"
    tried = subprocess.run(
        ["docker", "exec", handlers, "python", "-c", writes],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Read-only file system" in tried.stderr
    assert docker("exec", handlers, "id", "-u") == str(contained.uid)
    for service in ("agent", "handlers", "sink"):
        until(partial(_healthy, contained, service))
    docker("pause", contained.container("nats"))
    try:
        until(lambda: not _healthy(contained, "sink"), timeout=90)
    finally:
        docker("unpause", contained.container("nats"))


def test_broker_is_killed(contained: Contained) -> None:
    """Of what was acknowledged to the host while the broker's container was killed again and again,
    nothing is lost, and nothing is archived twice."""
    contained.profiles("version: 1\nprofiles: {}\n")
    contained.make("compose-up")
    acknowledged: list[str] = []
    sending = threading.Thread(target=_send, args=(contained, acknowledged))
    sending.start()
    for number in range(1, KILLS + 1):
        until(partial(_more_than, acknowledged, number * EVENTS // (KILLS + 2)))
        docker("kill", "--signal", "KILL", contained.container("nats"))
        # Docker takes a kill by hand for a wish: it is started again by hand too
        docker("start", contained.container("nats"))
    sending.join()
    wanted = set(acknowledged)
    assert len(wanted) == EVENTS
    until(lambda: wanted <= {one["id"] for one in contained.archived()})
    times = Counter(one["id"] for one in contained.archived())
    assert max(times.values()) == 1
    assert "intact" in contained.opsmesh("evidence", "verify", "--against-stream")


def test_one_mesh_two_ways_to_run_it(contained: Contained) -> None:
    """The mesh in containers is the one that `opsmesh up` runs: each goes on with the other's
    events, and neither begins beside the other."""
    contained.profiles("version: 1\nprofiles: {}\n")
    contained.make("compose-up")
    first = contained.opsmesh("emit", "demo.first").strip()
    assert "already running" in contained.opsmesh("up", "--detach")
    assert "make compose-down" in contained.opsmesh("down", code=1)
    contained.make("compose-down")
    contained.opsmesh("up", "--detach")
    try:
        second = contained.opsmesh("emit", "demo.second").strip()
        assert "opsmesh down" in contained.make("compose-up", "--no-build", code=2)
    finally:
        contained.opsmesh("down")
    spooled = contained.opsmesh("emit", "demo.third").strip()
    contained.make("compose-up", "--no-build")
    until(lambda: {first, second, spooled} <= {one["id"] for one in contained.archived()})
    assert "intact" in contained.opsmesh("evidence", "verify", "--against-stream")


def test_store_in_a_volume(contained: Contained) -> None:
    """With `--store volume` the broker's store lies in a named volume, which a user that is not
    root can write to, and which is kept when the containers go."""
    contained.profiles("version: 1\nprofiles: {}\n")
    contained.make("compose-up", "--store volume")
    first = contained.opsmesh("emit", "demo.first").strip()
    contained.make("compose-down")
    contained.make("compose-up", "--no-build")  # remembers its store
    mounts = {one["Destination"]: one["Type"] for one in contained.facts("nats")["Mounts"]}
    assert mounts["/data"] == "volume"
    assert first in contained.opsmesh("show", first)
    assert list((contained.state / "jetstream").iterdir()) == []


def _healthy(contained: Contained, service: str) -> bool:
    return bool(contained.facts(service)["State"]["Health"]["Status"] == "healthy")


def _more_than(acknowledged: list[str], number: int) -> bool:
    return len(acknowledged) > number


def _runs(contained: Contained, event: str) -> list[dict[str, Any]]:
    runs = json.loads(contained.opsmesh("run", "ls", "--json"))
    return [run for run in runs if run["event_id"] == event and run["state"] == "succeeded"]


def _send(contained: Contained, acknowledged: list[str]) -> None:
    """Emit from the host, as any process does: by the socket, and the spool where that is away."""
    client = Client(
        socket_path=contained.env["XDG_RUNTIME_DIR"] + "/opsmesh/ingest.sock",
        spool_dir=str(contained.state / "spool"),
    )
    for number in range(EVENTS):
        id = ids.uuid7()
        event = {"id": id, "topic": "demo.counted", "source": "test", "payload": {"n": number}}
        line = json.dumps({**event, "_reply": True}).encode()
        if json.loads(client.deliver(line, id)).get("ok"):
            acknowledged.append(id)
    client.close()
