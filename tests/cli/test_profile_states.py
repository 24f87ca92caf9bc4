"""`opsmesh profile enable`, `disable`, `shadow`: what becomes of events that wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from tests.cli.conftest import Cli, be_patient
from tests.conftest import eventually, mesh_client, run
from tests.handlers.mesh import Mesh, mesh, write_profiles
from typer.testing import Result

from opsmesh.cli.profiles import states as profile_states
from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.live.liveness import owner
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas import times

PROFILES = """
profiles:
  note:
    on: service.start.failed
    actions: [command: ["true"]]
"""


@pytest.fixture(autouse=True)
def quiet(log_of_before: None) -> None:
    """What handlers log beside a command is not part of what the command prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


async def call(cli: Cli, *arguments: str, **more: Any) -> Result:
    """A command beside running handlers."""
    return await asyncio.to_thread(cli, "profile", *arguments, **more)


async def in_state(m: Mesh, state: str) -> None:
    """Return once the handlers have taken the choice up."""
    await eventually(lambda: m.server.in_force("note").state == state)
    if state != "disabled":
        await m.server.owned()
        return
    consumer = consumer_name(m.server.in_force("note"), m.settings.host)

    async def free() -> bool:
        return await owner(m.client, consumer) is None

    await eventually(free)


@contextlib.asynccontextmanager
async def waiting(cli: Cli, count: int = 2) -> AsyncIterator[tuple[Mesh, list[str]]]:
    """Handlers with one run done, and with events behind a profile that was disabled then."""
    async with mesh(PROFILES) as m:
        first = await m.publish()
        await m.wait("automation.run.succeeded")
        assert (await call(cli, "disable", "note")).exit_code == 0
        await in_state(m, "disabled")
        missed = [await m.publish() for _ in range(count)]
        yield m, [first.id, *(event.id for event in missed)]


async def ran(m: Mesh, count: int) -> list[str]:
    """The events that runs were about, once `count` runs have succeeded."""
    done = await m.wait("automation.run.succeeded", count)
    assert len(await m.runs()) == len(done) == count
    return [event.causation_id or "" for event in done]


def test_skip_passes_over(cli: Cli, nats_server: EmbeddedServer) -> None:
    """With skip the profile acts on what comes after it was enabled, and on nothing of before."""

    async def body() -> None:
        async with waiting(cli) as (m, (first, *_)):
            result = await call(cli, "enable", "note", "--backlog", "skip", "--json")
            facts = json.loads(result.stdout)
            assert facts["backlog"]["pending"] == 2
            assert facts["backlog"]["topics"] == {"service.start.failed": 2}
            assert times.parse_us(facts["backlog"]["oldest"]) <= times.now_us()
            await in_state(m, "enabled")
            event = await m.publish()
            assert await ran(m, 2) == [first, event.id]
            assert [r.decision.event_id for r in await m.records("note")] == [first, event.id]

    run(body())


def test_replay_acts_on_what_waited(cli: Cli, nats_server: EmbeddedServer) -> None:
    """With replay the profile acts on every event that waited, in their order."""

    async def body() -> None:
        async with waiting(cli) as (m, ids):
            result = await call(cli, "enable", "note", "--backlog", "replay")
            assert result.exit_code == 0
            assert "it acts on 2 events" in result.stderr
            assert sorted(await ran(m, 3)) == sorted(ids)
            assert [r.decision.event_id for r in await m.records("note")] == ids

    run(body())


def test_shadow_decides_what_waited(cli: Cli, nats_server: EmbeddedServer) -> None:
    """With shadow what waited is on record as in shadow, and the profile acts on what comes."""

    async def body() -> None:
        async with waiting(cli) as (m, (first, *missed)):
            assert (await call(cli, "enable", "note", "--backlog", "shadow")).exit_code == 0
            await in_state(m, "enabled")
            event = await m.publish()
            assert await ran(m, 2) == [first, event.id]
            found = {r.decision.event_id: r.decision.clause for r in await m.records("note")}
            assert [found[one] for one in missed] == ["shadow", "shadow"]
            assert found[event.id] == "on"

    run(body())


def test_since_goes_back_and_runs_once(cli: Cli, nats_server: EmbeddedServer) -> None:
    """With since:T before it was disabled, an event that has a run does not run again."""

    async def body() -> None:
        async with waiting(cli) as (m, ids):
            result = await call(cli, "enable", "note", "--backlog", "since:10m", "--json")
            assert json.loads(result.stdout)["backlog"]["cursor"] == 0
            assert sorted(await ran(m, 3)) == sorted(ids)

    run(body())


def test_since_goes_ahead(cli: Cli, nats_server: EmbeddedServer) -> None:
    """With since:T after some that wait, those are passed over."""

    async def body() -> None:
        async with waiting(cli, 1) as (m, (first, _)):
            msg = await m.client.jetstream().get_last_msg("EVENTS", "evt.*.service.start.failed")
            assert msg.time is not None
            stored_us = int(msg.time.timestamp() * 1e6)
            await eventually(lambda: times.now_us() > stored_us + 2000)
            when = times.format_us(stored_us + 1000)
            late = await m.publish()
            result = await call(cli, "enable", "note", "--backlog", f"since:{when}")
            assert result.exit_code == 0, result.stderr
            assert sorted(await ran(m, 2)) == sorted([first, late.id])

    run(body())


def test_nobody_to_ask_is_refused(cli: Cli, nats_server: EmbeddedServer) -> None:
    """Without a terminal and without --backlog a backlog ends the command, and nothing changes."""

    async def body() -> None:
        async with waiting(cli) as (m, _):
            result = await call(cli, "enable", "note")
            assert result.exit_code == 2
            assert "2 events since" in result.stderr
            assert "(service.start.failed 2) wait behind note" in result.stderr
            assert "--backlog skip | replay | shadow | since:TIME" in result.stderr
            assert overrides.read() == {"note": "disabled"}
            assert m.server.in_force("note").state == "disabled"

    run(body())


def test_a_person_is_asked(
    cli: Cli, nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal the choice is asked for until it is one."""
    monkeypatch.setattr(profile_states, "_on_a_terminal", lambda: True)

    async def body() -> None:
        async with waiting(cli) as (m, ids):
            result = await call(cli, "enable", "note", input="what\nreplay\n")
            assert "wait: skip, replay, shadow, or replay since:T?" in result.stderr
            assert "'what' is not one of" in result.stderr
            assert sorted(await ran(m, 3)) == sorted(ids)

    run(body())


def test_nothing_waits(cli: Cli, nats_server: EmbeddedServer) -> None:
    """When nothing waits the profile is enabled at once, and acts on the very next event."""

    async def body() -> None:
        async with waiting(cli, 0) as (m, (first,)):
            result = await call(cli, "enable", "note")
            assert (result.exit_code, "nothing waited" in result.stderr) == (0, True)
            event = await m.publish()
            assert await ran(m, 2) == [first, event.id]

    run(body())


def test_live_profile_has_no_backlog(cli: Cli, nats_server: EmbeddedServer) -> None:
    """--backlog for a profile that decides is a wrong call."""
    write_profiles(PROFILES)
    result = cli("profile", "enable", "note", "--backlog", "skip")
    assert result.exit_code == 2
    assert "nothing waits behind it" in result.stderr
    assert cli("profile", "enable", "note", "--backlog", "sikp").exit_code == 2


def test_owner_elsewhere_is_told(
    cli: Cli, nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that another host decides for is enabled here, and its backlog is not touched."""
    write_profiles(PROFILES.replace("on:", "run_on: any\n    on:"))
    overrides.write("note", "disabled")
    be_patient(monkeypatch)

    async def body() -> None:
        async with mesh_client() as client:
            facts = {"host": "other", "pid": 7, "seq": 1, "since_us": 1, "at_us": 1}

            async def answer(msg: Any) -> None:
                await msg.respond(json.dumps(facts).encode())

            await client.subscribe("own.profile-note", cb=answer)
            await client.flush()  # the broker knows of it before the command asks
            assert (await call(cli, "enable", "note", "--backlog", "skip")).exit_code == 1
            result = await call(cli, "enable", "note")
            assert "it is live on other (pid 7) already" in result.stderr
            assert overrides.read() == {}

    run(body())


def test_owner_that_hangs_is_told(cli: Cli, nats_server: EmbeddedServer) -> None:
    """While an owner does not answer nothing is changed."""
    write_profiles(PROFILES)
    overrides.write("note", "disabled")

    async def body() -> None:
        async with mesh_client() as client:

            async def hang(msg: Any) -> None:
                pass

            await client.subscribe("own.>", cb=hang)
            await client.flush()
            result = await call(cli, "enable", "note")
            assert (result.exit_code, overrides.read()) == (1, {"note": "disabled"})
            assert "does not answer" in result.stderr

    run(body())


def test_disable_counts_runs(cli: Cli, nats_server: EmbeddedServer) -> None:
    """`disable` says how many runs wait with the profile, and leaves them as they are."""
    write_profiles(PROFILES)

    async def body() -> None:
        async with mesh_client() as client:
            for number, state in enumerate(("queued", "retrying", "succeeded")):
                await Ledger(client).create(
                    Run(
                        run_id=f"r{number}",
                        profile="note",
                        profile_hash="h",
                        event_id=f"e{number}",
                        topic="a.b",
                        correlation_id="c",
                        host="h",
                        stream_seq=number + 1,
                        created_us=1,
                        updated_us=1,
                        state=state,  # type: ignore[arg-type]  # one of its literals
                    )
                )
            found = json.loads((await call(cli, "disable", "note", "--json")).stdout)
            assert (found["state"], found["runs_waiting"]) == ("disabled", 2)
            states = sorted([r.state async for r in Ledger(client).runs("note")])
            assert states == ["queued", "retrying", "succeeded"]

    run(body())


def test_states_without_a_mesh(cli: Cli) -> None:
    """Without a mesh a state can be chosen; what becomes of a backlog cannot."""
    write_profiles(PROFILES)
    assert json.loads(cli("profile", "disable", "note", "--json").stdout)["runs_waiting"] is None
    assert cli("profile", "enable", "note", "--backlog", "skip").exit_code == 69
    assert overrides.read() == {"note": "disabled"}
    assert cli("profile", "enable", "note").exit_code == 0
    assert cli("profile", "shadow", "note").exit_code == 0
    assert overrides.read() == {"note": "shadow"}
    assert cli("profile", "enable", "nte").exit_code == 3
