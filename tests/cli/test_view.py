"""The read model that `top` and the page show: bounded, and kept by a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, mesh_client, restart, run
from tests.handlers.mesh import Mesh, mesh

from opsmesh.cli.health import Health
from opsmesh.cli.view import model
from opsmesh.cli.view.follower import Follower
from opsmesh.cli.view.model import SeenEvent, View
from opsmesh.cli.web.live import Live
from opsmesh.handlers.runs.ledger import Run
from opsmesh.handlers.slo.book import Book
from opsmesh.router import tasks
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.schemas.envelope import Event

SECOND = 1_000_000


def seen(n: int, *, at_s: int = 0, source: str = "s", host: str = "h") -> SeenEvent:
    event = Event(
        topic="a.b",
        ts_utc="2026-11-23T09:00:00Z",
        source=source,
        component="c",
        severity="info",
        correlation_id="c",
        host=host,
        session_id="",
        workspace="",
        payload={},
        id=str(n),
    )
    return SeenEvent(seq=n, stored_us=at_s * SECOND, subject="evt.h.a.b", event=event)


def ran(n: int, state: Any = "succeeded") -> Run:
    return Run(
        run_id=f"r{n}",
        profile="p",
        profile_hash="x",
        event_id="e",
        topic="a.b",
        correlation_id="c",
        host="h",
        stream_seq=n,
        created_us=n,
        updated_us=n,
        state=state,
    )


def test_it_is_bounded() -> None:
    """However much comes, the newest are kept, of events, runs, sources and hosts."""
    view = View(keep=10)
    for n in range(2 * model.NAMES):
        view.see(seen(n, at_s=n, source=f"s{n}", host=f"h{n}"))
        view.run(ran(n))
    assert [one.seq for one in view.events] == list(range(2 * model.NAMES - 10, 2 * model.NAMES))
    assert len(view.runs) == model.RUNS
    assert len(view.producers) == len(view.hosts) == model.NAMES
    assert len(view.rates((2 * model.NAMES) * SECOND, seconds=10 * model.SECONDS)) == 10 * 300


def test_the_rate_is_by_the_second() -> None:
    """Each of the last seconds has its number; the one that is not over is none of them."""
    view = View()
    for at_s in (7, 8, 8, 10):
        view.see(seen(0, at_s=at_s))
    assert view.rates(10 * SECOND + 5, seconds=3) == [1, 2, 0]


def test_the_last_word_of_a_source() -> None:
    """A source has its newest topic, when that was, and how many there were."""
    view = View()
    view.see(seen(1, at_s=1))
    view.see(seen(2, at_s=5))
    assert view.producers["s"] == model.Heard(topic="a.b", last_us=5 * SECOND, count=2)


def test_a_run_that_changes_is_the_newest() -> None:
    """Its record takes the place of the one before, at the end."""
    view = View()
    for one in (ran(1, "running"), ran(2), ran(1)):
        view.run(one)
    assert [(name, one.state) for name, one in view.runs.items()] == [
        ("r2", "succeeded"),
        ("r1", "succeeded"),
    ]


def test_every_change_has_a_version() -> None:
    """Whoever shows it sees by one number that there is something new."""
    view = View()
    changes: tuple[Callable[[], None], ...] = (
        lambda: view.see(seen(1)),
        lambda: view.run(ran(1)),
        lambda: view.stand(Health(), [], Book(), host="h", now_us=1),
    )
    for change in changes:
        before = view.version
        change()
        assert view.version > before


PROFILES = """
version: 1
profiles:
  good:
    on: [a.b]
    slo: {success: 90%, min_runs: 1}
    actions: [command: ["true"]]
  bad:
    on: [a.c]
    retry: {attempts: 1}
    actions: [command: ["false"]]
  asks:
    on: [a.d]
    actions: [{approve: "Really?", command: ["true"]}]
"""


@asynccontextmanager
async def followed(m: Mesh, *hosts: str) -> AsyncIterator[View]:
    view = View(keep=50)
    follower = Follower(view, m.settings, hosts=hosts)
    task = asyncio.create_task(follower.run())
    try:
        yield view
    finally:
        await tasks.end([task])


def test_a_run_that_changes_twice_between_two_looks(home: Path) -> None:
    """The page is sent what a run is at last, however often it has changed since."""
    follower, sent = Follower(View(), Settings()), b""
    page = Live(follower)
    for state in ("queued", "running", "succeeded"):
        follower.view.run(ran(1, state))
        if state != "running":
            sent = b"".join(page._news())
    assert b'"state":"succeeded"' in sent


def test_what_breaks_is_told(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever shows the view hears of a mistake in one of its parts: it does not stand still."""

    async def broken(*_: object, **__: object) -> Health:
        raise KeyError("of a mistake")

    monkeypatch.setattr("opsmesh.cli.view.follower.health.check", broken)

    async def body() -> None:
        async with mesh_client() as client:
            del client
            with pytest.raises(KeyError, match="of a mistake"):
                await Follower(View(), Settings()).run()

    run(body())


def test_what_is_older_than_a_week_is_let_go(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long somebody looks, the figures of a profile are those of the time that is said."""
    monkeypatch.setattr("opsmesh.cli.view.follower.LOOK_S", 0.1)
    monkeypatch.setattr("opsmesh.cli.view.follower.FACTS_US", 0)
    monkeypatch.setattr("opsmesh.cli.health._components", lambda health: True)

    async def body() -> None:
        async with mesh(PROFILES) as m:
            view = View(keep=50)
            follower = Follower(view, m.settings)
            task = asyncio.create_task(follower.run())
            try:
                await eventually(lambda: view.profiles)
                await m.publish("a.b")
                ended = "automation.run.succeeded"
                await eventually(lambda: ended in [e.event.topic for e in view.events if e.event])
                await eventually(lambda: not [*follower._book.facts.of("good")])
            finally:
                await tasks.end([task])

    run(body())


def test_it_follows_a_mesh(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events, runs, profiles, questions and letters are there, those from before and those that
    come; a broker that is started again is found."""
    monkeypatch.setattr("opsmesh.cli.view.follower.LOOK_S", 0.5)

    async def body() -> None:
        async with mesh(PROFILES) as m:
            monkeypatch.setattr("opsmesh.cli.health._components", lambda health: True)
            await m.publish("a.b")
            await m.wait("automation.run.succeeded")
            async with followed(m) as view:
                await eventually(lambda: any(one.profile == "good" for one in view.runs.values()))

                def told() -> bool:
                    topics = {one.event.topic for one in view.events if one.event}
                    return {"a.b", "automation.run.succeeded"} <= topics

                await eventually(told)
                await m.publish("a.c")
                await m.publish("a.d")
                await eventually(lambda: view.letters)
                await eventually(lambda: view.approvals)
                assert view.letters[0].profile == "bad"
                assert view.approvals[0].asked.prompt == "Really?"

                def counted() -> bool:
                    good, bad = view.profiles.get("good"), view.profiles.get("bad")
                    return bool(good and bad and good.succeeded == 1 and bad.failed == 1)

                await eventually(counted)
                [standing] = view.profiles["good"].objectives
                assert (standing.verdict, standing.runs) == ("ok", 1)
                assert view.connected
                assert view.verdict in ("ok", "degraded")
                await restart(m.client, nats_server)
                await eventually(lambda: view.connected)
                await m.publish("a.b", payload={"unit": "after"})

                def after() -> bool:
                    last = [one.event for one in view.events if one.event]
                    return any(event.payload.get("unit") == "after" for event in last)

                await eventually(after)
                seqs = [one.seq for one in view.events]
                assert seqs == sorted({*seqs})

    run(body())


def test_some_hosts_alone(nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of events, runs and questions those of the hosts that are named are shown, and the view says
    whose it is."""
    monkeypatch.setattr("opsmesh.cli.health._components", lambda health: True)

    async def body() -> None:
        async with mesh(PROFILES) as m:
            own = m.settings.host
            await m.publish("a.d")
            await m.wait("automation.approval.requested")
            for host in ("web1", "db1", "WEB2"):
                await m.publish("a.b", host=host)
            async with followed(m, "web*") as view, followed(m, own) as mine:
                await eventually(lambda: view.health and mine.approvals)
                await eventually(lambda: len(view.events) == 2)
                assert [one.event.host for one in view.events if one.event] == ["web1", "WEB2"]
                assert (view.runs, list(view.approvals)) == ({}, [])
                assert view.of == f"{own}, only web*"
                await eventually(lambda: mine.runs and mine.events)  # each heard for itself
                assert {one.profile for one in mine.runs.values()} == {"asks"}
                await eventually(lambda: mine.profiles and mine.profiles["asks"].asking == 1)
                assert {one.event.host for one in mine.events if one.event} == {own}

    run(body())
