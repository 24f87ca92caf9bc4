"""A hub's server and a leaf's, both real, on loopback: what crosses between them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.js.errors import NotFoundError
from tests.conftest import eventually, run

from opsmesh.router import connection, files, server, topology
from opsmesh.router.auth.store import Store
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.hub import leaf, plan, sourcing, standing, trust, watch
from opsmesh.router.hub.plan import Member, Plan
from opsmesh.router.hub.server import LOOPBACK, PING, Spread, remote
from opsmesh.router.joined import LEAF_CREDS, Hub, Joined
from opsmesh.router.server import Broker, EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import DECISIONS, EVENTS, TRIGGERS, Known

HOST = "desk"
PLAN = Plan(
    host="server",
    addresses=[LOOPBACK],
    hosts={HOST: Member(kind="leaf", since="2026-11-27T20:00:00.000000Z")},
)


@dataclass(frozen=True)
class Pair:
    """Both servers, and a connection to each with streams joined as the agents join them."""

    hub: EmbeddedServer
    leaf: EmbeddedServer
    member: Joined

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[tuple[Client, Client]]:
        async with client(self.hub.broker) as there, client(self.leaf.broker) as here:
            for each, name in ((there, "hub"), (here, "leaf")):
                known = Known(self.member.folder / f"{name}.json")
                await topology.ensure(each.jetstream(), Settings(), known)
            await sourcing.sources(there.jetstream(), PLAN)
            await sourcing.consumers(here, self.member)
            yield there, here


@asynccontextmanager
async def client(broker: Broker) -> AsyncIterator[Client]:
    """A connection as the machine's own components have it."""
    tls = broker.auth.own_tls
    where = Endpoint(url=broker.url, credentials=broker.credentials("admin"), tls=tls)
    made = await connection.connect(where, name="test")
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def pair(home: Path) -> Iterator[Pair]:
    """A hub and its leaf; the streams are empty."""
    for left in (2, 1, 0):
        made = _prepared(home / str(left))
        try:
            made.hub.start()
            made.leaf.start()
            break
        except BrokerUnavailable:  # a port that was free was taken by another test's server
            made.leaf.stop()
            made.hub.stop()
            if not left:
                raise
    yield made
    made.leaf.stop()
    made.hub.stop()


def _prepared(home: Path) -> Pair:
    home.mkdir()
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    trust.certify(Store(home / "hub" / "auth"), "server", [LOOPBACK])
    at_hub = Spread(domain="hub", leaf_listen=f"{LOOPBACK}:{port}", more=PING)
    hub = EmbeddedServer(server.prepare(home / "hub", name="server", place=at_hub))
    for name, data in trust.issue(hub.broker.auth, HOST, "leaf").items():
        files.write_private(home / name, data)
    known = Hub(
        kind="leaf",
        host=HOST,
        urls=[],
        leaf_urls=[f"tls://{LOOPBACK}:{port}"],
        hub_host="server",
    )
    member = Joined(hub=known, folder=home)
    at_leaf = Spread(domain=leaf.domain(HOST), remote=remote(member), more=PING)
    mine = EmbeddedServer(server.prepare(home / "leaf", name=HOST, place=at_leaf))
    return Pair(hub, mine, member)


async def publish(at: Client, subject: str, first: int, end: int) -> None:
    for n in range(first, end):
        headers = {"Nats-Msg-Id": f"{subject}-{n}"}
        await at.jetstream().publish(subject, b"%d" % n, headers=headers)


async def subjects(at: Client, stream: str = EVENTS) -> dict[str, int]:
    info = await at.jetstream().stream_info(stream, subjects_filter=">")
    return info.state.subjects or {}


async def numbers(at: Client, stream: str = EVENTS) -> list[int]:
    js = at.jetstream()
    state = (await js.stream_info(stream)).state
    found = [await js.get_msg(stream, n) for n in range(1, state.last_seq + 1)]
    return [int(one.data or b"") for one in found]


async def arrives(there: Client, wanted: dict[str, int], stream: str = EVENTS) -> None:
    async def arrived() -> bool:
        return await subjects(there, stream) == wanted

    await eventually(arrived)


def test_the_hub_has_what_happened_at_a_leaf_once_and_in_order(pair: Pair) -> None:
    """Events of a leaf come to the hub in their order, and what the hub stores stays there."""

    async def scenario() -> None:
        async with pair.clients() as (there, here):
            await publish(here, f"evt.{HOST}.load.test", 0, 50)
            await arrives(there, {f"evt.{HOST}.load.test": 50})
            assert await numbers(there) == list(range(50))
            await publish(there, "evt.server.load.test", 0, 5)
            await publish(here, f"evt.{HOST}.load.test", 50, 55)
            await arrives(there, {f"evt.{HOST}.load.test": 55, "evt.server.load.test": 5})
            assert await subjects(here) == {f"evt.{HOST}.load.test": 55}

    run(scenario())


def test_a_source_that_was_taken_away_comes_back(pair: Pair) -> None:
    """A hub that ended, or was not answered, while it asked a leaf anew asks it at a later look."""

    async def scenario() -> None:
        async with pair.clients() as (there, here):
            js = there.jetstream()
            await js.update_stream(replace((await js.stream_info(EVENTS)).config, sources=[]))
            silent = await sourcing.silent(there, PLAN, {HOST})
            assert (EVENTS, HOST) in silent
            await sourcing.again(js, PLAN, silent)
            await publish(here, f"evt.{HOST}.load.test", 0, 5)
            await arrives(there, {f"evt.{HOST}.load.test": 5})

    run(scenario())


def test_a_leaf_speaks_for_its_own_host_alone(pair: Pair) -> None:
    """Whatever host a leaf puts into a subject, at the hub it is the leaf's own."""

    async def scenario() -> None:
        async with pair.clients() as (there, here):
            await publish(here, "evt.server.auth.failed", 0, 1)
            await publish(here, "dec.triage.server", 0, 1)
            await arrives(there, {f"evt.{HOST}.auth.failed": 1})
            await arrives(there, {f"dec.triage.{HOST}": 1}, DECISIONS)

    run(scenario())


def test_a_leafs_credentials_are_good_for_nothing_else(pair: Pair) -> None:
    """As a client with them one can neither publish events nor ask the hub's broker anything."""

    async def scenario() -> None:
        denied: list[str] = []

        async def error(problem: Exception) -> None:
            denied.append(str(problem).lower())

        tls = pair.hub.broker.auth.own_tls
        assert tls is not None
        async with pair.clients() as (there, _):
            stranger = await nats.connect(
                pair.hub.broker.url,
                user_credentials=str(pair.member.folder / LEAF_CREDS),
                tls=tls.context(),
                error_cb=error,
            )
            for subject in ("evt.server.x", f"evt.{HOST}.x", "trg.triage", "$KV.opsmesh-runs.x"):
                await stranger.publish(subject, b"1")
            await stranger.publish("$JS.API.STREAM.INFO.EVENTS", b"", reply="_INBOX.x")
            await stranger.subscribe("evt.>")
            await stranger.subscribe("src.>")
            await eventually(lambda: len([d for d in denied if "permissions violation" in d]) == 7)
            assert await subjects(there) == {}
            await stranger.close()

    run(scenario())


def test_a_hub_can_ask_nothing_of_a_leaf_but_to_begin_again(pair: Pair) -> None:
    """Neither streams nor messages of a leaf can be had, or changed, through its domain."""

    async def scenario() -> None:
        async with pair.clients() as (there, here):
            await publish(here, f"evt.{HOST}.load.test", 0, 1)
            await arrives(there, {f"evt.{HOST}.load.test": 1})
            api = f"$JS.{leaf.domain(HOST)}.API"
            for subject in (
                f"{api}.STREAM.INFO.EVENTS",
                f"{api}.STREAM.PURGE.EVENTS",
                f"{api}.STREAM.MSG.GET.EVENTS",
                f"{api}.CONSUMER.CREATE.EVENTS.mine",
                f"{api}.CONSUMER.DELETE.EVENTS.{leaf.consumer(HOST)}",
                "ctl.run",
            ):
                with pytest.raises((NoRespondersError, TimeoutError)):
                    await there.request(subject, b"", timeout=0.3)
            await publish(there, "trg.triage", 0, 1)
            await publish(here, f"evt.{HOST}.load.test", 1, 2)
            await arrives(there, {f"evt.{HOST}.load.test": 2})
            assert await subjects(here, TRIGGERS) == {}

    run(scenario())


@pytest.mark.slow  # the hub begins again five seconds after its start
def test_a_leaf_knows_what_the_hub_does_not_have_yet(pair: Pair) -> None:
    """While the hub is away its leaf counts what waits; when it is back nothing waits."""

    async def scenario() -> None:
        async with pair.clients() as (there, here):
            await publish(here, f"evt.{HOST}.load.test", 0, 10)
            await arrives(there, {f"evt.{HOST}.load.test": 10})

            async def fed(**wanted: Any) -> bool:
                found = await standing.fed(here.jetstream(), HOST)
                return found is not None and all(
                    getattr(found, name) == value for name, value in wanted.items()
                )

            await eventually(lambda: fed(connected=True, lag=0))
            await asyncio.to_thread(pair.hub.kill)
            await publish(here, f"evt.{HOST}.load.test", 10, 17)
            await eventually(lambda: fed(connected=False, lag=7))
            await asyncio.to_thread(pair.hub.start)
            await eventually(lambda: fed(connected=True, lag=0))
            assert await numbers(there) == list(range(17))

    run(scenario())


def test_the_hub_knows_how_far_it_is_with_each_leaf(pair: Pair) -> None:
    """EVENTS of the hub tells that a leaf is heard, and that nothing of it is missing."""

    async def scenario() -> None:
        async with pair.clients() as (there, here):
            await publish(here, f"evt.{HOST}.load.test", 0, 3)
            await arrives(there, {f"evt.{HOST}.load.test": 3})
            found = (await standing.heard(there))[HOST]
            assert found.connected
            assert found.lag == 0

    run(scenario())


def test_a_leaf_that_was_removed_and_let_in_again_goes_on_where_it_was(pair: Pair) -> None:
    """Nothing is stored while it is removed, and nothing twice or never when it is back."""

    async def scenario() -> None:
        async with pair.clients() as (there, here):
            await publish(here, f"evt.{HOST}.load.test", 0, 5)
            await arrives(there, {f"evt.{HOST}.load.test": 5})
            js = there.jetstream()
            assert EVENTS in await sourcing.sources(js, PLAN.without(HOST))
            await publish(here, f"evt.{HOST}.load.test", 5, 9)
            assert await sourcing.sources(js, PLAN.without(HOST)) == []
            assert await subjects(there) == {f"evt.{HOST}.load.test": 5}
            assert EVENTS in await sourcing.sources(js, PLAN)
            await arrives(there, {f"evt.{HOST}.load.test": 9})
            assert await numbers(there) == list(range(9))

    run(scenario())


def test_the_agents_check_of_streams_keeps_their_sources(pair: Pair) -> None:
    """A setting that changes a stream leaves what it sources as it is."""

    async def scenario() -> None:
        async with pair.clients() as (there, _):
            wanted = Settings(events={"max_age": "2h"})  # type: ignore[arg-type]
            known = Known(pair.member.folder / "hub.json")
            await topology.ensure(there.jetstream(), wanted, known)
            info = await there.jetstream().stream_info(EVENTS)
            assert info.config.max_age == 7200
            assert [one.name for one in info.config.sources or ()] == [EVENTS]

    run(scenario())


def test_a_host_that_leaves_feeds_nobody(pair: Pair) -> None:
    """`leave` takes the consumers away; a second time there is nothing to do."""

    async def scenario() -> None:
        async with pair.clients() as (_, here):
            js = here.jetstream()
            await js.consumer_info(EVENTS, leaf.consumer(HOST))
            await sourcing.forget(js, HOST)
            await sourcing.forget(js, HOST)
            with pytest.raises(NotFoundError):
                await js.consumer_info(EVENTS, leaf.consumer(HOST))

    run(scenario())


def test_a_leaf_that_is_silent_twice_is_asked_anew(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look finds a leaf silent that is connected, the second has the server begin anew with it,
    and then it has that long again."""
    monkeypatch.setattr(standing, "SILENT", 2.0)
    monkeypatch.setattr(server, "known", lambda state: pair.hub.broker)
    plan.write(PLAN)

    async def scenario() -> None:
        async with pair.clients() as (there, here):
            await publish(here, f"evt.{HOST}.load.test", 0, 3)
            await arrives(there, {f"evt.{HOST}.load.test": 3})
            await sourcing.forget(here.jetstream(), HOST)

            async def silent() -> set[tuple[str, str]]:
                found = await watch.look(there, set())
                return found if (EVENTS, HOST) in found else set()

            before = await eventually(silent)
            assert (await standing.heard(there))[HOST].silent_s is not None
            assert (EVENTS, HOST) not in await watch.look(there, before)
            assert (await standing.heard(there))[HOST].silent_s is None

    run(scenario())


def test_asking_a_leaf_anew_loses_nothing(pair: Pair) -> None:
    """What comes meanwhile is stored once and in order, and the sources are what they were."""

    async def scenario() -> None:
        async with pair.clients() as (there, here):
            js = there.jetstream()
            for n in range(4):
                await publish(here, f"evt.{HOST}.load.test", 5 * n, 5 * n + 5)
                await sourcing.again(js, PLAN, {(EVENTS, HOST)})
            await arrives(there, {f"evt.{HOST}.load.test": 20})
            assert await numbers(there) == list(range(20))
            assert await sourcing.sources(js, PLAN) == []

    run(scenario())


def test_a_machine_that_is_no_hub_watches_nobody(home: Path) -> None:
    """The watch ends at once."""
    run(watch.watch(lambda: None))
