"""Roles, credentials and TLS, at a real server."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from tests.conftest import eventually, mesh_client, run

from opsmesh.router import connection, paths, server
from opsmesh.router.auth import matrix
from opsmesh.router.auth.store import Store
from opsmesh.router.auth.tls import Tls
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import AuthError, BrokerUnavailable, NotAcknowledged, PermissionDenied
from opsmesh.router.publish import Publisher
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings


def store() -> Store:
    """The trust of this test's broker."""
    return Store(Path(paths.state_dir(), "auth"))


def issued(folder: Path, name: str, *, role: str, host: str, topics: tuple[str, ...] = ()) -> Path:
    """Credentials in a file, as somebody else would have them."""
    file = folder / f"{name}.creds"
    file.write_text(store().issue(name, role=role, host=host, topics=topics))
    broker = server.known(Path(paths.state_dir()))
    assert broker is not None
    assert server.reload(broker)  # a producer has an account of its own
    return file


@asynccontextmanager
async def joined(broker: EmbeddedServer, file: Path) -> AsyncIterator[Client]:
    """A connection of ours with these credentials."""
    where = Endpoint(url=broker.broker.url, credentials=file)
    client = await connection.connect(where, name="test", patient=False)
    try:
        yield client
    finally:
        await client.close()


def test_matrix() -> None:
    """Every role may what is promised of it, and nothing else, at a real server."""
    wrong = [one for one in run(matrix.prove()) if one.allowed != one.expected]
    assert wrong == []


@pytest.mark.parametrize(
    "subject",
    [
        "evt.desk.service.start.failed",
        "evt.laptop.shell.command.failed",
        "dlq.triage.desk.shell.command.failed",
        "trg.triage",
        "ctl.runs.answer",
        "$JS.API.STREAM.INFO.EVENTS",
        "$JS.API.DIRECT.GET.EVENTS",
        "$JS.API.CONSUMER.CREATE.EVENTS",
        "$KV.opsmesh-runs.x",
    ],
)
def test_stolen_producer_is_refused(
    nats_server: EmbeddedServer, tmp_path: Path, subject: str
) -> None:
    """A thief of a producer's credentials speaks for no other host and topic and reads nothing,
    with a client that asks nobody before it sends."""
    file = issued(tmp_path, "desk-shell", role="producer", host="desk", topics=("shell.>",))

    async def body() -> None:
        async with mesh_client() as owner:
            before = (await owner.jetstream().stream_info("EVENTS")).state.messages
            refused: list[str] = []

            async def error(said: Exception) -> None:
                refused.append(str(said))

            thief = await nats.connect(
                nats_server.broker.url,
                user_credentials=str(file),
                inbox_prefix="_INBOX.desk-shell",
                error_cb=error,
            )
            await thief.publish(subject, b"{}", reply="_INBOX.desk-shell.x")
            # nats-py also tells of a server that was slow to let it in
            await eventually(lambda: any(subject.lower() in one for one in refused))
            with pytest.raises(NatsError):  # nats-py's own request: nothing ever answers
                await thief.request(subject, b"", timeout=0.2)
            await thief.close()
            assert (await owner.jetstream().stream_info("EVENTS")).state.messages == before

    run(body())


@pytest.mark.parametrize("pattern", ["evt.>", ">", "_INBOX.>", "_INBOX.laptop-admin.>", "$JS.>"])
def test_stolen_producer_hears_nothing(
    nats_server: EmbeddedServer, tmp_path: Path, pattern: str
) -> None:
    """A thief of a producer's credentials hears neither events nor anybody's answers."""
    file = issued(tmp_path, "desk-shell", role="producer", host="desk")

    async def body() -> None:
        refused: list[str] = []

        async def error(said: Exception) -> None:
            refused.append(str(said))

        thief = await nats.connect(
            nats_server.broker.url, user_credentials=str(file), error_cb=error
        )
        await thief.subscribe(pattern)
        # nats-py also tells of a server that was slow to let it in
        await eventually(lambda: any(f'"{pattern.lower()}"' in one for one in refused))
        await thief.close()

    run(body())


@pytest.mark.parametrize(
    "reply",
    [
        "evt.laptop.shell.command.failed",
        "evt.desk.service.start.failed",
        "$JS.API.STREAM.DELETE.DLQ",
        "_INBOX.laptop-admin.x",
    ],
)
def test_stolen_producer_has_nothing_answered_elsewhere(
    nats_server: EmbeddedServer, tmp_path: Path, reply: str
) -> None:
    """The broker answers where it is told, and checks no permission there: from a producer's own
    account that place is nowhere."""
    file = issued(tmp_path, "desk-shell", role="producer", host="desk", topics=("shell.>",))

    async def body() -> None:
        async with mesh_client() as owner:
            heard: list[str] = []

            async def hear(message: Msg) -> None:
                heard.append(message.subject)

            await owner.subscribe(">", cb=hear)
            await owner.flush()
            thief = await nats.connect(
                nats_server.broker.url,
                user_credentials=str(file),
                inbox_prefix="_INBOX.desk-shell",
            )
            await thief.publish("evt.desk.shell.x", b"{}", reply=reply)
            # its own answer, to what comes after: the other one was given
            await thief.request("evt.desk.shell.x", b"{}", timeout=60)
            await thief.close()
            await eventually(lambda: heard.count("evt.desk.shell.x") == 2)
            state = (await owner.jetstream().stream_info("EVENTS", subjects_filter=">")).state
            assert state.subjects == {"evt.desk.shell.x": 2}
            assert (await owner.jetstream().stream_info("DLQ")).config.name == "DLQ"
            assert reply not in heard

    run(body())


def test_producer_publishes_its_own(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A producer's credentials store an event of its own topics under its own host."""
    file = issued(tmp_path, "desk-shell", role="producer", host="desk", topics=("shell.>",))

    async def body() -> int:
        async with mesh_client(), joined(nats_server, file) as client:
            publisher = Publisher(client)
            return (await publisher.publish("evt.desk.shell.command.failed", b"{}", msg_id="1")).seq

    assert run(body()) == 1


def test_denial_is_told_as_itself(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """What the credentials do not allow is PermissionDenied at once, with subject and user, and
    what is published beside it is stored."""
    file = issued(tmp_path, "desk-producer", role="producer", host="desk")

    async def body() -> None:
        async with mesh_client(), joined(nats_server, file) as client:
            publisher = Publisher(client)
            good, bad = await asyncio.gather(
                publisher.publish("evt.desk.a.b", b"{}", msg_id="1"),
                publisher.publish("evt.laptop.a.b", b"{}", msg_id="2"),
                return_exceptions=True,
            )
            assert not isinstance(good, BaseException)
            assert isinstance(bad, PermissionDenied)
            assert str(bad) == (
                "the credentials of desk-producer may not publish to evt.laptop.a.b"
            )
            with pytest.raises(PermissionDenied, match=re.escape("may not subscribe to evt.>")):
                await client.subscribe("evt.>")
            with pytest.raises(PermissionDenied, match=re.escape("$JS.API.STREAM.INFO.EVENTS")):
                await client.jetstream().stream_info("EVENTS")

    run(body())


def test_what_the_broker_refuses_is_remembered(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A refusal that the credentials did not foretell is PermissionDenied from the next publish on;
    before, it is told as not acknowledged."""
    file = issued(tmp_path, "desk-producer", role="producer", host="desk")

    async def body() -> None:
        async with mesh_client(), joined(nats_server, file) as client:
            client.identity = None  # type: ignore[attr-defined]  # as with a user and a password
            publisher = Publisher(client, ack_timeout=0.2)
            with pytest.raises(NotAcknowledged):
                await publisher.publish("evt.laptop.a.b", b"{}", msg_id="1")
            await eventually(lambda: client.denied)  # type: ignore[attr-defined]
            with pytest.raises(PermissionDenied):
                await publisher.publish("evt.laptop.a.b", b"{}", msg_id="1")
            await Publisher(client).publish("evt.desk.a.b", b"{}", msg_id="2")

    run(body())


def test_revoked_user_is_cut_off_and_nobody_else(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """Revoking ends a user's connections and lets it in no more; others do not notice."""
    file = issued(tmp_path, "desk-producer", role="producer", host="desk")

    async def body() -> None:
        async with mesh_client() as other, joined(nats_server, file) as client:
            store().revoke("desk-producer")
            assert await asyncio.to_thread(server.reload, nats_server.broker)
            await eventually(lambda: not client.is_connected)
            with pytest.raises(BrokerUnavailable, match="Authorization Violation"):
                async with joined(nats_server, file):
                    pass
            assert other.is_connected
            assert other.stats["reconnects"] == 0

    run(body())


def test_revoked_though_it_was_issued_by_a_clock_that_was_ahead(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a machine issued before its clock was set right is void like anything else."""
    with monkeypatch.context() as ahead:
        now = time.time() + 3600
        ahead.setattr("opsmesh.router.auth.jwt.time.time", lambda: now)
        file = issued(tmp_path, "desk-viewer", role="viewer", host="desk")

    async def body() -> None:
        async with joined(nats_server, file):
            pass
        store().revoke("desk-viewer")
        assert await asyncio.to_thread(server.reload, nats_server.broker)
        with pytest.raises(BrokerUnavailable, match="Authorization Violation"):
            async with joined(nats_server, file):
                pass

    run(body())


def test_own_credentials_rotate_under_load(nats_server: EmbeddedServer) -> None:
    """While this machine's credentials are exchanged a patient client goes on: it connects again
    with the new ones, and every event is stored once."""

    async def body() -> None:
        async with mesh_client() as client:
            publisher = Publisher(client)

            async def send(n: int) -> None:
                while True:
                    try:
                        await publisher.publish("evt.h.a.b", b"{}", msg_id=str(n))
                        return
                    except NotAcknowledged:  # the connection is exchanged
                        await asyncio.sleep(0.01)

            sending = asyncio.create_task(_each(send, 1000))
            await eventually(lambda: client.stats["out_msgs"] > 10 or sending.done())
            store().own(Settings().host, anew=True)
            for name in store().manifest().users:
                store().finish(name)
            assert await asyncio.to_thread(server.reload, nats_server.broker)
            await sending
            await eventually(lambda: client.is_connected and client.stats["reconnects"] >= 1)
            assert (await client.jetstream().stream_info("EVENTS")).state.messages == 1000

    async def _each(send, count: int) -> None:  # type: ignore[no-untyped-def]
        for n in range(count):
            await send(n)

    run(body())


def test_signing_key_rotates_without_an_outage(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """With a new signing key the old users stay until it is retired, and are named before."""
    old = issued(tmp_path, "desk-producer", role="producer", host="desk")

    async def body() -> None:
        async with joined(nats_server, old) as client:
            store().rotate_signing()
            await asyncio.to_thread(server.reload, nats_server.broker)
            new = issued(tmp_path, "desk-viewer", role="viewer", host="desk")
            async with joined(nats_server, new):
                assert client.is_connected
            assert "desk-producer" in store().signed_before()
            assert "desk-viewer" not in store().signed_before()
            store().retire_signing()
            await asyncio.to_thread(server.reload, nats_server.broker)
            with pytest.raises(BrokerUnavailable):
                async with joined(nats_server, old):
                    pass
            async with joined(nats_server, new):
                pass

    run(body())


def test_streams_of_the_time_before_accounts_are_kept(home: Path) -> None:
    """A broker that had a user and a password keeps its events, its port, and loses the file with
    the password."""
    state = Path(paths.state_dir())
    broker = server.prepare(state, name=Settings().host)
    port = int(broker.url.rpartition(":")[2])
    whole = json.loads(broker.config.read_text().partition("\n")[2])
    for key in ("operator", "system_account", "resolver", "resolver_preload"):
        del whole[key]
    whole["authorization"] = {"users": [{"user": "opsmesh", "password": "old"}]}
    broker.config.write_text(json.dumps(whole))
    before = EmbeddedServer(broker)
    before.start()

    async def fill() -> None:
        client = await nats.connect(broker.url, user="opsmesh", password="old")
        await client.jetstream().add_stream(name="EVENTS", subjects=["evt.>"])
        await client.jetstream().publish("evt.a.b.c", b"{}")
        await client.close()

    run(fill())
    before.stop()
    old = {"user": "opsmesh", "password": "old", "port": port, "monitor_port": port + 1}
    (state / "credentials.json").write_text(json.dumps(old))
    (state / "server.json").unlink()
    after = EmbeddedServer(server.prepare(state, name=Settings().host))
    after.start()

    async def look() -> int:
        where = connection.endpoint(Settings(), role="viewer")
        client = await connection.connect(where, name="test", patient=False)
        found = (await client.jetstream().stream_info("EVENTS")).state.messages
        await client.close()
        return found

    try:
        assert run(look()) == 1
        assert after.broker.url == broker.url
        assert not (state / "credentials.json").exists()
    finally:
        after.stop()


@pytest.fixture
def secure(home: Path) -> EmbeddedServer:
    """A broker with an authority of its own; not started."""
    store().folder.mkdir(parents=True)
    store().create()
    store().ca.create("here")
    store().ca.issue_server("here", ["localhost", "127.0.0.1"])
    return EmbeddedServer(server.prepare(Path(paths.state_dir()), name=Settings().host))


def test_tls_both_ways(secure: EmbeddedServer) -> None:
    """This machine's own processes connect by TLS 1.3 with a certificate, told by nobody."""

    async def body() -> str:
        where = connection.endpoint(Settings(), role="admin")
        client = await connection.connect(where, name="test", patient=False)
        assert client._transport is not None
        found = client._transport._io_writer.get_extra_info("ssl_object")  # type: ignore[attr-defined]
        version = str(found.version())
        await client.close()
        return version

    secure.start()
    try:
        assert run(body()) == "TLSv1.3"
    finally:
        secure.stop()


def test_a_tls_broker_that_ends_is_no_line_of_asyncio(
    secure: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of a connection by TLS is ours to tell: asyncio has nothing to say of it."""
    ended = asyncio.Event()

    async def body() -> None:
        where = connection.endpoint(Settings(), role="admin")
        client = await connection.connect(where, name="test", changed=ended.set)
        await asyncio.to_thread(secure.kill)
        await ended.wait()
        await client.close()

    secure.start()
    try:
        run(body())
    finally:
        secure.stop()
    assert [one.getMessage() for one in caplog.records if one.name == "asyncio"] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("authority", "CERTIFICATE_VERIFY_FAILED"),
        ("no certificate", "we show no certificate"),
        ("expired", r"old\.pem has expired, on \d{4}-"),
    ],
)
def test_tls_refuses(secure: EmbeddedServer, tmp_path: Path, wrong: str, said: str) -> None:
    """Another authority's server is not believed; who shows no certificate, or one that is over, is
    not let in, whatever credentials it has."""
    own = connection.endpoint(Settings(), role="admin").tls
    assert own is not None
    ca, certificate = own.ca, own.certificate
    if wrong == "authority":
        other = Store(tmp_path / "other").ca
        other.create("other")
        ca = other.bundle
    elif wrong == "no certificate":
        certificate = None
    else:
        certificate = tmp_path / "old.pem"
        certificate.write_bytes(store().ca.certificate("old", days=0))
    where = Endpoint(
        url=secure.broker.url,
        credentials=secure.broker.credentials("admin"),
        tls=Tls(ca=ca, certificate=certificate),
    )

    async def body() -> None:
        with pytest.raises(BrokerUnavailable, match=said):
            await connection.connect(where, name="test", patient=False)

    secure.start()
    try:
        run(body())
    finally:
        secure.stop()


def test_authority_is_exchanged_without_an_outage(secure: EmbeddedServer) -> None:
    """While the authority and every certificate are exchanged, a client stays connected, and one
    that comes with either is let in until the old one is retired."""

    async def body() -> None:
        where = connection.endpoint(Settings(), role="admin")
        client = await connection.connect(where, name="test")
        old = store().own_certificate.read_bytes()
        store().ca.create("here")
        assert await asyncio.to_thread(server.reload, secure.broker)
        again = await connection.connect(where, name="with-old", patient=False)
        await again.close()
        store().ca.issue_server("here", ["localhost", "127.0.0.1"])
        store().own_certificate.write_bytes(store().ca.certificate("here"))
        assert await asyncio.to_thread(server.reload, secure.broker)
        again = await connection.connect(where, name="with-new", patient=False)
        await again.close()
        store().ca.retire()
        assert await asyncio.to_thread(server.reload, secure.broker)
        assert client.is_connected
        assert client.stats["reconnects"] == 0
        store().own_certificate.write_bytes(old)
        with pytest.raises(BrokerUnavailable):
            await connection.connect(where, name="retired", patient=False)
        await client.close()

    secure.start()
    try:
        run(body())
    finally:
        secure.stop()


def test_unusable_certificate_is_named(home: Path, tmp_path: Path) -> None:
    """A certificate file that is none is an error with its path."""
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    with pytest.raises(AuthError, match=re.escape(str(broken))):
        Tls(certificate=broken).renew(ssl.create_default_context())
