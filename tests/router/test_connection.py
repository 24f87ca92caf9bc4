"""Connections that stay what they seem to be."""

from __future__ import annotations

import os
import signal

import pytest
from nats.errors import FlushTimeoutError
from tests.conftest import eventually, mesh_client, run
from tests.faults.meshes import halt

from opsmesh.router.server import EmbeddedServer
from opsmesh.router.topology import EVENTS


def test_a_ping_that_was_given_up_deafens_nobody(nats_server: EmbeddedServer) -> None:
    """A broker that hung for longer than somebody waited for its PONG is heard again."""
    assert nats_server.process is not None
    pid = nats_server.process.pid

    async def body() -> None:
        async with mesh_client() as client:
            reconnects = client.stats["reconnects"]
            halt(pid)
            try:
                with pytest.raises(FlushTimeoutError):
                    await client.flush(timeout=0.2)  # type: ignore[arg-type]
            finally:
                os.kill(pid, signal.SIGCONT)
            await client.jetstream().stream_info(EVENTS)
            await client.flush()
            assert client.stats["reconnects"] == reconnects

    run(body())


def test_a_reader_that_has_ended_is_noticed(nats_server: EmbeddedServer) -> None:
    """A mistake that ends the reading of a connection costs that connection, and nothing else."""

    async def body() -> None:
        async with mesh_client() as client:
            reconnects = client.stats["reconnects"]

            async def mistake() -> None:
                del client._process_pong
                raise RuntimeError("a mistake")

            client._process_pong = mistake  # type: ignore[method-assign]
            await client._send_ping()
            await eventually(
                lambda: client.is_connected and client.stats["reconnects"] > reconnects
            )
            await client.jetstream().stream_info(EVENTS)

    run(body())
