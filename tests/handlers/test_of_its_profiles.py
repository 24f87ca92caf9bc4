"""A handler that reads only what its profiles listen to: it works, and a thief gets no more."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nats
import pytest
import yaml
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from tests.conftest import eventually, mesh_client, private_folders, run, start_server
from tests.router.agent_process import AgentProcess, agent

from opsmesh.cli.auth.profiles import reads_of
from opsmesh.handlers.actions.contract import Past
from opsmesh.handlers.live import firing
from opsmesh.handlers.live.firing import Gone
from opsmesh.handlers.live.recent import reader
from opsmesh.router import connection, paths, trigger
from opsmesh.router.auth.permissions import MAX_TOKEN
from opsmesh.router.auth.store import Store
from opsmesh.router.connection import Endpoint
from opsmesh.router.decide import EventRef
from opsmesh.router.errors import AuthError, PermissionDenied, Unreadable
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.stored import stored_us
from opsmesh.router.topology import EVENTS
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode, encode, subject

pytestmark = pytest.mark.xdist_group("of-its-profiles")

USER = "desk-handler"
PROFILES = """
profiles:
  one:
    on: service.start.failed
    actions: [emit: {topic: my.one, payload: {unit: "${{ event.payload.unit }}"}}]
  three:
    on: [python.test.failed, shell.command.failed, package.*.finished]
    run_on: any
    actions: [emit: {topic: my.three, payload: {of: "${{ event.host }}"}}]
  looks-back:
    on: editor.file.saved
    where: last("desktop.workspace.changed") != null
    actions: [emit: {topic: my.back, payload: {}}]
  nosy:
    on: nosy.asked.now
    actions:
      - id: reads
        collect: [{events: {topics: ["secret.>"]}}]
      - emit: {topic: my.nosy, payload: {}}
"""


@dataclass
class Place:
    """A broker with its agent, the credentials of a handler on `desk`, and folders for it."""

    server: EmbeddedServer
    creds: Path
    desk: Path
    environment: dict[str, str]
    agent: AgentProcess
    agent_log: Path

    def restart_agent(self) -> None:
        """Another agent, after the one that was ended."""
        self.agent = AgentProcess(self.agent_log)

    def start(self) -> subprocess.Popen[bytes]:
        """The handlers process of desk."""
        with (self.desk / "handlers.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "opsmesh.handlers.serve"],
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def said(self) -> str:
        """What it has logged."""
        return (self.desk / "handlers.log").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests of this module."""
    home = tmp_path_factory.mktemp("hub")
    desk = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as env:
        with pytest.MonkeyPatch.context() as there:
            private_folders(desk, there)
            environment = dict(os.environ)
        private_folders(home, env)
        server = start_server()
        config = desk / "config" / "opsmesh"
        config.mkdir(parents=True)
        (config / "profiles.yaml").write_text(PROFILES)
        creds = desk / f"{USER}.creds"
        creds.write_text(
            store().issue(USER, role="handler", host="desk", reads=reads_of(config, "desk"))
        )
        settings = {"host": "desk", "nats": {"url": server.broker.url, "credentials": str(creds)}}
        (config / "config.yaml").write_text(yaml.safe_dump(settings))
        try:
            with agent(home) as running:
                found = Place(server, creds, desk, environment, running, home / "agent.log")
                yield found
                found.agent.stop()
        finally:
            server.stop()


def store() -> Store:
    """The trust of this test's broker."""
    return Store(Path(paths.state_dir(), "auth"))


async def publish(client: Client, topic: str, host: str = "desk", **payload: Any) -> Event:
    """One event, as its producer would store it."""
    event_id = ids.uuid7()
    event = Event(
        topic=topic,
        ts_utc=times.format_us(times.now_us()),
        source="test",
        component="test",
        severity="error",
        correlation_id=event_id,
        host=host,
        session_id="",
        workspace="",
        payload=payload,
        id=event_id,
    )
    await client.jetstream().publish(subject(host, topic), encode(event))
    return event


async def newest(js: JetStreamContext, event: Event) -> int:
    """The sequence of an event that is the newest of its topic: the agent stores events too."""
    return (await js.get_last_msg(EVENTS, subject(event.host, event.topic))).seq or 0


async def results(client: Client, topic: str) -> list[Event]:
    """Every stored event of this topic."""
    return [decode(msg.data) async for msg in scan(client, EVENTS, subjects=[f"evt.*.{topic}"])]


async def wait_for(client: Client, topic: str, event: Event) -> Event:
    """The result that this event has caused."""

    async def there() -> Event | None:
        found = [one for one in await results(client, topic) if one.causation_id == event.id]
        return found[0] if found else None

    found: Event = await eventually(there)
    return found


async def ready(client: Client, consumers: list[str]) -> None:
    """Return once somebody decides for these."""

    async def owned(consumer: str) -> bool:
        try:
            answer = await client.request(f"own.{consumer}", b"", timeout=1)
        except NatsError:
            return False
        return "seq" in json.loads(answer.data)

    for consumer in consumers:
        await eventually(lambda consumer=consumer: owned(consumer))


ALL = ["profile-one-on-desk", "profile-three", "profile-looks-back-on-desk", "profile-nosy-on-desk"]


@pytest.mark.slow
def test_decides_and_runs(place: Place) -> None:
    """A handlers process under such credentials decides and runs profiles with one topic, with
    three and a pattern, and with last(…), takes a trigger that was handed to its host, and goes on
    after kill -9."""

    async def body() -> None:
        async with mesh_client() as client:
            process = place.start()
            try:
                await ready(client, ALL)
                for host in ("desk", "elsewhere"):
                    await publish(client, "secret.thing.seen", host)
                one = await publish(client, "service.start.failed", unit="a.service")
                three = await publish(client, "shell.command.failed", "elsewhere")
                pattern = await publish(client, "package.upgrade.finished", "elsewhere")
                await publish(client, "desktop.workspace.changed")
                back = await publish(client, "editor.file.saved")
                assert (await wait_for(client, "my.one", one)).payload == {"unit": "a.service"}
                assert (await wait_for(client, "my.three", three)).payload == {"of": "elsewhere"}
                await wait_for(client, "my.three", pattern)
                await wait_for(client, "my.back", back)
                asked = await publish(client, "nothing.listens.here", unit="by hand")
                await trigger.send(
                    client, "one.desk", encode(asked), Trigger(kind="manual", id=ids.uuid7())
                )
                assert (await wait_for(client, "my.one", asked)).payload == {"unit": "by hand"}
                process.send_signal(signal.SIGKILL)
                process.wait(60)
                away = await publish(client, "service.start.failed", unit="b.service")
                process = place.start()
                await wait_for(client, "my.one", away)
                await ready(client, ALL)
                again = await publish(client, "editor.file.saved")
                await wait_for(client, "my.back", again)
                assert len(await results(client, "my.one")) == 3
                assert "Traceback" not in place.said()
            finally:
                process.terminate()
                process.wait(60)

    run(body())


@pytest.mark.slow
def test_waits_for_the_agent(place: Place) -> None:
    """Handlers that start while no agent runs wait for one; those that run while it is away decide
    what came meanwhile once it is back, each once."""

    async def body() -> None:
        async with mesh_client() as client:
            before = len(await results(client, "my.one"))
            place.agent.kill()
            process = place.start()
            try:
                heard = await client.subscribe(f"ask.{USER}.>")  # it asks, and nobody answers
                await heard.next_msg(timeout=60)
                await heard.unsubscribe()
                place.restart_agent()
                await ready(client, ALL)
                first = await publish(client, "service.start.failed", unit="first")
                await wait_for(client, "my.one", first)
                place.agent.kill()
                second = await publish(client, "service.start.failed", unit="second")
                place.restart_agent()
                await wait_for(client, "my.one", second)
                assert len(await results(client, "my.one")) == before + 2
            finally:
                process.terminate()
                process.wait(60)

    run(body())


@pytest.mark.slow
def test_step_that_reads_more_fails_alone(place: Place) -> None:
    """A step that asks for other events has that as its error; the step after it is run."""

    async def body() -> None:
        async with mesh_client() as client:
            process = place.start()
            try:
                await ready(client, ALL)
                await publish(client, "secret.thing.seen")
                event = await publish(client, "nosy.asked.now")
                await wait_for(client, "my.nosy", event)
            finally:
                process.terminate()
                process.wait(60)

    run(body())
    manifests = list((place.desk / "state").rglob("manifest.json"))
    assert any("auth rotate desk-handler" in path.read_text() for path in manifests)


async def connected(place: Place) -> Client:
    """Ours, with these credentials."""
    where = Endpoint(url=place.server.broker.url, credentials=place.creds)
    return await connection.connect(where, name="test", patient=False)


def test_recent_is_limited_to_what_profiles_listen_to(place: Place) -> None:
    """A step is given events of before that a profile listens to; others are Unreadable, with what
    to do next."""

    async def body() -> None:
        async with mesh_client() as admin:
            event = await publish(admin, "service.start.failed", unit="c.service")
            await publish(admin, "secret.thing.seen")
            client = await connected(place)
            try:
                past = Past(
                    topics=("service.start.failed",),
                    since_us=0,
                    until_us=2**62,
                    host="desk",
                    limit=500,
                )
                assert event.id in [one.id for one in await reader(client)(past)]
                with pytest.raises(Unreadable, match=r"may not read evt\.desk\.secret") as caught:
                    await reader(client)(replace(past, topics=("secret.thing.seen",)))
                assert "auth rotate desk-handler --profiles" in caught.value.hint
            finally:
                await client.close()

    run(body())


def test_event_of_a_run_is_read_by_its_number(place: Place) -> None:
    """A run that is taken up again reads its event, if a profile is shown it; else it is Gone, with
    what to do next."""

    async def body() -> None:
        async with mesh_client() as admin:
            js, client = admin.jetstream(), await connected(place)
            try:
                mine = await publish(admin, "service.start.failed", unit="d.service")
                at = await newest(js, mine)
                assert (await firing.read(client, EventRef(mine.id, at))).event == mine
                other = await publish(admin, "secret.thing.seen")
                at = await newest(js, other)
                with pytest.raises(Gone, match="auth rotate desk-handler"):
                    await firing.read(client, EventRef(other.id, at))
            finally:
                await client.close()

    run(body())


def test_foreign_event_tells_when_it_was_stored(place: Place) -> None:
    """Of an event that it is not shown a handler learns when it was stored, to notice that the
    stream went back."""

    async def body() -> None:
        async with mesh_client() as admin:
            client = await connected(place)
            try:
                other = await publish(admin, "secret.thing.seen")
                at = await newest(admin.jetstream(), other)
                found = await stored_us(client, EVENTS, at)
                assert found is not None
                assert found == await stored_us(admin, EVENTS, at)
                assert await stored_us(client, EVENTS, at + 1000) is None
            finally:
                await client.close()

    run(body())


class Thief:
    """A plain client with the stolen file: it believes nothing of itself."""

    def __init__(self, client: Client, refused: list[str]) -> None:
        self.client = client
        self.refused = refused
        self.got: list[Msg] = []

    async def ask(self, subject: str, body: Any = b"") -> bytes:
        """The agent's answer, after its headers."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        msg = await self.client.request(subject, data, timeout=60)
        return json.dumps(msg.headers or {}).encode() + msg.data

    async def send(self, subject: str, body: Any = b"", *, reply: str = "") -> str:
        """What the server says when it lets nothing through."""
        self.refused.clear()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.client.publish(subject, data, reply=reply)
        # the server answers in order: what it refuses, before a PING that comes after it
        await self.client.flush()
        await self.client.flush()
        return " ".join(self.refused)


def stolen(place: Place, body: Any) -> None:
    """Run `body(thief, admin)` with a secret in the stream that a thief must not see."""

    async def both() -> None:
        refused: list[str] = []

        async def error(said: Exception) -> None:
            refused.append(str(said))

        async with mesh_client() as admin:
            await publish(admin, "secret.thing.seen", "elsewhere", word="xyzzy")
            await publish(admin, "service.start.failed", "elsewhere", unit="xyzzy")
            await publish(admin, "service.start.failed", unit="fine")
            client = await nats.connect(
                place.server.broker.url,
                user_credentials=str(place.creds),
                inbox_prefix=f"_INBOX.{USER}",
                error_cb=error,
                allow_reconnect=False,
            )
            try:
                await body(Thief(client, refused), admin)
            finally:
                await client.close()

    run(both())


def config(**more: Any) -> dict[str, Any]:
    """A reader's configuration, as a thief would like it."""
    return {"ack_policy": "none", "deliver_policy": "all", **more}


ROADS: list[tuple[str, Any]] = [
    ("API.STREAM.MSG.GET.EVENTS", {"last_by_subj": "evt.elsewhere.secret.thing.seen"}),
    ("API.DIRECT.GET.EVENTS", {"last_by_subj": "evt.elsewhere.secret.thing.seen"}),
    ("API.DIRECT.GET.EVENTS", {"multi_last": ["evt.>"]}),
    ("API.DIRECT.GET.EVENTS", {"seq": 0}),
    ("API.DIRECT.GET.EVENTS", {"seq": 1, "next_by_subj": "evt.*.secret.>"}),
    ("API.DIRECT.GET.EVENTS.evt.elsewhere.secret.thing.seen", b""),
    ("API.DIRECT.GET.EVENTS.evt.elsewhere.service.start.failed", b""),
    ("API.DIRECT.GET.EVENTS.evt.*.service.start.failed", b""),
    ("API.DIRECT.GET.EVENTS.evt.>", b""),
    (
        "API.DIRECT.GET.EVENTS.evt.desk.service.start.failed",
        {"last_by_subj": "evt.elsewhere.secret.thing.seen"},
    ),
    ("API.STREAM.INFO.EVENTS", {"subjects_filter": ">"}),
    ("API.CONSUMER.CREATE.EVENTS", {"stream_name": "EVENTS", "config": config()}),
    (
        "API.CONSUMER.CREATE.EVENTS",
        {"stream_name": "EVENTS", "config": config(filter_subject="evt.>")},
    ),
    (
        "API.CONSUMER.CREATE.EVENTS",
        {
            "stream_name": "EVENTS",
            "config": config(filter_subjects=["evt.desk.service.start.failed", "evt.*.secret.>"]),
        },
    ),
    (
        "API.CONSUMER.CREATE.EVENTS",
        {
            "stream_name": "EVENTS",
            "config": config(
                filter_subject="evt.desk.service.start.failed",
                deliver_subject=f"_INBOX.{USER}.x",
            ),
        },
    ),
    (
        "API.CONSUMER.DURABLE.CREATE.EVENTS.profile-one-on-desk",
        {
            "stream_name": "EVENTS",
            "config": config(
                durable_name="profile-one-on-desk", filter_subject="evt.*.service.start.failed"
            ),
        },
    ),
    (
        "API.CONSUMER.CREATE.EVENTS.profile-one-on-desk.evt.>",
        {"stream_name": "EVENTS", "config": config(filter_subject="evt.>")},
    ),
    (
        "API.CONSUMER.CREATE.KV_opsmesh-runs",
        {"stream_name": "EVENTS", "config": config(filter_subject="evt.>")},
    ),
    ("API.CONSUMER.CREATE.DLQ", {"stream_name": "DLQ", "config": config(filter_subject="dlq.>")}),
    ("API.CONSUMER.MSG.NEXT.EVENTS.archive", {"batch": 5}),
    ("API.CONSUMER.MSG.NEXT.TRIGGERS.triggers", {"batch": 5}),
    (
        "API.CONSUMER.DURABLE.CREATE.TRIGGERS.triggers-on-desk",
        {"stream_name": "TRIGGERS", "config": config(filter_subject="trg.>")},
    ),
    (
        "API.CONSUMER.CREATE.EVENTS",
        {"stream_name": "EVENTS", "config": config(filter_subject="evt.*.automation.run.>")},
    ),
    ("API.CONSUMER.DELETE.EVENTS.archive", b""),
    ("API.CONSUMER.NAMES.EVENTS", b""),
    ("API.STREAM.NAMES", b""),
    ("API.STREAM.PURGE.EVENTS", b""),
    ("API.STREAM.PURGE.EVENTS", {"filter": "evt.desk.service.start.failed"}),
    ("API.STREAM.PURGE.VERSIONS", {"filter": "ver.profile-one-on-desk"}),
    (
        "API.STREAM.PURGE.KV_opsmesh-runs",
        {"filter": "$KV.opsmesh-runs.one.>", "Filter": "$KV.opsmesh-runs.>"},
    ),
    ("API.STREAM.PURGE.KV_opsmesh-runs", b""),
    ("API.STREAM.PURGE.KV_opsmesh-runs", {"filter": "$KV.opsmesh-runs.another.>"}),
    ("API.STREAM.DELETE.EVENTS", b""),
    ("API.STREAM.UPDATE.EVENTS", {"name": "EVENTS", "republish": {"src": ">", "dest": "_INBOX.x"}}),
    ("API.DIRECT.GET.KV_opsmesh-runs.$KV.opsmesh-runs.another.x", b""),
    ("API.DIRECT.GET.OBJ_opsmesh-evidence.$O.opsmesh-evidence.M.x", b""),
]


@pytest.mark.parametrize(
    ("road", "asked"), ROADS, ids=[f"{n}-{r}" for n, (r, _) in enumerate(ROADS)]
)
def test_thief_reads_nothing_else(place: Place, road: str, asked: Any) -> None:
    """By no road of JetStream's does a thief get more than the profiles are shown: the broker lets
    it ask nothing itself, and the agent refuses."""

    async def body(thief: Thief, _: Client) -> None:
        mine = f"_INBOX.{USER}.x"
        assert "permissions violation" in await thief.send(f"$JS.{road}", asked, reply=mine)
        answer = await thief.ask(f"ask.{USER}.{road}", asked)
        assert b"Opsmesh-Refused" in answer
        assert b"xyzzy" not in answer

    stolen(place, body)


@pytest.mark.parametrize("road", ["DIRECT.GET", "STREAM.MSG.GET"])
def test_thief_reads_no_foreign_event_by_its_number(place: Place, road: str) -> None:
    """Of every event by its sequence, a thief gets those that a profile of its host is shown."""

    async def body(thief: Thief, admin: Client) -> None:
        last = (await admin.jetstream().stream_info(EVENTS)).state.last_seq
        shown = []
        for seq in range(1, last + 1):
            answer = await thief.ask(f"ask.{USER}.API.{road}.EVENTS", {"seq": seq})
            found = json.loads(answer[answer.index(b"}") + 1 :] or b"{}")
            data = base64.b64decode(found.get("message", {}).get("data", "")) or answer
            assert b"xyzzy" not in data
            shown.append(b"fine" in data)
        assert any(shown)

    stolen(place, body)


def test_thief_sends_no_answer_elsewhere(place: Place) -> None:
    """The broker answers to any subject that it is told; by the agent an answer goes to an inbox
    of who asks, so that an empty one does not end a stream, nor a stored one become an event."""

    async def body(thief: Thief, admin: Client) -> None:
        js = admin.jetstream()
        before = (await js.stream_info(EVENTS)).state.messages
        nothing = f"ask.{USER}.API.DIRECT.GET.EVENTS.evt.desk.editor.file.saved"
        for reply in ("$JS.API.STREAM.DELETE.EVENTS", "evt.elsewhere.a.b", "_INBOX.other.x"):
            await thief.send(nothing, reply=reply)
            await thief.send(f"ask.{USER}.API.STREAM.INFO.EVENTS", reply=reply)
        await thief.ask(nothing)  # answered: what was asked before it has been looked at
        assert (await js.stream_info(EVENTS)).state.messages == before

    stolen(place, body)


@pytest.mark.parametrize(
    "subject",
    [
        "ask.laptop-handler.API.STREAM.INFO.EVENTS",
        "$JS.ACK.EVENTS.archive.1.1.1.1.0",
        "evt.elsewhere.service.start.failed",
        "trg.another",
        "trg.one",
        "$KV.opsmesh-runs.another.x",
        "$KV.opsmesh-windows.profile-another.cursor",
        "ver.profile-another",
        "dlq.another.desk.a.b",
        "dec.another.elsewhere",
        "ctl.runs.answer",
        "$O.opsmesh-evidence.M.x",
    ],
)
def test_thief_writes_nothing_else(place: Place, subject: str) -> None:
    """A thief speaks for no other user, host or profile."""

    async def body(thief: Thief, _: Client) -> None:
        assert "permissions violation" in await thief.send(subject)

    stolen(place, body)


@pytest.mark.parametrize(
    "pattern", ["evt.>", "ctl.runs.answer", "$KV.opsmesh-runs.>", "own.>", "ask.>", "_INBOX.>"]
)
def test_thief_hears_nothing_else(place: Place, pattern: str) -> None:
    """A thief hears neither events, nor the ledger of others, nor what others ask."""

    async def body(thief: Thief, _: Client) -> None:
        await thief.client.subscribe(pattern)
        await eventually(lambda: thief.refused)

    stolen(place, body)


def test_reader_that_another_made_wider_is_refused(place: Place) -> None:
    """When a handler with another text has made a profile's reader wider, it is not read from."""

    async def body(thief: Thief, admin: Client) -> None:
        js = admin.jetstream()
        with contextlib.suppress(NotFoundError):
            await js.delete_consumer(EVENTS, "profile-three")
        await js.add_consumer(EVENTS, durable_name="profile-three", filter_subject="evt.>")
        try:
            road = f"ask.{USER}.API.CONSUMER.MSG.NEXT.EVENTS.profile-three"
            assert b"Opsmesh-Refused" in await thief.ask(road, {"batch": 1})
        finally:
            await js.delete_consumer(EVENTS, "profile-three")

    stolen(place, body)


def test_revoked_and_unrestricted_users_have_no_gate(place: Place) -> None:
    """Whoever is not in the manifest, or reads everything anyway, is refused by the agent."""

    async def body() -> None:
        async with mesh_client() as admin:
            for user in ("nobody", f"{Settings().host}-handler"):
                inbox = f"_INBOX.{user}.x"
                heard = await admin.subscribe(inbox)
                await admin.publish(f"ask.{user}.API.STREAM.INFO.EVENTS", b"", reply=inbox)
                assert b"not to be read" in (await heard.next_msg(timeout=60)).data

    run(body())


def test_too_many_profiles_say_how_many_fit(place: Place, tmp_path: Path) -> None:
    """More profiles than a token holds are refused with how many fit, and so many do fit."""
    one = "  a-profile-of-{n}:\n    on: a.b\n    actions: [emit: {{topic: my.x, payload: {{}}}}]\n"

    def reads(count: int) -> Any:
        file = tmp_path / f"{count}.yaml"
        file.write_text("profiles:\n" + "".join(one.format(n=n) for n in range(count)))
        return reads_of(file, "desk")

    with pytest.raises(AuthError, match=r"would hold 300 profiles, and \d+ fit") as caught:
        store().issue("many", role="handler", host="desk", reads=reads(300))
    fit = int(str(caught.value).split(", and ")[1].split()[0])
    text = store().issue("many", role="handler", host="desk", reads=reads(fit))
    assert len(text.split()[4]) <= MAX_TOKEN
    creds = tmp_path / "many.creds"
    creds.write_text(text)

    async def body() -> None:
        where = Endpoint(url=place.server.broker.url, credentials=creds)
        client = await connection.connect(where, name="many", patient=False)
        with pytest.raises(PermissionDenied):
            await client.publish("trg.x", b"")
        await client.close()

    run(body())
    assert fit > 50
