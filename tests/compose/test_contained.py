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

import httpx
import pytest
import yaml

from opsmesh.cli.web.door import KEY
from opsmesh.router.client import Client
from opsmesh.schemas import ids
from tests.compose import images
from tests.compose.contained import Contained, until
from tests.compose.images import docker
from tests.conftest import free_ports

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
SERVICES = ("nats", "agent", "handlers", "sink", "web")
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
        assert bound == ({"127.0.0.1"} if service in ("nats", "web") else set())
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
    for service in ("agent", "handlers", "sink", "web"):
        until(partial(_healthy, contained, service))
    docker("pause", contained.container("nats"))
    try:
        until(lambda: not _healthy(contained, "sink"), timeout=90)
    finally:
        docker("unpause", contained.container("nats"))


def test_page(contained: Contained) -> None:
    """The address that `make compose-up` prints is the page's: whoever has it sees the mesh, also
    after the container was started anew, and nobody sees it without the token."""
    contained.profiles(PROFILE)
    address = contained.page(contained.make("compose-up"))
    event = contained.opsmesh("emit", "demo.hello", "who=world").strip()
    until(lambda: _runs(contained, event))
    assert "greet" in json.dumps(_asked(address, f"/api/stories/{event}"))
    docker("restart", contained.container("web"))
    with pytest.raises(httpx.HTTPError):
        _asked(address, f"/api/stories/{event}")
    again = contained.page(contained.make("compose-up", "--no-build"))
    assert again.partition("#")[0] == address.partition("#")[0]
    assert "greet" in json.dumps(_asked(again, f"/api/stories/{event}"))


def test_metrics(contained: Contained, tmp_path: Path) -> None:
    """With the profile `metrics` Prometheus is told by every component, and Grafana's place finds
    Prometheus where its datasource says; what was started so ends with the rest."""
    watching = tmp_path / "watching"
    watching.mkdir()
    prometheus, grafana = free_ports(2)
    contained.env |= {
        **images.watchers(watching),
        "OPSMESH_PROMETHEUS_PORT": str(prometheus),
        "OPSMESH_GRAFANA_PORT": str(grafana),
    }
    contained.profiles(PROFILE)
    said = contained.make("compose-up", "--profile metrics")
    assert f"Prometheus: http://127.0.0.1:{prometheus}" in said
    assert f"Grafana: http://127.0.0.1:{grafana}" in said
    event = contained.opsmesh("emit", "demo.hello", "who=world").strip()
    until(lambda: _runs(contained, event))
    for name in ("broker", "agent", "handlers", "sink"):
        until(partial(_measured, prometheus, f'opsmesh_component_up{{component="{name}"}} == 1'))
    until(partial(_measured, prometheus, 'opsmesh_runs_total{profile="greet"} == 1'))
    until(partial(_healthy, contained, "prometheus"))
    until(partial(_healthy, contained, "metrics"))
    datasource = f"http://127.0.0.1:{grafana}/provisioning/datasources/opsmesh.yaml"
    (told,) = yaml.safe_load(httpx.get(datasource).raise_for_status().text)["datasources"]
    ask = f"import urllib.request as r; print(r.urlopen('{told['url']}/-/ready').status)"
    assert docker("exec", contained.container("grafana"), "python3", "-c", ask) == "200"
    contained.make("compose-up", "--profile metrics --no-build")  # once more is no harm
    contained.make("compose-down")
    assert [one for one in ("metrics", "prometheus", "grafana") if contained.container(one)] == []


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


def _asked(address: str, path: str) -> Any:
    """What the page of that address is told; httpx.HTTPError where it lets nobody in."""
    top, _, token = address.partition("/#token=")
    with httpx.Client(base_url=top) as browser:
        entered = browser.post("/api/session", json={"token": token}).raise_for_status()
        asked = browser.get(path, headers={KEY: entered.json()["key"]})
        return asked.raise_for_status().json()


def _measured(port: int, expression: str) -> bool:
    """Whether Prometheus has something for it."""
    asked = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression})
    return bool(asked.raise_for_status().json()["data"]["result"])


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
