"""A leaf host: handlers at its own broker, and others at the hub's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from opsmesh.cli import session
from opsmesh.cli.view.follower import Follower
from opsmesh.cli.view.model import View
from opsmesh.handlers.bundles.store import Store
from opsmesh.router import tasks, trigger
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import encode
from tests.across.hosts import Leaf, at, finished, hosts, in_force, leaf, publish, with_streams
from tests.conftest import eventually, run

SERVE = "opsmesh.handlers.serve"
BOTH = """
profiles:
  here: {on: my.thing, actions: [command: [echo, here]]}
  there: {on: my.thing, run_on: any, actions: [command: [echo, there]]}
"""
COLLECTS = """
profiles:
  here:
    on: my.thing
    actions: [collect: [env_summary]]
"""


def started(host: Leaf) -> None:
    host.start(SERVE)
    host.start(SERVE, "--scope", "mesh")


def test_each_broker_has_its_own_profiles(home: Path, nats_server: EmbeddedServer) -> None:
    """On a leaf what acts at the origin is decided at its own broker, also while the hub is away;
    what runs anywhere is decided at the hub, and goes on when that is back."""

    async def body() -> None:
        with leaf(home, "leaf1", nats_server) as host:
            await with_streams(nats_server, home)
            await with_streams(host.own, host.home)
            host.profiles(BOTH)
            started(host)
            async with at(host.own) as own, at(nats_server) as hub:
                await in_force(own, "here", "leaf1")
                await in_force(hub, "there", "leaf1")
                await in_force(own, "there")
                await in_force(hub, "here")
                for client in (own, hub):
                    await publish(client, "leaf1")
                assert [one.profile for one in await finished(own, 1)] == ["here"]
                assert [one.profile for one in await finished(hub, 1)] == ["there"]

                await asyncio.to_thread(nats_server.kill)
                await publish(own, "leaf1")
                assert [one.profile for one in await finished(own, 2)] == ["here", "here"]
                await asyncio.to_thread(nats_server.start)
                await eventually(lambda: hub.is_connected and hub.stats["reconnects"] > 0)
                await publish(hub, "leaf1")
                assert [one.profile for one in await finished(hub, 2)] == ["there", "there"]

    run(body())


@pytest.mark.slow
def test_handlers_wait_for_a_hub_that_is_away(home: Path, nats_server: EmbeddedServer) -> None:
    """Handlers that are started while the hub is away wait for it, and say so in one line."""

    async def body() -> None:
        with leaf(home, "leaf1", nats_server) as host:
            await with_streams(nats_server, home)
            host.profiles(BOTH)
            await asyncio.to_thread(nats_server.stop)
            host.start(SERVE, "--scope", "mesh")
            await eventually(lambda: "broker.unreachable" in host.log())
            await asyncio.to_thread(nats_server.start)
            async with at(nats_server) as hub:
                await in_force(hub, "there", "leaf1")
                await publish(hub, "other")
                await finished(hub, 1)
            assert host.log().count("broker.unreachable") == 1

    run(body())


@pytest.mark.slow
def test_a_leaf_looks_at_its_hub(
    home: Path, nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--hub top` and `--hub web` show a leaf the hub's events and what is decided there, with the
    verdict of its broker and no process; a hub that goes is said, and found again."""

    async def body() -> None:
        with leaf(home, "leaf1", nats_server) as host:
            await with_streams(nats_server, home)
            await with_streams(host.own, host.home)
            host.profiles(BOTH)
            started(host)
            for name, value in host.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setattr("opsmesh.cli.session._asks_hub", True)
            settings = Settings()
            async with at(host.own) as own, at(nats_server) as hub:
                await in_force(hub, "there", "leaf1")
                await publish(own, "leaf1", "only.here")
                await publish(hub, "other")
                await finished(hub, 1)
                view = View()
                follower = Follower(view, settings, hub=session.hub_endpoint(settings))
                following = asyncio.create_task(follower.run())
                await eventually(lambda: view.runs and view.profiles and view.events)
                topics = {one.event.topic for one in view.events if one.event}
                assert "my.thing" in topics
                assert "only.here" not in topics
                assert (view.of, view.verdict, list(view.components)) == ("hub hub", "ok", [])
                assert (view.profiles["there"].verdict, view.profiles["here"].verdict) == (
                    "ok",
                    "elsewhere",
                )
                assert "each host by itself" in view.profiles["here"].detail
                await asyncio.to_thread(nats_server.kill)
                await eventually(lambda: view.verdict == "down" and not view.connected)
                assert "when it is back" in view.problems[0]["fix"]
                await asyncio.to_thread(nats_server.start)
                await eventually(lambda: view.connected and view.verdict == "ok")
                await tasks.end([following])

    run(body(), timeout=180)


@pytest.mark.slow
def test_what_is_the_hubs_to_decide_is_refused_here(
    home: Path, nats_server: EmbeddedServer
) -> None:
    """A trigger at a leaf's own broker for a profile that runs anywhere is a dead letter that names
    the command for it."""

    async def body() -> None:
        with leaf(home, "leaf1", nats_server) as host:
            await with_streams(host.own, host.home)
            host.profiles(BOTH)
            host.start(SERVE)
            async with at(host.own) as own:
                await in_force(own, "here", "leaf1")
                said = host.cli("profile", "trigger", "there", "--topic", "other.topic")
                assert "opsmesh --hub profile trigger there" in said.stderr
                event = await publish(own, "leaf1", "other.topic")
                asked = Trigger(kind="manual", id=ids.uuid7())
                await trigger.send(own, "there", encode(event), asked)

                def letters() -> str:
                    return host.cli("dlq", "ls", "--json").stdout

                text = await eventually(lambda: "opsmesh --hub" in letters() and letters())
                assert "decided at the hub: opsmesh --hub profile trigger there" in text

    run(body())


@pytest.mark.slow
def test_bundles_of_a_leaf_reach_other_hosts(home: Path, nats_server: EmbeddedServer) -> None:
    """A bundle that was made while the hub was away comes to its object store once it is back, and
    another host opens it."""

    async def body() -> None:
        with leaf(home, "leaf1", nats_server) as host, hosts(home, nats_server, "thin") as [thin]:
            await with_streams(nats_server, home)
            await with_streams(host.own, host.home)
            host.profiles(COLLECTS)
            started(host)
            async with at(host.own) as own, at(nats_server) as hub:
                await in_force(own, "here", "leaf1")
                await eventually(lambda: host.log().count("handlers.ready") == 2)
                await asyncio.to_thread(nats_server.kill)
                await publish(own, "leaf1")
                [made] = await finished(own, 1)
                assert made.state == "succeeded"
                await asyncio.to_thread(nats_server.start)
                await eventually(lambda: hub.is_connected and hub.stats["reconnects"] > 0)
                await eventually(Store(hub).list)
                assert await Store(own).list() == []
                shown = await asyncio.to_thread(
                    thin.cli_json, "evidence", "bundle", "show", made.run_id
                )
                assert shown["host"] == "leaf1"

    run(body())


@pytest.mark.slow
def test_the_hub_is_asked_when_it_is_told_so(home: Path, nats_server: EmbeddedServer) -> None:
    """With --hub a command on a leaf is answered by the hub, without it by the leaf's own broker;
    a hub that is away is said, and a command about this host alone refuses it."""

    async def body() -> None:
        with leaf(home, "leaf1", nats_server) as host:
            await with_streams(nats_server, home)
            await with_streams(host.own, host.home)
            async with at(host.own) as own, at(nats_server) as hub:
                await publish(own, "leaf1", "my.own")
                await publish(hub, "other", "my.others")
            tail = ("tail", "--no-follow", "--json")

            def topics(*arguments: str) -> list[str]:
                lines = host.cli(*arguments).stdout.splitlines()
                return [json.loads(line)["topic"] for line in lines]

            assert topics(*tail) == ["my.own"]
            assert topics("--hub", *tail) == ["my.others"]
            assert topics("--hub", *tail, "--host", "elsewhere") == []
            assert topics("--hub", *tail, "--host", "elsewhere", "--host", "ot*") == ["my.others"]
            refused = host.cli("--hub", "up")
            assert refused.returncode == 2
            assert "--hub has no meaning for up" in refused.stderr
            nats_server.stop()
            away = host.cli("--hub", *tail)
            assert away.returncode == 69
            assert "without --hub" in away.stderr

    run(body())
