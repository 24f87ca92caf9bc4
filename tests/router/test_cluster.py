"""A cluster of three: who is let in as a node, what its files say, and how it is seen to stand."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.conftest import PATIENCE
from tests.faults.clusters import LOOPBACK, Cluster, cluster_of_three
from tests.router.agent_process import until

from opsmesh.router.errors import BadFile
from opsmesh.router.hub import cluster, node_certificates, node_file, nodes
from opsmesh.router.hub.cluster import Node
from opsmesh.router.hub.node_file import BadNodeFile, NodeFile

PLAN = cluster.Cluster(
    name="hub",
    own="two",
    keeper="one",
    nodes=[
        Node(name="one", address="192.0.2.1"),
        Node(name="two", address="hub-two.example.org"),
        Node(name="three", address="2001:db8::3", route_port=7000),
    ],
)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Cluster]:
    """Three brokers that serve."""
    with cluster_of_three(tmp_path) as running:
        yield running


def test_what_is_written_is_read(home: Path) -> None:
    """A node's folder holds the cluster as it was written, for its owner's eyes alone."""
    assert cluster.read() is None
    cluster.write(PLAN, {cluster.CA: b"ca", cluster.OWN: b"own"})
    assert cluster.read() == PLAN
    found = {path.name: path.stat().st_mode & 0o777 for path in cluster.folder().iterdir()}
    assert found == {"cluster.yaml": 0o600, "ca.pem": 0o600, "node.pem": 0o600}
    assert cluster.folder().stat().st_mode & 0o777 == 0o700


def test_a_node_that_is_not_in_its_cluster_is_refused(home: Path) -> None:
    """A file whose own node is none of its nodes is broken, and says so."""
    cluster.write(PLAN.of("four"), {})
    with pytest.raises(BadFile, match="'four' is none of its nodes"):
        cluster.read()


def test_routes_lead_to_the_others() -> None:
    """A node connects to the two others where they are, and asks for their certificates."""
    block = cluster.block(PLAN)
    assert block["routes"] == [
        "nats-route://192.0.2.1:6222",
        "nats-route://[2001:db8::3]:7000",
    ]
    assert block["tls"]["verify"] is True


def test_a_node_file_that_was_cut_changes_nothing() -> None:
    """A file is read whole or refused, also where it would write outside its folder."""
    whole = NodeFile(cluster=PLAN, files={cluster.CA: b"\x00ca"}, state={"keys/a": b"1"})
    data = node_file.encode(whole)
    assert node_file.decode(data) == whole
    for bad in (data[:-20], b"", b"{}", data.replace(b'"own": "two"', b'"own": "six"')):
        with pytest.raises(BadNodeFile):
            node_file.decode(bad)
    escaping = msgspec.structs.replace(whole, state={"../x": b""})
    with pytest.raises(BadNodeFile, match="outside its folder"):
        node_file.decode(node_file.encode(escaping))


def test_another_authority_makes_no_node(hub: Cluster, tmp_path: Path) -> None:
    """A server whose certificate comes from elsewhere is not let in, though it knows every
    address."""
    stranger = hub.nodes[0]
    stranger.kill()
    _, forged = node_certificates.make("hub", {"one": LOOPBACK})
    (stranger.folder / cluster.OWN).write_bytes(forged["one"])
    stranger.start()
    log = stranger.folder.parent / "two" / "broker.log"
    until(lambda: "TLS route handshake error" in log.read_text())
    assert stranger.get("/routez").get("num_routes") == 0


@pytest.mark.parametrize("who", ["one", None], ids=["a-node", "a-stranger"])
def test_only_nodes_hear_anything(hub: Cluster, who: str | None) -> None:
    """The port of the routes speaks with a node, and with nobody who shows no certificate."""
    node = hub.nodes[0]
    context = ssl.create_default_context(cafile=str(node.folder / cluster.CA))
    if who is not None:
        context.load_cert_chain(node.folder / cluster.OWN)
    assert (b"INFO " in _said(node.route, context)) == (who is not None)


def _said(port: int, context: ssl.SSLContext) -> bytes:
    """What a server says first; nothing when it ends the connection instead."""
    with socket.create_connection((LOOPBACK, port), timeout=PATIENCE) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=LOOPBACK) as secured:
                return secured.recv(4096)
        except ssl.SSLError:
            return b""


def test_a_node_that_is_gone_is_away(hub: Cluster) -> None:
    """Whoever is left tells of a node that is killed, and of its own server when that is gone."""
    monitor, plan = f"http://{LOOPBACK}:{hub.nodes[0].monitor}", hub.plan.of("one")
    until(lambda: nodes.look(plan, monitor).well)
    hub.nodes[2].kill()
    until(lambda: _states(nodes.look(plan, monitor)) == ["here", "connected", "away"])
    hub.nodes[0].kill()
    assert nodes.look(plan, monitor).error
    assert set(_states(nodes.look(plan, monitor))) == {"unknown"}


@pytest.mark.slow
def test_one_alone_has_no_leader(hub: Cluster) -> None:
    """With two of three nodes gone the last one tells that nobody leads."""
    monitor, plan = f"http://{LOOPBACK}:{hub.nodes[0].monitor}", hub.plan.of("one")
    until(lambda: nodes.look(plan, monitor).well)
    for gone in hub.nodes[1:]:
        gone.kill()
    until(lambda: not nodes.look(plan, monitor).leader)


def _states(standing: nodes.Standing) -> list[str]:
    return [one.state for one in standing.nodes]
