"""Handlers that are killed, and brokers that go away, in the middle of a question's life."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from nats.aio.client import Client
from tests.conftest import eventually, mesh_client, run
from tests.handlers.approving import asked, ended, left, ran, reply, say, text
from tests.handlers.dying_asking import ANSWERED, ASKING
from tests.handlers.handlers_process import handlers, owner_of
from tests.handlers.mesh import mesh, write_profiles
from tests.handlers.test_handler_dies import publish, told

from opsmesh.handlers.runs import approvals, asker
from opsmesh.handlers.runs.approvals import Open
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.handlers.runs.waiting import Index
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings

#: Places that every change has to pass; the rest are in `make test-all`.
FAST = ("after the question is in the ledger", "after the end is told")
ENDS = ("requested", "granted", "denied", "expired", "withdrawn", "refused")


async def waiting(client: Client) -> list[Open]:
    """The one question that waits."""

    async def there() -> list[Open]:
        return [one async for one in approvals.waiting(client)]

    found: list[Open] = await eventually(there)
    return found


async def over(client: Client) -> Run:
    """The one run, once it has ended."""

    async def there() -> Run | None:
        found = [run async for run in Ledger(client).runs() if run.finished]
        return found[0] if found else None

    found = await eventually(there)
    assert isinstance(found, Run)
    return found


async def counts(client: Client) -> dict[str, int]:
    """How many events of each kind tell of questions."""
    found = await told(client, "automation.approval.>")
    return dict(Counter(event.topic.rpartition(".")[2] for event in found))


def dying(place: str) -> subprocess.Popen[bytes]:
    """Handlers that kill themselves there."""
    return subprocess.Popen([sys.executable, "-m", "tests.handlers.dying_asking", place])


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(one, marks=() if one in FAST else pytest.mark.slow)
        for one in (*ASKING, *ANSWERED)
    ],
)
def test_killed(nats_server: EmbeddedServer, tmp_path: Path, place: str) -> None:
    """Wherever in its life a handler is killed: one question, one answer, one action, one event of
    each kind, and nothing is left in the index."""
    out, settings = tmp_path / "out", Settings()
    write_profiles(text(out))

    async def body() -> None:
        async with mesh_client(settings) as client:
            victim = dying(place)
            await owner_of(client, f"profile-restart-on-{settings.host}")
            await publish(client, settings)
            if place in ANSWERED:
                [one] = await waiting(client)
                await reply(client, one)
            await asyncio.to_thread(victim.wait, 60)
            assert victim.returncode == -signal.SIGKILL
            with handlers(tmp_path / "logs") as processes:
                processes.start()
                if place in ASKING:
                    [one] = await waiting(client)
                    done = await reply(client, one)
                    assert done.new
                assert (await over(client)).state == "succeeded"
            assert ran(out) == ["restarted", "after-granted"]
            assert await counts(client) == {"requested": 1, "granted": 1}
            assert [one async for one in Index(client).open()] == []

    run(body())


def test_two_processes(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Two handlers processes: one asks, and when it is killed the other goes on with the answer."""
    out, settings = tmp_path / "out", Settings()
    write_profiles(text(out))

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                processes.start()
                processes.start()
                facts = await owner_of(client, f"profile-restart-on-{settings.host}")
                await publish(client, settings)
                [one] = await waiting(client)
                processes.kill(facts["pid"])
                await reply(client, one)
                assert (await over(client)).state == "succeeded"
            assert ran(out) == ["restarted", "after-granted"]
            assert await counts(client) == {"requested": 1, "granted": 1}

    run(body())


def test_told_once_also_when_the_broker_has_forgotten(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the broker's window for duplicates, who takes over looks before it tells."""
    out, settings = tmp_path / "out", Settings()
    monkeypatch.setattr(asker, "BROKER_KNOWS_US", -1)

    async def body() -> None:
        one = await left(text(out), settings)
        async with mesh_client(settings) as client:
            published: list[str] = []
            async with mesh(text(out), settings=settings) as m:
                publish_ = m.server._events.publish

                async def noted(subject: str, *more: object, **named: object) -> object:
                    published.append(subject.rpartition(".")[2])
                    return await publish_(subject, *more, **named)  # type: ignore[arg-type]

                m.server._events.publish = noted  # type: ignore[method-assign,assignment]
                await say(m, one)
                await ended(m, "succeeded")
                await m.wait("automation.run.succeeded")
            assert published.count("requested") == 0
            assert published.count("granted") == 1
            assert await counts(client) == {"requested": 1, "granted": 1}

    run(body())


@pytest.mark.slow
def test_the_broker_goes_away(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restarted between question and answer: the answer counts, once."""
    out = tmp_path / "out"
    monkeypatch.setattr("opsmesh.handlers.runs.runs.UNEXPECTED_DELAY", 0.05)

    async def body() -> None:
        async with mesh(text(out)) as m:
            await m.publish()
            [one] = await asked(m)
            await asyncio.to_thread(nats_server.stop)
            await asyncio.to_thread(nats_server.start)
            await eventually(lambda: _connected(m.client))
            await say(m, one)
            await ended(m, "succeeded")
            assert ran(out) == ["restarted", "after-granted"]
            assert await counts(m.client) == {"requested": 1, "granted": 1}

    run(body())


async def _connected(client: Client) -> bool:
    return client.is_connected


def test_a_waiting_run_outlives_a_broker_that_does_not_answer(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong while a run waits does not end its wait."""
    out, settings = tmp_path / "out", Settings()
    monkeypatch.setattr("opsmesh.handlers.runs.runs.UNEXPECTED_DELAY", 0.05)

    async def body() -> None:
        async with mesh(text(out), settings=settings) as m:
            await m.publish()
            await asked(m)
        put, failures = Index.put, [TimeoutError(), TimeoutError()]

        async def failing(self: Index, question_id: str, run_key: str) -> None:
            if failures:
                raise failures.pop()
            await put(self, question_id, run_key)

        monkeypatch.setattr(Index, "put", failing)
        async with mesh(text(out), settings=settings) as m:
            [one] = await asked(m)
            await eventually(lambda: _none(failures))
            await say(m, one)
            await ended(m, "succeeded")

    run(body())


async def _none(failures: list[TimeoutError]) -> bool:
    return not failures
