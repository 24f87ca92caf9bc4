"""A cluster of three loses the leader of what matters, under load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.checks import check, rest
from tests.faults.clusters import PASSWORD, USER, Cluster, cluster_of_three
from tests.faults.disks import Fragile
from tests.faults.load import load
from tests.faults.meshes import COMPONENTS, Mesh, halt, mesh
from tests.faults.sizes import SLOW_SIZES

#: Seconds between two events of each producer: a new leader takes five, and there is to be load
#: before, meanwhile and after.
PAUSE = 0.006


@pytest.fixture
def disk(mounts: None, home: Path) -> Iterator[Fragile]:
    """The disk of all three nodes, whose power can be cut; to be asked for before `hub`."""
    made = Fragile(home / "hub", home, mib=512)
    yield made
    made.end()


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Three brokers, and settings that name them: streams of three replicas."""
    with cluster_of_three(home / "hub") as running:
        monkeypatch.setenv("OPSMESH_NATS_URL", running.urls)
        monkeypatch.setenv("OPSMESH_NATS__USER", USER)
        monkeypatch.setenv("OPSMESH_NATS__PASSWORD", PASSWORD)
        monkeypatch.setenv("OPSMESH_EVENTS__REPLICAS", "3")
        yield running


@pytest.fixture
def at_hub(home: Path, hub: Cluster) -> Iterator[Mesh]:
    """A mesh whose broker is the cluster, its load's profile in place; nothing of it runs yet."""
    with mesh(home) as made:
        made.profiles()
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("count", SLOW_SIZES)
@pytest.mark.parametrize("stream", ["EVENTS", "KV_opsmesh-runs", "KV_opsmesh-windows"])
def test_leader_is_killed(at_hub: Mesh, hub: Cluster, stream: str, count: int) -> None:
    """The node that leads a stream is killed under load, again and again: nothing acknowledged is
    lost, and each action is done once."""
    for serving in [at_hub.begin(name) for name in COMPONENTS]:
        serving()
    with load(at_hub.home, count, pause_s=PAUSE) as events:
        for turn in range(1, 4):
            events.reached(turn / 5)
            leader = hub.leader(stream)
            leader.kill()
            events.more(count // 20)
            hub.leader(stream)
            leader.start()
            hub.together()
        events.finish()
        rest(at_hub)
        check(at_hub, events)


@pytest.mark.slow
@pytest.mark.parametrize("count", SLOW_SIZES)
def test_power_cut_of_all_nodes(disk: Fragile, hub: Cluster, at_hub: Mesh, count: int) -> None:
    """All three nodes lose their power at once, twice: what was acknowledged had been synced by two
    of them, and is there."""
    for serving in [at_hub.begin(name) for name in COMPONENTS]:
        serving()
    with load(at_hub.home, count) as events:
        for share in (0.3, 0.6):
            events.reached(share)
            with events.paused():  # now it is clear what was acknowledged
                for node in hub.nodes:
                    assert node.process is not None
                    halt(node.process.pid)
                image = disk.cut()
                hub.end()
                disk.become(image)
            hub.start()
        events.finish()
        rest(at_hub)
        check(at_hub, events)
