"""Connections that stay what they seem to be."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from nats.errors import FlushTimeoutError, NoRespondersError
from nats.js.errors import ServiceUnavailableError
from tests.conftest import eventually, freeze, mesh_client, run
from tests.faults.meshes import halt

from opsmesh.router import connection, leaderless, tasks, wire
from opsmesh.router.auth.tls import Tls
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import BrokerSilent, BrokerUnavailable
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS

#: More than the kernel takes for a broker that reads nothing.
UNSENT = wire.publication("some.where", b"x" * 1_000_000) * 32


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


LOGS = """
import asyncio
from opsmesh.router import connection
from opsmesh.router.settings import Settings

async def command():
    where = connection.endpoint(Settings(), role="admin")
    client = await connection.connect(where, name="cli", patient=False)
    connection.log.warning("stream.no_room")
    await client.close()

asyncio.run(command())
"""


def test_a_command_logs_beside_its_output(nats_server: EmbeddedServer) -> None:
    """What is logged while a command uses the mesh is not in the middle of what it prints."""
    done = subprocess.run([sys.executable, "-c", LOGS], capture_output=True, check=True)
    assert done.stdout == b""
    assert b"stream.no_room" in done.stderr


def test_a_silent_broker_is_told_from_one_that_is_not_there(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a broker that takes a connection and says nothing it is said that it hangs; the start of
    another would not help."""
    monkeypatch.setattr(connection, "LOGIN_TIMEOUT", 1)
    settings = Settings()

    async def body() -> None:
        where = connection.endpoint(settings, role="admin")
        with pytest.raises(BrokerSilent, match="no answer within") as told:
            await connection.connect(where, name="test", patient=False)
        assert "it hangs" in told.value.hint

    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings.nats.url = f"nats://127.0.0.1:{listening.getsockname()[1]}"
        run(body())


def test_a_close_waits_for_no_broker_that_hangs(nats_server: EmbeddedServer) -> None:
    """A connection with megabytes that a broker which hangs has not taken is closed at once."""
    assert nats_server.process is not None
    process = nats_server.process

    async def body() -> None:
        async with mesh_client() as client:
            freeze(process)
            wire.send_now(client, UNSENT)
            await client.publish("some.where", b"what nats-py holds")
            async with asyncio.timeout(20):
                await client.close()
            assert client.is_closed

    try:
        run(body())
    finally:
        process.send_signal(signal.SIGCONT)


def test_a_connection_that_is_given_up_is_gone(nats_server: EmbeddedServer) -> None:
    """What a broker that hangs has not taken keeps nobody from connecting anew."""
    assert nats_server.process is not None
    process = nats_server.process

    async def body() -> None:
        changed = asyncio.Event()
        where = connection.endpoint(Settings(), role="admin")
        client = await connection.connect(where, name="test", changed=changed.set)
        freeze(process)
        wire.send_now(client, UNSENT)
        async with asyncio.timeout(20):
            await client.force_reconnect()
            await changed.wait()
        process.send_signal(signal.SIGCONT)
        await eventually(lambda: client.is_connected and client.stats["reconnects"])
        await client.close()

    try:
        run(body())
    finally:
        process.send_signal(signal.SIGCONT)


def test_a_server_that_is_not_there_is_said_with_the_reason(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line tries for a while, and says why nobody took its connection."""
    monkeypatch.setattr(connection, "CLI_TIMEOUT", 0.2)
    where = connection.Endpoint(url="nats://127.0.0.1:1,nats://127.0.0.1:2", in_order=True)
    with pytest.raises(BrokerUnavailable, match="Connect call failed"):
        run(connection.connect(where, name="test", patient=False))


def test_a_server_that_is_slow_to_let_us_in_is_waited_for(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line gives a broker that has taken its connection longer than one that has not."""
    monkeypatch.setattr(connection, "CLI_TIMEOUT", 0.2)
    where = connection.endpoint(Settings(), role="admin")
    broker = nats_server.process
    assert broker is not None

    async def body() -> None:
        freeze(broker)
        opening = asyncio.create_task(connection.connect(where, name="test", patient=False))
        await asyncio.wait([opening], timeout=0.6)
        broker.send_signal(signal.SIGCONT)
        client = await opening
        assert client.is_connected
        await client.close()

    run(body())


@asynccontextmanager
async def half_a_handshake() -> AsyncIterator[tuple[Endpoint, list[int]]]:
    """A stand-in for a broker that hangs in the middle of a TLS handshake: where it is, and an
    entry for each connection; it hangs up on the first."""
    met: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(len(met))
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","tls_required":true}\r\n')
        await reader.readexactly(5)
        if met[-1] % 2:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Endpoint(url=f"nats://127.0.0.1:{port}", tls=Tls()), met


def test_a_handshake_that_breaks_off_is_tried_again() -> None:
    """A broker that hangs up in the middle of a TLS handshake is asked again, and a process that is
    told to end while it waits for one does."""

    async def body() -> None:
        async with half_a_handshake() as (where, met):
            connecting = asyncio.create_task(connection.connect(where, name="test"))
            await eventually(lambda: len(met) >= 2)
            async with asyncio.timeout(20):
                await tasks.end([connecting])

    run(body())


#: A question of JetStream's API that this server hears nobody for: there is no such domain.
NOBODY = "$JS.nowhere.API.INFO"


def test_a_command_waits_for_somebody_who_leads(nats_server: EmbeddedServer) -> None:
    """JetStream that takes nothing for a moment, as in a cluster that chooses a leader, is asked
    again by a command, which then has its answer; a few lines stand in for the leader."""

    async def body() -> None:
        where = connection.endpoint(Settings(), role="admin")
        command = await connection.connect(where, name="cli", patient=False)
        async with mesh_client() as leader:
            asked = asyncio.create_task(command.request(NOBODY, timeout=5))
            # refused by then: the first answer is on its way before the next one of this server
            await command.flush()

            async def answer(msg: Msg) -> None:
                await leader.publish(msg.reply, b"here")

            await leader.subscribe(NOBODY, cb=answer)
            assert (await asked).data == b"here"
        await command.close()

    run(body())


def test_a_command_says_what_it_waited_for(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nobody leads for longer than a cluster needs, the error says so, and how long it was."""
    monkeypatch.setattr(leaderless, "PATIENCE", 0.0)

    async def body() -> None:
        where = connection.endpoint(Settings(), role="admin")
        command = await connection.connect(where, name="cli", patient=False)
        with pytest.raises(ServiceUnavailableError, match="no node of the cluster leads"):
            await command.jetstream(domain="nowhere").account_info()
        await command.close()

    run(body())


def test_a_component_keeps_its_own_patience(nats_server: EmbeddedServer) -> None:
    """Who reconnects by itself hears at once that nobody takes what it asks."""

    async def body() -> None:
        async with mesh_client() as client:
            with pytest.raises(NoRespondersError):
                await client.request(NOBODY, timeout=5)

    run(body())
