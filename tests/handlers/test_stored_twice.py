"""An event that is stored twice is one run; what was removed unread is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.conftest import eventually, mesh_client, run
from tests.handlers.mesh import Mesh, mesh

from opsmesh.router.settings import Events, Settings
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, encode, subject

PROFILES = """
profiles:
  one:
    on: [a.b]
    actions: [emit: {topic: my.answer}]
"""
THROTTLED = """
profiles:
  one:
    on: [a.b]
    throttle: {at_most: 1, per: 300ms}
    actions: [emit: {topic: my.answer}]
"""
HOUR_MS = 3_600_000

pytestmark = pytest.mark.usefixtures("nats_server")


def forgetful() -> Settings:
    """A broker that forgets ids after a second: as if hours had passed."""
    return Settings(events=Events.model_validate({"duplicate_window": "1s"}))


def event(id: str, host: str) -> Event:
    return Event(
        topic="a.b",
        ts_utc="2026-11-23T09:00:00Z",
        source="test",
        component="test",
        severity="error",
        correlation_id=id,
        host=host,
        session_id="",
        workspace="",
        payload={},
        id=id,
    )


async def store(m: Mesh, id: str) -> int:
    """Store the event, as soon as the broker has forgotten that it is there; its sequence."""
    found = event(id, m.settings.host)
    seqs = []

    async def stored() -> bool:
        ack = await m.client.jetstream().publish(
            subject(found.host, found.topic), encode(found), headers={"Nats-Msg-Id": id}
        )
        seqs.append(ack.seq)
        return not ack.duplicate

    await eventually(stored)
    return seqs[-1]


KINDS = {
    "behind": lambda: ids.uuid7(times.now_us() // 1000 - HOUR_MS),
    "ahead": lambda: ids.uuid7(times.now_us() // 1000 + HOUR_MS),
    "foreign": lambda: "build-42",
}


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[pytest.mark.slow] if name == "behind" else [])
        for name, make in KINDS.items()
    ],
)
def test_second_copy_is_no_second_run(make: Callable[[], str]) -> None:
    """Whatever the clock said that made its id, and also when handlers were restarted in between,
    the second copy is decided as a duplicate."""
    id = make()

    async def body() -> None:
        async with mesh(PROFILES, settings=forgetful()) as m:
            first = await store(m, id)
            await m.wait("my.answer")
            await m.decided("one", first)
        async with mesh(PROFILES, settings=forgetful()) as m:
            await m.decided("one", await store(m, id))
            assert [(one.event_id, one.stream_seq) for one in await m.runs()] == [(id, first)]
            outcomes = [record.decision.outcome for record in await m.records("one")]
            assert sorted(outcomes) == ["duplicate", "fire"]
            assert len(await m.events("my.answer")) == 1

    run(body())


def test_second_copy_of_what_did_not_fire_is_decided_anew() -> None:
    """What has no run has left nothing to be compared with: its copy may fire, once."""
    first, id = ids.uuid7(), ids.uuid7()

    async def body() -> None:
        async with mesh(THROTTLED, settings=forgetful()) as m:
            await store(m, first)
            await m.decided("one", await store(m, id))
            [only] = await m.runs()
            assert only.event_id == first
            await store(m, id)
            await m.wait("my.answer", 2)
            await m.decided("one", await store(m, id))
            assert sorted(one.event_id for one in await m.runs()) == sorted([first, id])

    run(body())


def test_what_was_removed_before_a_profile_read_it_is_told_once() -> None:
    """The stream's limits remove what came while no handlers ran: an event says how much at most,
    and a restart does not repeat it."""

    async def body() -> None:
        async with mesh(PROFILES) as m:
            await m.decided("one", await store(m, ids.uuid7()))
            await m.wait("automation.run.succeeded")
        async with mesh_client() as client:
            js, host = client.jetstream(), Settings().host
            for _ in range(30):
                await js.publish(subject(host, "a.b"), encode(event(ids.uuid7(), host)))
            await js.purge_stream("EVENTS", keep=5)
            state = (await js.stream_info("EVENTS")).state
        for _ in range(2):
            async with mesh(PROFILES) as m:
                await m.decided("one", state.last_seq)
                [told] = await m.events("mesh.gap.detected")
        assert (told.payload["source"], told.payload["kind"]) == (
            "profile-one-on-" + told.host,
            "removed",
        )
        assert told.payload["first_known"] == state.first_seq
        lost = state.first_seq - told.payload["last_known"] - 1
        assert f"may have missed some of {lost} events that the stream" in told.payload["message"]

    run(body())
