"""A step that was under way when its handler was lost: what the ledger says, and what follows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, mesh_client, run
from tests.handlers.lost_runs import dead, elsewhere, left_behind
from tests.handlers.mesh import Mesh, mesh, write_profiles

from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.runs import answers
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import deadletter, trigger
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import encode

TWO_STEPS = """
profiles:
  two:
    on: service.start.failed
    retry: {{attempts: 2, initial: 10ms}}
    concurrency: {{mode: {mode}}}
    actions:
      - {{id: first, on_unknown: {choice}, command: [sh, -c, "echo first >> {out}"]}}
      - {{id: second, command: [sh, -c, "echo second >> {out}"]}}
"""


def profiles(out: Path, choice: str, mode: str = "parallel") -> str:
    """A profile of two steps that tell when they have run."""
    return TWO_STEPS.format(out=out, choice=choice, mode=mode)


def ran(out: Path) -> list[str]:
    """The steps that have run."""
    return out.read_text().split() if out.exists() else []


async def ended(m: Mesh, state: str) -> Run:
    """The one run, once it is in this state."""

    async def there() -> Run | None:
        return next((one for one in await m.runs() if one.state == state), None)

    found = await eventually(there)
    assert isinstance(found, Run)
    return found


async def answer(m: Mesh, choice: Any, **more: Any) -> bool:
    """A person's answer; whether it was new."""
    run = next(one for one in await m.runs() if one.state == "waiting")
    how = {"by": "me", "host": "here", **more}
    _, _, new = await answers.give(Ledger(m.client), run.key, choice, **how)
    return new


@pytest.mark.parametrize(
    ("choice", "state", "steps", "did"),
    [
        ("retry", "succeeded", ["done", "done"], ["first", "second"]),
        ("skip", "succeeded", ["skipped", "done"], ["second"]),
        ("fail", "deadlettered", ["unknown"], []),
        ("ask", "waiting", ["unknown"], []),
    ],
)
def test_choices(
    nats_server: EmbeddedServer, tmp_path: Path, choice: str, state: str, steps: Any, did: Any
) -> None:
    """A step that a dead handler left is told as unknown, and its run goes on as `on_unknown` says,
    without waiting for the lease of who is known to be dead."""
    out, settings, text = tmp_path / "out", Settings(), profiles(tmp_path / "out", choice)
    write_profiles(text)
    lost = dead()

    async def body() -> None:
        async with mesh_client(settings) as client:
            # nobody here has the patience to wait for this lease
            await left_behind(client, settings, "two", lost, lease_s=3600)
            async with mesh(text, settings=settings) as m:
                found = await ended(m, state)
                assert [step.state for step in found.steps] == steps
                assert ran(out) == did
                assert found.attempt == (2 if choice == "retry" else 1)
                (told,) = await m.wait("automation.step.unknown")
                assert told.payload["on_unknown"] == choice
                assert (told.payload["step"], told.payload["pid"]) == ("first", lost.pid)
                step = found.steps[0]
                if choice != "retry":
                    assert step.held_by is not None
                    assert (step.held_by.id, step.unknown_us > 0) == ("dead", True)
                if choice == "fail":
                    (letter,) = await m.letters()
                    assert "ended while this step was under way" in letter.reason

    run(body())


def test_a_lease_is_waited_for(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A run whose holder may live elsewhere is left alone until its lease is over, and is taken
    over then."""
    out, settings, text = tmp_path / "out", Settings(), profiles(tmp_path / "out", "retry")
    write_profiles(text)

    async def body() -> None:
        async with mesh_client(settings) as client:
            began = time.monotonic()
            held = await left_behind(client, settings, "two", elsewhere(settings), lease_s=2)
            async with mesh(text, settings=settings) as m:
                while True:
                    did, entry = ran(out), await Ledger(client).get(held.run.key)
                    if time.monotonic() - began > 2:  # what was seen may have been later
                        break
                    assert did == []
                    assert entry is not None
                    assert (entry.revision, entry.run.steps[0].state) == (held.revision, "started")
                await ended(m, "succeeded")
                assert time.monotonic() - began > 2
                assert ran(out) == ["first", "second"]

    run(body())


@pytest.mark.slow
def test_a_holder_that_renews_keeps_its_run(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """However long it takes: as long as its holder elsewhere renews the lease, nobody takes a run
    over; and what the holder writes at last is believed."""
    out, settings, text = tmp_path / "out", Settings(), profiles(tmp_path / "out", "retry")
    write_profiles(text)

    async def body() -> None:
        async with mesh_client(settings) as client:
            held = await left_behind(client, settings, "two", elsewhere(settings), lease_s=1)
            far = Ledger(client, lease_s=1)
            there = await far.get(held.run.key)
            assert there is not None
            async with mesh(text, settings=settings):
                began = time.monotonic()
                while time.monotonic() - began < 4:
                    await there.save(held.run.created_us)
                    written = time.monotonic()
                    await eventually(lambda since=written: time.monotonic() > since + 0.3)
                    assert ran(out) == []
                there.run.state, there.run.holder = "cancelled", None
                await there.save(held.run.created_us)
            assert ran(out) == []
            found = await far.get(held.run.key)
            assert found is not None
            assert found.run.state == "cancelled"

    run(body())


@pytest.mark.parametrize(
    ("choice", "state", "did"),
    [
        ("retry", "succeeded", ["first", "second"]),
        ("skip", "succeeded", ["second"]),
        ("fail", "deadlettered", []),
    ],
)
def test_answers(
    nats_server: EmbeddedServer, tmp_path: Path, choice: str, state: str, did: list[str]
) -> None:
    """A waiting run goes on as a person says, and who said it when is an event."""
    out, settings, text = tmp_path / "out", Settings(), profiles(tmp_path / "out", "ask")
    write_profiles(text)

    async def body() -> None:
        async with mesh_client(settings) as client:
            # even when no attempt is left: whoever says retry means it
            await left_behind(client, settings, "two", dead(), attempt=2)
            async with mesh(text, settings=settings) as m:
                await ended(m, "waiting")
                assert await answer(m, choice, reason="looked at it")
                found = await ended(m, state)
                assert ran(out) == did
                (told,) = await m.wait("automation.step.answered")
                payload = told.payload
                assert (payload["choice"], payload["by"]) == (choice, "me")
                assert payload["reason"] == "looked at it"
                assert found.answers[0].choice == choice

    run(body())


def test_an_answer_is_given_once(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """The same answer again changes nothing, also after the run has ended; another one is refused,
    and so is one for a run that asks nothing."""
    out, settings, text = tmp_path / "out", Settings(), profiles(tmp_path / "out", "ask")
    write_profiles(text)

    async def body() -> None:
        async with mesh_client(settings) as client:
            held = await left_behind(client, settings, "two", dead())
            ledger = Ledger(client)

            async def give(choice: Any) -> bool:
                _, _, new = await answers.give(ledger, held.run.key, choice, by="me", host="h")
                return new

            with pytest.raises(answers.NotWaiting, match="it is running"):
                await give("skip")
            async with mesh(text, settings=settings) as m:
                await ended(m, "waiting")
            assert await give("skip")  # nobody is there to hear it
            assert not await give("skip")
            with pytest.raises(answers.AnsweredOtherwise, match="me answered skip"):
                await give("retry")
            async with mesh(text, settings=settings) as m:
                await ended(m, "succeeded")
                assert ran(out) == ["second"]
                assert not await give("skip")
                with pytest.raises(answers.AnsweredOtherwise):
                    await give("retry")
                assert len(await m.wait("automation.step.answered")) == 1

    run(body())


def test_a_waiting_run_lets_others_pass(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """In a parallel profile of one at a time, a run that waits for an answer holds nobody up."""
    out, settings, text = tmp_path / "out", Settings(), profiles(tmp_path / "out", "ask")
    write_profiles(text)

    async def body() -> None:
        async with mesh_client(settings) as client:
            await left_behind(client, settings, "two", dead())
            async with mesh(text, settings=settings) as m:
                await ended(m, "waiting")
                await m.publish()
                await ended(m, "succeeded")
                assert ran(out) == ["first", "second"]

    run(body())


def test_a_waiting_run_keeps_its_place_in_a_queue(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """In a queued profile what comes after a run that waits for an answer waits behind it, also
    across a restart of the handlers."""
    out = tmp_path / "out"
    settings, text = Settings(), profiles(out, "ask", "queued")
    write_profiles(text)

    async def body() -> None:
        async with mesh_client(settings) as client:
            await left_behind(client, settings, "two", dead())
            async with mesh(text, settings=settings) as m:
                await ended(m, "waiting")
                await m.publish()
                await ended(m, "queued")
            async with mesh(text, settings=settings) as m:
                assert ran(out) == []
                await answer(m, "skip")
                await m.wait("automation.run.succeeded", 2)
                assert ran(out) == ["second", "first", "second"]

    run(body())


@pytest.mark.parametrize(("mode", "first", "second"), [
    ("single", "waiting", "skipped"),
    ("restart", "cancelled", "succeeded"),
])  # fmt: skip
def test_a_waiting_run_is_under_way(
    nats_server: EmbeddedServer, tmp_path: Path, mode: str, first: str, second: str
) -> None:
    """In a single profile what comes while a run waits is skipped; in a restart one it takes the
    waiting run's place."""
    out = tmp_path / "out"
    settings, text = Settings(), profiles(out, "ask", mode)
    write_profiles(text)

    async def body() -> None:
        async with mesh_client(settings) as client:
            lost = await left_behind(client, settings, "two", dead())
            async with mesh(text, settings=settings) as m:
                await ended(m, "waiting")
                await m.publish()

                async def states() -> list[str]:
                    found = {one.run_id: one.state for one in await m.runs()}
                    return [found.pop(lost.run.run_id), *found.values()]

                async def settled() -> bool:
                    return await states() == [first, second]

                await eventually(settled)

    run(body())


def test_what_was_skipped_stays_so_after_an_edit(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """A profile that was edited meanwhile is run from its start, but not the step of which nobody
    knows whether it is done."""
    out, settings = tmp_path / "out", Settings()
    write_profiles(profiles(out, "skip"))

    async def body() -> None:
        async with mesh_client(settings) as client:
            await left_behind(client, settings, "two", dead())
            text = profiles(out, "retry").replace("echo second", "echo edited")
            async with mesh(text, settings=settings) as m:
                await ended(m, "succeeded")
                assert ran(out) == ["edited"]

    run(body())


def test_no_attempt_is_left(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """An unknown step is not run again when its profile allows no further attempt."""
    out, settings, text = tmp_path / "out", Settings(), profiles(tmp_path / "out", "retry")
    write_profiles(text)

    async def body() -> None:
        async with mesh_client(settings) as client:
            await left_behind(client, settings, "two", dead(), attempt=2)
            async with mesh(text, settings=settings) as m:
                await ended(m, "deadlettered")
                (letter,) = await m.letters()
                assert letter.reason.endswith("and no attempt is left")
                assert ran(out) == []

    run(body())


def test_an_end_that_was_not_told(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A run whose handler died between its end in the ledger and the event that tells of it is
    told by the next owner, once."""
    settings, text = Settings(), profiles(tmp_path / "out", "retry")
    write_profiles(text)

    async def body() -> None:
        async with mesh_client(settings) as client:
            async with mesh(text, settings=settings) as m:
                await m.publish()  # so that there is a cursor, and one end that is told
                await m.wait("automation.run.succeeded")
            held = await left_behind(client, settings, "two", dead(), number=2)
            held.run.state, held.run.holder = "succeeded", None
            held.run.steps[0].state = "done"
            await held.save(held.run.updated_us + 1000)
            for _ in range(2):
                async with mesh(text, settings=settings) as m:
                    told = await m.wait("automation.run.succeeded", 2)
                    await m.server.stop()
            assert len({event.id for event in told}) == len(told) == 2
            assert told[1].run_id == held.run.run_id

    run(body())


def test_what_a_run_costs(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A run of one step that may begin at once is two writes of the ledger: that it has begun, and
    its end; one that has to wait is three."""
    go = tmp_path / "go"
    text = f"""
profiles:
  one:
    on: service.start.failed
    actions: [command: [sh, -c, "until test -e $0; do sleep 0.02; done", "{go}"]]
"""

    async def body() -> None:
        async with mesh(text) as m:

            async def writes() -> int:
                return (await m.client.jetstream().stream_info("KV_opsmesh-runs")).state.last_seq

            await m.publish()
            go.touch()
            await m.wait("automation.run.succeeded")
            assert await writes() == 2
            go.unlink()
            await m.publish()
            await m.publish()
            await ended(m, "queued")  # it has to wait, however late it came
            go.touch()
            await m.wait("automation.run.succeeded", 3)
            assert await writes() == 7

    run(body())


def test_a_disabled_profile_begins_nothing(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A run that somebody asks for by hand while its profile is disabled is queued, not begun."""
    out, text = tmp_path / "out", profiles(tmp_path / "out", "ask")

    async def body() -> None:
        async with mesh(text) as m:
            event = await m.publish()
            await m.wait("automation.run.succeeded")
            overrides.write("two", "disabled")
            await eventually(lambda: m.server.in_force("two").state == "disabled")
            asked = trigger.Trigger(kind="manual", id=ids.uuid7())
            await trigger.send(m.client, "two", encode(event), asked)
            found = await ended(m, "queued")
            assert (found.steps, found.holder) == ([], None)
            assert ran(out) == ["first", "second"]

    run(body())


@pytest.mark.parametrize("written", [False, True])
def test_given_up_by_a_handler_that_died(
    nats_server: EmbeddedServer, tmp_path: Path, written: bool
) -> None:
    """A run that is on record as given up gets its dead letter, and not a second one, however long
    ago its handler died over it."""
    settings, text = Settings(), profiles(tmp_path / "out", "retry")
    write_profiles(text)

    async def body() -> None:
        async with mesh_client(settings) as client:
            why = "it was no use"
            held = await left_behind(client, settings, "two", dead(), state="failing", reason=why)
            if written:
                await deadletter.write(
                    client,
                    profile="two",
                    profile_hash=held.run.profile_hash,
                    host=settings.host,
                    topic=held.run.topic,
                    data=b"{}",
                    reason="it was no use",
                    msg_id="forgotten by the broker",
                    event_id=held.run.event_id,
                    run_id=held.run.run_id,
                )
            async with mesh(text, settings=settings) as m:
                found = await ended(m, "deadlettered")
                (letter,) = await m.letters()
                assert (letter.reason, letter.seq) == ("it was no use", found.dlq_seq)
                assert len(await m.wait("automation.run.deadlettered")) == 1

    run(body())


def test_a_record_that_would_be_too_long(nats_server: EmbeddedServer) -> None:
    """Output that would not fit into a record is left out of it, and the run goes on with it."""
    text = """
profiles:
  loud:
    on: service.start.failed
    actions:
      - id: first
        command:
          argv: [sh, -c, "head -c 200000 /dev/zero; head -c 200000 /dev/zero >&2"]
          output_limit: 131072
      - {id: second, command: [test, "${{ size(steps.first.stdout) }}", -eq, "131072"]}
"""

    async def body() -> None:
        async with mesh(text) as m:
            await m.publish()
            found = await ended(m, "succeeded")
            assert "stdout" not in found.steps[0].output
            assert "too long" in found.steps[0].output["dropped"]

    run(body())
