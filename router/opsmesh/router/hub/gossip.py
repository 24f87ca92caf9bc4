"""What the nodes of a cluster tell each other, agent to agent, so that each has the newest state.

    nodes.facts         what have you? Every agent answers, with `Facts`
    nodes.state.NODE    that node's whole state, from an offset on

The one rule: a node takes only what its server has read as well, and says only what it has taken.
Any node that has the newest state gives it, so the keeper may be away.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from opsmesh.router import connection, logs, paths, server
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import BrokerUnavailable, RouterError
from opsmesh.router.hub import cluster, node_user
from opsmesh.router.hub.cluster import Cluster
from opsmesh.router.hub.node_user import NODES
from opsmesh.router.hub.replica import BadState, Facts, Replica, State, behind
from opsmesh.router.server import Broker
from opsmesh.schemas.envelope import host_token

#: Seconds between two looks at what the others have.
EVERY: Final = 2.0
#: Seconds that they have to answer.
PATIENCE: Final = 1.0
#: Seconds between two questions of somebody who waits until they have it.
AGAIN: Final = 0.2
#: Seconds for a piece of a state, and bytes of one.
TIMEOUT: Final = 5.0
PIECE: Final = 512 * 1024

_FACTS: Final = f"{NODES}.facts"

log = structlog.get_logger()


async def keep() -> None:
    """Have the newest state until cancelled; returns at once on a machine that is no node."""
    throttle = logs.Throttle()
    while (own := cluster.read()) is not None:
        broker = server.known(Path(paths.state_dir()))
        if broker is not None:
            try:
                node_user.issue(broker.auth, own.own)  # with the keys that are here now
                async with _connected(broker, patient=True) as client:
                    await Node(client, own, broker).run()
            except (RouterError, NatsError, OSError, TimeoutError) as error:
                if throttle.allows(str(error)):
                    log.warning("nodes.not_asked", error=str(error) or type(error).__name__)
        await asyncio.sleep(EVERY)


async def stand(own: Cluster, *, within: float = 0) -> list[Facts]:
    """What the nodes have, this one first; who does not answer is not among them.

    What this one has is what lies here, also while its agent is away. The others, who hear of it
    by this question, have `within` seconds to take it. BrokerUnavailable when the server here does
    not answer.
    """
    broker = server.known(Path(paths.state_dir()))
    if broker is None:
        raise BrokerUnavailable("", "")
    replica, deadline = _replica(own, broker), time.monotonic() + within
    while True:
        try:
            found = await _standing(own, broker, replica)
            if not behind(found) or time.monotonic() > deadline:
                return found
        except (*connection.AWAY, BrokerUnavailable):
            # a server that reads its file anew may refuse for a moment
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(AGAIN)


async def _standing(own: Cluster, broker: Broker, replica: Replica) -> list[Facts]:
    mine = await asyncio.to_thread(replica.facts)
    if not node_user.file(broker.auth).exists():
        node_user.issue(broker.auth, own.own)
    async with _connected(broker, patient=False) as client:
        told = await ask(client, mine, len(own.nodes))
    return [mine, *(told[one.name] for one in own.others if one.name in told)]


async def ask(client: Client, mine: Facts, nodes: int) -> dict[str, Facts]:
    """What every agent answers within PATIENCE, this node's own too, by their names."""
    found: dict[str, Facts] = {}
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    try:
        await client.publish(_FACTS, msgspec.json.encode(mine), reply=inbox)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while len(found) < nodes:
                    msg = await answers.next_msg(timeout=PATIENCE)
                    with contextlib.suppress(msgspec.DecodeError):
                        facts = msgspec.json.decode(msg.data, type=Facts)
                        found[facts.node] = facts
    finally:
        await answers.unsubscribe()
    return found


class Node:
    """This node among the others, over a connection of its own."""

    def __init__(self, client: Client, own: Cluster, broker: Broker) -> None:
        self._client, self._own, self._broker = client, own, broker
        self._replica = _replica(own, broker)
        self._changing = asyncio.Lock()
        self._news = asyncio.Event()
        self._last: Facts | None = None
        self._heard: dict[str, Facts] = {}
        self._voided: dict[str, str] = {}
        self._throttle = logs.Throttle()
        #: Whether the server may not have read what lies here: who was killed may have written it.
        self._unread = True

    async def run(self) -> None:
        """Answer, and look, until the connection has ended for good."""
        await self._client.subscribe(_FACTS, cb=self._asked)
        await self._client.subscribe(_state(self._own.own), cb=self._wanted)
        while not self._client.is_closed:
            self._news.clear()
            try:
                await self.look()
            except (RouterError, NatsError, OSError, TimeoutError) as error:
                if self._throttle.allows(str(error)):
                    log.warning("nodes.not_taken", error=str(error) or type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._news.wait()

    async def look(self) -> None:
        """Ask the others once, and take what is newer there."""
        async with self._changing:
            await self._read()
        mine = await self._facts()
        told = await ask(self._client, mine, len(self._own.nodes))
        others = [told[one.name] for one in self._own.others if one.name in told]
        newest = max(others, key=lambda one: one.number.order, default=mine)
        if newest.number.order > mine.number.order:
            state = await self.fetched(newest.node)
            await self._take(state)
            log.info("nodes.taken", number=state.number.number, node=newest.node)
            return
        for one in others:
            if one.revoked not in (mine.revoked, self._voided.get(one.node)):
                await self._void(await self.fetched(one.node), one.node)
                self._voided[one.node] = one.revoked

    async def _facts(self) -> Facts:
        async with self._changing:
            self._last = await asyncio.to_thread(self._replica.facts)
        return self._last

    async def _take(self, state: State) -> None:
        async with self._changing:
            self._unread = True
            await asyncio.to_thread(self._replica.place, state)
            await self._read()
            await asyncio.to_thread(self._replica.record, state.number)

    async def _void(self, state: State, node: str) -> None:
        async with self._changing:
            if await asyncio.to_thread(self._replica.revoke, state):
                self._unread = True
                log.info("nodes.revoked", node=node)
            await self._read()

    async def _read(self) -> None:
        """Have the server read what is on the disk, where it has not."""
        if self._unread and not await asyncio.to_thread(server.reload, self._broker):
            raise BrokerUnavailable(self._broker.url, "the server here does not run")
        self._unread = False

    async def _asked(self, msg: Msg) -> None:
        with contextlib.suppress(msgspec.DecodeError, RouterError, NatsError, OSError):
            asker = msgspec.json.decode(msg.data, type=Facts)
            # whoever asks while something is taken here is not kept waiting: it is behind yet
            known = self._last if self._changing.locked() else None
            mine = known or await self._facts()
            await self._client.publish(msg.reply, msgspec.json.encode(mine))
            if asker != self._heard.get(asker.node) and asker.order > mine.order:
                self._news.set()
            self._heard[asker.node] = asker

    async def _wanted(self, msg: Msg) -> None:
        with contextlib.suppress(ValueError, RouterError, NatsError, OSError):
            first = int(msg.data)
            state = await asyncio.to_thread(self._replica.state)
            packed = await asyncio.to_thread(pack, state)
            await self._client.publish(msg.reply, packed[first : first + PIECE])

    async def fetched(self, node: str) -> State:
        """All that another node has; BadState where that was cut."""
        packed = b""
        while True:
            asked = str(len(packed)).encode()
            piece = (await self._client.request(_state(node), asked, timeout=TIMEOUT)).data
            packed += piece
            if len(piece) < PIECE:
                return unpack(packed)


def pack(state: State) -> bytes:
    """A state as it is sent."""
    return zlib.compress(msgspec.msgpack.encode(state))


def unpack(packed: bytes) -> State:
    """What `pack` was given; BadState for anything else, also when it changed between pieces."""
    try:
        return msgspec.msgpack.decode(zlib.decompress(packed), type=State)
    except (zlib.error, msgspec.DecodeError) as error:
        raise BadState(f"it is not whole: {error}") from error


def _replica(own: Cluster, broker: Broker) -> Replica:
    return Replica(broker.auth, host=own.own, keeper=own.own == own.keeper)


def _state(node: str) -> str:
    return f"{NODES}.state.{host_token(node)}"


@asynccontextmanager
async def _connected(broker: Broker, *, patient: bool) -> AsyncIterator[Client]:
    credentials = node_user.file(broker.auth)
    where = Endpoint(url=broker.url, credentials=credentials, tls=broker.auth.own_tls)
    client = await connection.connect(where, name="nodes", patient=patient)
    try:
        yield client
    finally:
        await client.close()
