"""Several hosts on one broker: a hub and its thin hosts, profiles files of their own each."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from nats.aio.client import Client

from opsmesh.handlers.evidence import reader
from opsmesh.router import deadletter, sink_consumer, trigger
from opsmesh.router.gate import Gate
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.topology import EVENTS
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import Event, encode
from tests.across.hosts import Host, at, finished, hosts, in_force, owned_by, publish
from tests.conftest import eventually, mesh_client, run

TELLS = "actions: [command: [sh, -c, 'hostname >/dev/null; echo done']]"
ORIGIN = f"profiles: {{here: {{on: my.thing, {TELLS}}}}}"
NONE = "profiles: {}"


async def ask_for(client: Client, profile: str, event: Event) -> None:
    await trigger.send(client, profile, encode(event), Trigger(kind="manual", id=ids.uuid7()))


@pytest.mark.slow
def test_a_trigger_finds_the_host_that_has_the_profile(
    home: Path, nats_server: EmbeddedServer
) -> None:
    """A trigger is run by the host that has the profile, whoever took it from the queue."""

    async def body() -> None:
        async with mesh_client():
            pass
        with hosts(home, nats_server, "alpha", "beta", "gamma") as [alpha, beta, gamma]:
            alpha.profiles(f"profiles: {{named: {{on: my.thing, run_on: alpha, {TELLS}}}}}")
            for other in (beta, gamma):
                other.profiles(NONE)
            for one in (alpha, beta, gamma):
                one.start()
            async with at(nats_server) as client:
                await in_force(client, "named", "alpha")
                for one in (alpha, beta, gamma):
                    await eventually(lambda one=one: "handlers.ready" in one.log())
                for _ in range(12):
                    event = await publish(client, "beta", "other.topic")
                    await ask_for(client, "named", event)
                runs = await finished(client, 12)
                assert {one.host for one in runs} == {"alpha"}
                assert [one async for one in deadletter.letters(client)] == []

    run(body())


def test_a_trigger_acts_where_its_event_came_from(home: Path, nats_server: EmbeddedServer) -> None:
    """Of two hosts with a profile that acts at the origin, the event's own runs its trigger; one
    whose host is away waits for it."""

    async def body() -> None:
        async with mesh_client():
            pass
        with hosts(home, nats_server, "alpha", "beta") as [alpha, beta]:
            for one in (alpha, beta):
                one.profiles(ORIGIN)
            alpha.start()
            async with at(nats_server) as client:
                await in_force(client, "here", "alpha")
                event = await publish(client, "beta", "other.topic")
                await ask_for(client, "here", event)
                info = client.jetstream()

                async def waits() -> bool:
                    found = await info.stream_info("TRIGGERS", subjects_filter="trg.>")
                    return list(found.state.subjects or ()) == ["trg.here.beta"]

                await eventually(waits)
                beta.start()
                [ended] = await finished(client, 1)
                assert ended.host == "beta"

    run(body())


def test_a_trigger_for_a_profile_that_nobody_has_is_refused(
    home: Path, nats_server: EmbeddedServer
) -> None:
    """A trigger for a profile that no host has ever had is a dead letter."""

    async def body() -> None:
        async with mesh_client():
            pass
        with hosts(home, nats_server, "alpha", "beta") as [alpha, beta]:
            for one in (alpha, beta):
                one.profiles(ORIGIN)
                one.start()
            async with at(nats_server) as client:
                await in_force(client, "here", "alpha", "beta")
                await ask_for(client, "nobody", await publish(client, "beta", "other.topic"))

                async def letters() -> list[str]:
                    return [one.reason async for one in deadletter.letters(client)]

                [reason] = await eventually(letters)
                assert reason.startswith("no profile 'nobody' is in force")

    run(body())


@pytest.mark.slow
def test_a_host_that_drops_a_profile_leaves_it_to_others(
    home: Path, nats_server: EmbeddedServer
) -> None:
    """The owner of a profile that runs anywhere takes it from its file: another host goes on where
    it was, and what came in between is acted on."""
    anywhere = f"profiles: {{any: {{on: my.thing, run_on: any, {TELLS}}}}}"

    async def body() -> None:
        async with mesh_client():
            pass
        with hosts(home, nats_server, "alpha", "beta") as [alpha, beta]:
            for one in (alpha, beta):
                one.profiles(anywhere)
            alpha.start()
            async with at(nats_server) as client:
                assert await owned_by(client, "profile-any") == "alpha"
                beta.start()
                await in_force(client, "any", "alpha", "beta")
                await publish(client, "gamma")
                await finished(client, 1)
                alpha.profiles(NONE)
                for _ in range(5):
                    await publish(client, "gamma")
                runs = await finished(client, 6)
                assert len(runs) == 6
                await eventually(lambda: "profile.removed" in alpha.log())
                assert await owned_by(client, "profile-any") == "beta"
                await publish(client, "gamma")
                assert len(await finished(client, 7)) == 7

    run(body())


def test_the_archive_of_each_host_is_whole(home: Path, nats_server: EmbeddedServer) -> None:
    """Two hosts' sinks on one broker each archive every event, and the consumer that sinks had
    before goes with its last reader."""
    sink = "opsmesh.handlers.evidence.sink"

    async def body() -> None:
        async with mesh_client() as client:
            await client.jetstream().add_consumer(EVENTS, durable_name=sink_consumer.FORMER)
        with hosts(home, nats_server, "alpha", "beta") as both:
            async with at(nats_server) as client:
                # the agent's of the broker's machine
                await Gate(nats_server.broker.auth).attach(client)
                await client.flush()
                for one in both:
                    one.start(sink)
                sent = [(await publish(client, "gamma", n=n)).id for n in range(200)]

                def archived(one: Host) -> list[str]:
                    folder = one.home / "state" / "opsmesh" / "evidence"
                    lines = reader.read(folder) if folder.exists() else ()
                    events = [json.loads(one.data) for one in lines]
                    return [one["id"] for one in events if one["topic"] == "my.thing"]

                for one in both:
                    await eventually(lambda one=one: archived(one) == sent)
                names = {one.name for one in await client.jetstream().consumers_info(EVENTS)}
                assert names >= {"evidence-sink-on-alpha", "evidence-sink-on-beta"}
                assert sink_consumer.FORMER not in names

    run(body())


ANYWHERE = """
profiles:
  work:
    on: my.thing
    run_on: any
    concurrency: {limit: 8}
    actions: [command: [sh, -c, "echo $1 >> FILE; sleep 1.5", sh, "${{ event.id }}"]]
"""


def busy(home: Path, *both: Host) -> Path:
    """Each host has the profile, and one place; what runs append to. Their texts are one."""
    effects = home / "effects"
    effects.touch()
    for one in both:
        one.profiles(ANYWHERE.replace("FILE", str(effects)))
    return effects


async def until_taken(client: Client, other: Host) -> list[Event]:
    """Events, until the other host has taken a run: on a machine that is busy it may not have
    answered in time when it was asked first."""
    sent: list[Event] = []
    while "run.taken" not in other.log():
        sent += [await publish(client, "gamma", n=n) for n in range(2)]
        await asyncio.sleep(0.5)
    return sent


@pytest.mark.slow
def test_runs_go_to_a_host_that_is_free(home: Path, nats_server: EmbeddedServer) -> None:
    """While a host has no place left, runs of a profile that runs anywhere are made by another one
    that has; each once."""

    async def body() -> None:
        async with mesh_client():
            pass
        with hosts(home, nats_server, "alpha", "beta", runs={"places": 1}) as [alpha, beta]:
            effects = busy(home, alpha, beta)
            alpha.start()
            async with at(nats_server) as client:
                assert await owned_by(client, "profile-work") == "alpha"
                beta.start()
                await in_force(client, "work", "alpha", "beta")
                sent = await until_taken(client, beta)
                runs = await finished(client, len(sent))
                assert {one.state for one in runs} == {"succeeded"}
                assert {one.host for one in runs} == {"alpha", "beta"}
                done = sorted(line.split()[0] for line in effects.read_text().splitlines())
                assert done == sorted(one.id for one in sent)
                hosts_told = [one.host for one in runs]
                for name in ("alpha", "beta"):
                    subject = f"evt.{name}.automation.run.succeeded"
                    info = await client.jetstream().stream_info(EVENTS, subjects_filter=subject)
                    assert sum((info.state.subjects or {}).values()) == hosts_told.count(name)

    run(body())


@pytest.mark.slow
def test_a_host_that_dies_with_anothers_run(home: Path, nats_server: EmbeddedServer) -> None:
    """A host that is killed while it makes an attempt of another one's run loses it: the owner
    makes the next one."""

    async def body() -> None:
        async with mesh_client():
            pass
        settings = {"places": 1, "lease": "2s"}
        with hosts(home, nats_server, "alpha", "beta", runs=settings) as [alpha, beta]:
            busy(home, alpha, beta)
            alpha.start()
            async with at(nats_server) as client:
                assert await owned_by(client, "profile-work") == "alpha"
                beta.start()
                await in_force(client, "work", "alpha", "beta")
                sent = await until_taken(client, beta)
                beta.kill()
                runs = await finished(client, len(sent), timeout=40)
                assert {(one.state, one.host) for one in runs} == {("succeeded", "alpha")}
                assert sorted(one.attempt for one in runs)[-2:] == [1, 2]

    run(body())


@pytest.mark.slow
def test_a_run_that_another_host_makes_is_cancelled(
    home: Path, nats_server: EmbeddedServer
) -> None:
    """A run that is cancelled ends at the host that makes its attempt, program and all."""

    async def body() -> None:
        async with mesh_client():
            pass
        with hosts(home, nats_server, "alpha", "beta", runs={"places": 1}) as [alpha, beta]:
            busy(home, alpha, beta)
            for one in (alpha, beta):
                one.profiles((one.config / "profiles.yaml").read_text().replace("1.5", "3600"))
            alpha.start()
            async with at(nats_server) as client:
                assert await owned_by(client, "profile-work") == "alpha"
                beta.start()
                await in_force(client, "work", "alpha", "beta")
                await until_taken(client, beta)
                taken = (json.loads(line) for line in beta.log().splitlines() if "taken" in line)
                run_id = next(taken)["run_id"]
                done = await asyncio.to_thread(alpha.cli, "run", "cancel", run_id)
                assert done.returncode == 0, done.stderr
                [over] = await finished(client, 1)
                assert (over.run_id, over.state) == (run_id, "cancelled")
                folder = beta.home / "state" / "opsmesh" / "work" / ".steps"
                await eventually(lambda: list(folder.iterdir()) == [])

    run(body())


@pytest.mark.slow
def test_what_waits_for_a_host_that_is_away_is_seen(
    home: Path, nats_server: EmbeddedServer
) -> None:
    """Events for a profile that names a host are counted on every host while that one is away, and
    it acts on them when it is back."""
    text = f"profiles: {{named: {{on: my.thing, run_on: alpha, {TELLS}}}}}"

    async def body() -> None:
        async with mesh_client():
            pass
        with hosts(home, nats_server, "alpha", "beta") as [alpha, beta]:
            for one in (alpha, beta):
                one.profiles(text)
            alpha.start()
            async with at(nats_server) as client:
                assert await owned_by(client, "profile-named-on-alpha") == "alpha"
                alpha.stop()
                for n in range(3):
                    await publish(client, "beta", n=n)
                [row] = await asyncio.to_thread(beta.cli_json, "profile", "ls")
                assert row["waiting"] == 3
                told = (await asyncio.to_thread(beta.cli, "why-not", "named")).stdout
                assert "nobody decides on profile-named-on-alpha; 3 events wait" in told
                alpha.start()
                assert {one.host for one in await finished(client, 3)} == {"alpha"}

    run(body())
