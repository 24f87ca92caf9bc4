"""Streams: made once, kept, and never made anew in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.js.errors import APIError, NotFoundError
from tests.conftest import mesh_client, run

from opsmesh.router import paths, topology
from opsmesh.router.errors import StreamVanished
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings


def known() -> topology.Known:
    return topology.Known(Path(paths.state_dir(), "known.json"))


def test_ensure_is_idempotent(nats_server: EmbeddedServer) -> None:
    """A second `ensure` finds every stream as it should be and changes nothing."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            before = [await js.stream_info(s.name or "") for s in topology.streams(Settings())]
            assert await topology.ensure(js, Settings(), known()) == []
            after = [await js.stream_info(s.name or "") for s in topology.streams(Settings())]
            assert [i.config for i in before] == [i.config for i in after]

    run(body())


def test_changed_settings_update_the_stream(nats_server: EmbeddedServer) -> None:
    """A new max_age reaches the stream that is already there."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            await topology.ensure(js, Settings(events={"max_age": "2h"}), known())  # type: ignore[arg-type]
            assert (await js.stream_info("EVENTS")).config.max_age == 7200

    run(body())


def test_no_room_for_copies(nats_server: EmbeddedServer) -> None:
    """A broker without room for copies of bundles serves everything else, and takes them later."""
    wanted = Settings(bundles={"shared_bytes": 2**50})  # type: ignore[arg-type]

    async def body() -> None:
        async with mesh_client(wanted) as client:
            js = client.jetstream()
            assert (await js.stream_info("EVENTS")).config.name == "EVENTS"
            with pytest.raises(NotFoundError):
                await js.stream_info(topology.BUNDLES_STREAM)
            await topology.ensure(js, Settings(), known())
            assert (await js.stream_info(topology.BUNDLES_STREAM)).config.max_bytes == 2**30
            await topology.ensure(js, wanted, known())

    run(body())


def test_no_room_for_events(nats_server: EmbeddedServer) -> None:
    """A broker without room for events serves nothing."""
    wanted = Settings(events={"max_bytes": 2**50})  # type: ignore[arg-type]

    async def body() -> None:
        with pytest.raises(APIError):
            async with mesh_client(wanted):
                pass

    run(body())


def test_vanished_stream_is_an_alarm(nats_server: EmbeddedServer) -> None:
    """A stream that held messages and is gone is not created again, until the loss is accepted."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            await js.publish("evt.h.a.b", b"{}")
            assert await topology.ensure(js, Settings(), known()) == []
            await js.delete_stream("EVENTS")
            with pytest.raises(StreamVanished) as caught:
                await topology.ensure(js, Settings(), known())
            assert caught.value.last_seq == 1
            known().forget(["EVENTS"])
            assert await topology.ensure(js, Settings(), known()) == []

    run(body())


def test_stream_gone_back_is_reported(nats_server: EmbeddedServer) -> None:
    """A stream that ends before what was known of it is reported with both sequences."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            await js.publish("evt.h.a.b", b"{}")
            known().remember({"EVENTS": 40})
            (regression,) = await topology.ensure(js, Settings(), known())
            assert (regression.stream, regression.last_known_seq, regression.found_seq) == (
                "EVENTS",
                40,
                1,
            )

    run(body())
