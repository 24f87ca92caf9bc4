"""Runs that end, change or stand aside while they wait for a person, and what asks nobody."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import eventually, limited, mesh_client, run
from tests.handlers.approving import asked, ended, left, ran, say, say_meanwhile, text
from tests.handlers.mesh import Mesh, mesh, write_profiles

from opsmesh.handlers.runs import approvals, cancelling
from opsmesh.handlers.runs.approvals import Open, RefusedAnswer
from opsmesh.handlers.runs.asker import Asker
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.handlers.runs.waiting import Index
from opsmesh.router import trigger
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import encode


async def index(m: Mesh) -> list[str]:
    """What the index says is open."""
    return [question async for question, _ in Index(m.client).open()]


async def counts(m: Mesh) -> dict[str, int]:
    """How many events of each kind tell of questions."""
    found = await m.events("automation.approval.>")
    return dict(Counter(event.topic.rpartition(".")[2] for event in found))


async def withdrawn(m: Mesh, one: Open) -> None:
    """A question ended with its run: told, out of the index, and refused from then on."""
    [told] = await m.wait("automation.approval.withdrawn")
    assert told.payload["approval_id"] == one.asked.id

    async def out() -> bool:
        return one.asked.id not in await index(m)

    await eventually(out)
    assert one.asked.id not in [o.asked.id async for o in approvals.waiting(m.client)]
    with pytest.raises(RefusedAnswer, match="withdrawn, for its run ended"):
        await say(m, one)


def test_cancelled(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A run that is cancelled while it waits takes its question with it."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out")) as m:
            await m.publish()
            [one] = await asked(m)
            assert await cancelling.ask(m.client, one.run.run_id, "no need")
            await ended(m, "cancelled")
            await withdrawn(m, one)
            assert ran(tmp_path / "out") == []

    run(body())


def test_restart_withdraws(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """With `mode: restart` a newer event takes the place of a run that waits, question and all."""

    async def body() -> None:
        more = "concurrency: {mode: restart}"
        async with mesh(text(tmp_path / "out", more=more)) as m:
            await m.publish()
            [one] = await asked(m)
            await m.publish()
            await ended(m, "cancelled")
            await withdrawn(m, one)
            [other] = await asked(m)
            assert other.run.run_id != one.run.run_id

    run(body())


def test_single_is_skipped(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """With `mode: single` a run that waits is under way: a newer one is skipped."""

    async def body() -> None:
        more = "concurrency: {mode: single}"
        async with mesh(text(tmp_path / "out", more=more)) as m:
            await m.publish()
            [one] = await asked(m)
            await m.publish()
            await ended(m, "skipped")
            assert [two.asked.id for two in await asked(m)] == [one.asked.id]

    run(body())


def test_queued_waits_behind_it(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """With `mode: queued` the second run asks when the first has had its answer."""

    async def body() -> None:
        more = "concurrency: {mode: queued}"
        async with mesh(text(tmp_path / "out", more=more)) as m:
            await m.publish()
            [first] = await asked(m)
            await m.publish()
            await m.decided("restart", 2)
            assert len(await index(m)) == 1
            await say(m, first)

            async def second() -> bool:
                found = [one async for one in approvals.waiting(m.client)]
                return [one.run.run_id != first.run.run_id for one in found] == [True]

            await eventually(second)

    run(body())


def test_told_by_a_successor(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A run was cancelled, and its handler killed before it told of the question: a sweep does."""
    settings = Settings()

    async def body() -> None:
        one = await left(text(tmp_path / "out"), settings)
        async with mesh_client(settings) as client:
            held = await Ledger(client).get(one.run.key)
            assert held is not None
            held.run.state, held.run.reason = "cancelled", "by hand"
            await held.save(held.run.updated_us)
            await Index(client).put("00000000-0000-7000-8000-000000000000", "no.run")
        async with mesh(text(tmp_path / "out"), settings=settings) as m:

            async def clear() -> bool:
                return not await index(m)

            await eventually(clear)

    run(body())


def test_answered_leaves_nothing_behind(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """An answer that was given while nobody was there leaves no entry of its run in the index."""
    settings = Settings()

    async def body() -> None:
        one = await left(text(tmp_path / "out"), settings)
        await say_meanwhile(one, settings)
        async with mesh(text(tmp_path / "out"), settings=settings) as m:
            await ended(m, "succeeded")
            assert await index(m) == []

    run(body())


def test_a_run_may_wait_twice(nats_server: EmbeddedServer) -> None:
    """What was noted, ended and is noted again is there again."""

    async def body() -> None:
        async with mesh_client() as client:  # handlers would clear a run that no ledger has
            noted = Index(client)
            for _ in range(2):
                await noted.put("a-run", "p.key")
                assert [run async for run, _ in noted.open()] == ["a-run"]
                await noted.end("a-run", "p.key")
                assert [run async for run, _ in noted.open()] == []

    run(body())


@pytest.mark.parametrize("asks", ["", 'approve: "Sure?"'])
def test_a_refusal_outlives_an_edit(nats_server: EmbeddedServer, tmp_path: Path, asks: str) -> None:
    """Who has refused a step has refused it, also when the profile is edited before it is heard."""
    out, settings = tmp_path / "out", Settings()

    async def body() -> None:
        one = await left(text(out), settings)
        await say_meanwhile(one, settings, "denied")
        edited = f"""
profiles:
  restart:
    on: service.start.failed
    actions:
      - {{id: restart, {asks + "," if asks else ""} command: [sh, -c, "echo ran >> $0", "{out}"]}}
"""
        async with mesh(edited, settings=settings) as m:
            await ended(m, "succeeded")
            assert ran(out) == []

    run(body())


def test_disabled_meanwhile(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """An answer to a profile that is disabled is taken, and acted upon once it is enabled."""
    out, settings = tmp_path / "out", Settings()

    async def body() -> None:
        async with mesh(text(out), settings=settings) as m:
            await m.publish()
            [one] = await asked(m)
            write_profiles(text(out, more="state: disabled"))
            await m.server.profiles.reload()
            await say(m, one)
            assert ran(out) == []
            write_profiles(text(out))
            await m.server.profiles.reload()
            await ended(m, "succeeded")
            assert ran(out) == ["restarted", "after-granted"]

    run(body())


def test_removed_meanwhile(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A profile that was removed leaves its question where it is; it goes on when it is back."""
    out, settings = tmp_path / "out", Settings()

    async def body() -> None:
        one = await left(text(out), settings)
        async with mesh("profiles: {}", settings=settings) as m:
            assert [again.asked.id for again in await asked(m)] == [one.asked.id]
        async with mesh(text(out), settings=settings) as m:
            await say(m, one)
            await ended(m, "succeeded")
            assert ran(out) == ["restarted", "after-granted"]

    run(body())


def test_continue_on_error(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A refusal that fails its step is a failed step: `continue_on_error` goes on with the next."""
    out = tmp_path / "out"
    profile = text(out, "otherwise: fail").replace(
        "- id: restart", "- id: restart\n        continue_on_error: true"
    )

    async def body() -> None:
        async with mesh(profile) as m:
            await m.publish()
            [one] = await asked(m)
            await say(m, one, "denied")
            done = await ended(m, "succeeded")
            assert ran(out) == ["after-denied"]
            assert [step.state for step in done.steps] == ["failed", "done"]

    run(body())


def test_waiting_takes_no_time(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """`timeout` is a limit of the attempt's work: no time counts in which nobody answers."""

    async def body(seconds: float) -> list[str]:
        out = tmp_path / f"out-{seconds}"
        approve = f"expires: {seconds * 1500:.0f}ms, otherwise: run"
        more = f"timeout: {seconds * 1000:.0f}ms\n    retry: {{attempts: 1}}"
        async with mesh(text(out, approve, more)) as m:
            event = await m.publish()

            async def over() -> bool:
                return any(one.finished for one in await m.runs() if one.event_id == event.id)

            await eventually(over)
        return ran(out)

    # the steps themselves have to be done within the limit
    done = limited(lambda seconds: run(body(seconds)), lambda done: len(done) == 2)
    assert done == ["restarted", "after-expired"]


def test_a_firing_of_several_events(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A collected firing asks once, and its prompt may speak of all its events."""
    profile = f"""
profiles:
  restart:
    on: service.start.failed
    collect: {{window: 1m, max: 3}}
    actions:
      - approve: "Restart ${{{{ size(events) }}}} units?"
        command: [sh, -c, "echo ran >> $0", "{tmp_path / "out"}"]
"""

    async def body() -> None:
        async with mesh(profile) as m:
            for _ in range(3):
                await m.publish()
            [one] = await asked(m)
            assert one.asked.prompt == "Restart 3 units?"
            await say(m, one)
            await ended(m, "succeeded")
            assert ran(tmp_path / "out") == ["ran"]

    run(body())


def test_shadow_asks_nobody(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A profile in shadow decides, and neither acts nor asks."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out", more="state: shadow")) as m:
            await m.publish()
            await m.decided("restart", 1)
            assert (await index(m), await m.events("automation.approval.>")) == ([], [])

    run(body())


def test_a_run_that_the_ledger_has_forgotten(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Its question is unknown then, and a sweep takes it out of the index."""

    async def body() -> None:
        async with mesh("profiles: {}") as m:
            await Index(m.client).put("00000000-0000-7000-8000-000000000001", "gone.run")
            with pytest.raises(approvals.UnknownApproval):
                await approvals.find(m.client, "00000000-0000-7000-8000-000000000001")
            await Asker(m.server._services).clear(
                "00000000-0000-7000-8000-000000000001", "gone.run"
            )
            assert await index(m) == []

    run(body())


def test_triggered_by_hand(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Asked for by hand, and twice with one id, a profile asks once."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out")) as m:
            event = await m.publish("demo.unheard")
            by_hand = Trigger(kind="manual", id=ids.uuid7())
            for _ in range(2):
                await trigger.send(m.client, "restart", encode(event), by_hand)
            [one] = await asked(m)
            await say(m, one)
            await ended(m, "succeeded")
            assert await counts(m) == {"requested": 1, "granted": 1}

    run(body())
