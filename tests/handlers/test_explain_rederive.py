"""Recorded decisions made again: the same bytes, a difference named, an input that is gone."""

from __future__ import annotations

from pathlib import Path

import msgspec
from nats.aio.client import Client
from tests.conftest import mesh_client, run
from tests.handlers import generated
from tests.handlers.explaining import Records

from opsmesh.handlers.evidence.archive import Archive
from opsmesh.handlers.explain.answers import Explainer
from opsmesh.handlers.explain.rederive import Check, check, check_all
from opsmesh.handlers.live.records import Record, records
from opsmesh.router import paths
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.topology import EVENTS, VERSIONS
from opsmesh.schemas.envelope import encode, subject

PROFILE = """
profiles:
  picky:
    on: my.a.done
    where: event.payload.n > 3
    debounce: {window: 10s}
    actions: [command: ["true"]]
"""


async def explainer(client: Client, made: Records) -> Explainer:
    """With the folders of this test."""
    return await Explainer.open(
        client,
        host=made.settings.host,
        config=Path(paths.config_dir()),
        archive=made.settings.evidence_dir,
    )


async def checks(client: Client, made: Records) -> list[Check]:
    """Every record made again."""
    return [one async for one in check_all(await explainer(client, made), records(client))]


def test_every_clause_again(nats_server: EmbeddedServer) -> None:
    """Records of random profiles over random events, with every clause and their timers, are the
    same bytes when they are made again."""

    async def body() -> None:
        async with mesh_client() as client:
            made = Records(client)
            for event in generated.events(7, 400, made.settings.host):
                await client.jetstream().publish(subject(event.host, event.topic), encode(event))
            await made.decide(generated.profiles(7, 14), later_s=60, runs=False)
            found = await checks(client, made)
            assert len(found) > 500
            assert {one.decision.timer is None for one in found} == {True, False}
            assert [one for one in found if one.result != "same"] == []

    run(body())


def test_difference_is_named(nats_server: EmbeddedServer) -> None:
    """A record that says anything else than its inputs give is different, field by field."""

    async def body() -> None:
        async with mesh_client() as client:
            made = Records(client)
            await made.publish("my.a.done", {"n": 5})
            await made.decide(PROFILE)
            [record] = [one async for one in records(client)]
            forged = msgspec.structs.replace(record.decision, values={"event.payload.n": 4})
            other = Record(
                decision=forged,
                data=forged.encode(),
                took_us=0,
                stored_us=record.stored_us,
            )
            found = await check(await explainer(client, made), other)
            assert (found.result, [one.field for one in found.differences]) == (
                "different",
                ["values"],
            )
            assert found.differences[0].recorded == {"event.payload.n": 4}
            assert found.differences[0].derived == {"event.payload.n": 5}

    run(body())


def test_inputs_that_are_gone(nats_server: EmbeddedServer) -> None:
    """What the stream has no more is read from the archive; without it, or without the text, a
    decision is not checked, and says what is missing."""

    async def body() -> None:
        async with mesh_client() as client:
            made = Records(client)
            await made.publish("my.a.done", {"n": 5})
            await made.decide(PROFILE)
            [stored] = [msg async for msg in scan(client, EVENTS)]
            where = delivery(stored.reply)
            await client.jetstream().purge_stream(EVENTS)
            [gone] = await checks(client, made)
            assert gone.result == "unchecked"
            assert "the event 1" in gone.reason
            folder = made.settings.evidence_dir
            with Archive(folder, stream=EVENTS, segment_bytes=2**20) as archive:
                archive.event(where.stream_seq, where.timestamp_ns // 1000, stored.data)
                archive.commit()
            [archived] = await checks(client, made)
            assert archived.result == "same"
            await client.jetstream().purge_stream(VERSIONS)
            [textless] = await checks(client, made)
            assert textless.result == "unchecked"
            assert "no longer on record" in textless.reason

    run(body())
