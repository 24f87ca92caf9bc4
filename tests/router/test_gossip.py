"""What nodes of a cluster say to each other, at a real server: who answers, and who hears it.

One server is both nodes' here; three, with their routes, are in `tests/spread/test_cluster.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from tests.conftest import eventually, run

from opsmesh.router import connection, paths
from opsmesh.router.auth import creds
from opsmesh.router.connection import Endpoint
from opsmesh.router.hub import cluster, gossip, node_user
from opsmesh.router.hub.cluster import Cluster, Node
from opsmesh.router.server import EmbeddedServer

PLAN = Cluster(
    name="hub",
    own="laptop",
    keeper="laptop",
    nodes=[Node(name=name, address="127.0.0.1") for name in ("laptop", "b", "c")],
)


@pytest.fixture
def node(nats_server: EmbeddedServer) -> EmbeddedServer:
    """A server whose machine is the node `laptop`."""
    cluster.write(PLAN, {})
    node_user.issue(nats_server.broker.auth, "laptop")  # as its agent does at its start
    return nats_server


@asynccontextmanager
async def serving(node: EmbeddedServer) -> AsyncIterator[Client]:
    """The agent's part: it answers what others ask."""
    where = Endpoint(url=node.broker.url, credentials=node_user.file(node.broker.auth))
    client = await connection.connect(where, name="nodes", patient=False)
    running = asyncio.create_task(gossip.Node(client, PLAN, node.broker).run())
    try:
        yield client
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await client.close()


def test_a_state_comes_as_it_is(node: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is told another one's whole state, in as many pieces as it takes."""
    monkeypatch.setattr(gossip, "PIECE", 500)
    for n in range(20):
        node.broker.auth.issue(f"desk-{n}", role="viewer", host="desk")

    async def body() -> None:
        async with serving(node) as client:
            await eventually(lambda: _has(node, 1))
            state = await gossip.Node(client, PLAN.of("b"), node.broker).fetched("laptop")
            assert len(gossip.pack(state)) > 4 * 500
            assert b"desk-19" in state.files["manifest.yaml"]

    run(body())


def test_nobody_of_the_mesh_hears_it(node: EmbeddedServer) -> None:
    """An admin of the mesh, who may everything there, hears nothing of what nodes say, and gets no
    answer: that is another account's."""

    async def body() -> None:
        heard: list[str] = []

        async def hear(msg: Msg) -> None:
            heard.append(msg.subject)

        file = node.broker.credentials("admin")
        admin = await nats.connect(node.broker.url, user_credentials=str(file))
        listening = await admin.subscribe("nodes.>", cb=hear)
        await admin.subscribe("_INBOX.laptop-node.>", cb=hear)
        await admin.flush()
        async with serving(node):
            await eventually(lambda: _has(node, 1))
            assert [one.node for one in await gossip.stand(PLAN)] == ["laptop"]
            await admin.flush()
            assert heard == []
            await listening.unsubscribe()
            with pytest.raises(NoRespondersError):
                await admin.request("nodes.facts", b"{}", timeout=5)
        await admin.close()

    run(body())


def test_a_node_hears_nothing_else(node: EmbeddedServer) -> None:
    """The credentials of a node's agent are good for what nodes say, and for nothing of the
    servers' own account besides."""
    allowed = creds.read(node_user.file(node.broker.auth)).permissions
    assert allowed.may_publish("nodes.facts")
    assert allowed.may_subscribe("nodes.state.laptop")
    for subject in ("$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ", "evt.desk.a.b"):
        assert not allowed.may_publish(subject)
        assert not allowed.may_subscribe(subject)


def _has(node: EmbeddedServer, number: int) -> bool:
    file = Path(paths.state_dir(), "auth", "number.json")
    return file.exists() and f'"number":{number}'.encode() in file.read_bytes()
