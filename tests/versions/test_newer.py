"""Events of a version newer than ours: kept, shown, decided, or passed over for all to see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from opsmesh.cli.main import app
from opsmesh.handlers.evidence.reader import read
from opsmesh.router import paths
from opsmesh.router.deadletter import Letter
from opsmesh.router.intake import Intake
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import decode
from opsmesh.schemas.errors import EnvelopeError
from opsmesh.schemas.registry import load_registry
from tests.conftest import eventually, mesh_client, run
from tests.evidence.sinks import sink
from tests.handlers.mesh import Mesh, mesh

#: What a later release might make of a topic that we know: other fields, under the same name.
NEWER = {"v": 99, "service": {"name": "backup", "kind": "service"}, "why": ["exit", 1]}
PROFILES = """
profiles:
  by-the-new-form:
    on: [service.start.failed]
    run_on: any
    where: event.payload.service.name == "backup"
    actions: [emit: {topic: my.answer}]
  by-the-form-we-know:
    on: [service.start.failed]
    run_on: any
    where: event.payload.unit == "backup.service"
    actions: [emit: {topic: my.other}]
"""


def envelope(**more: object) -> bytes:
    """An event as a host of a newer version sends it."""
    event_id = ids.uuid7()
    return json.dumps(
        {
            "topic": "service.start.failed",
            "ts_utc": "2026-11-27T20:00:00Z",
            "source": "journal",
            "component": "systemd",
            "severity": "error",
            "correlation_id": event_id,
            "host": "newer",
            "session_id": "",
            "workspace": "",
            "payload": NEWER,
            "id": event_id,
            "schema_version": "1.7",
            "trust_level": {"a field": "of 1.7"},
            **more,
        }
    ).encode()


def shown_by(*arguments: str) -> str:
    """What the command line says."""
    return CliRunner().invoke(app, arguments).stdout


async def store(here: Mesh, data: bytes) -> None:
    """The bytes as a newer host's agent stores them."""
    js = here.client.jetstream()
    headers = {"Nats-Msg-Id": json.loads(data)["id"]}
    await js.publish("evt.newer.service.start.failed", data, headers=headers)


def test_the_agent_takes_in_what_it_does_not_know_yet(home: Path) -> None:
    """A newer producer's event passes an older agent: nothing of it is dropped or refused."""
    data = envelope()
    taken = json.loads(Intake(Settings(), load_registry()).message(data).data)
    assert taken["payload"] == NEWER
    assert taken["schema_version"] == "1.7"
    assert taken["trust_level"] == {"a field": "of 1.7"}


@pytest.mark.usefixtures("nats_server")
def test_a_newer_payload_is_decided_by_what_it_says() -> None:
    """A profile that reads a newer payload's fields fires; one that reads what is gone does not,
    and `why` says so."""
    data = envelope()

    async def body() -> None:
        async with mesh(PROFILES) as here:
            await store(here, data)
            [answer] = await here.wait("my.answer")
            assert answer.causation_id
            await here.decided("by-the-form-we-know", 1)
            assert await here.letters() == []

    run(body())
    why = shown_by("why", json.loads(data)["id"])
    assert "by-the-form-we-know" in why
    assert "cannot be answered: no field event.payload.unit" in why


@pytest.mark.usefixtures("nats_server")
def test_a_newer_envelope_is_set_aside_with_the_reason() -> None:
    """An envelope whose major version we do not know becomes a dead letter of each profile that
    listens, as it came; what comes after it is decided."""
    data = envelope(schema_version="2.0")

    async def body() -> None:
        async with mesh(PROFILES) as here:
            await store(here, data)
            await store(here, envelope())
            await here.wait("my.answer")
            profiles = {"by-the-new-form", "by-the-form-we-know"}

            async def of_each() -> list[Letter]:
                found = await here.letters()
                return found if {letter.profile for letter in found} >= profiles else []

            letters: list[Letter] = await eventually(of_each)  # each decides by itself
            assert sorted(letter.profile for letter in letters) == sorted(profiles)
            for letter in letters:
                assert letter.data == data
                assert "this version of opsmesh reads 1.x; a newer one has written" in letter.reason

    run(body())


@pytest.mark.usefixtures("nats_server")
def test_what_is_newer_is_archived_and_shown() -> None:
    """The archive holds a newer event's very bytes; `tail` shows it, or why it cannot."""
    known, unknown = envelope(), envelope(schema_version="2.0")

    async def body() -> None:
        async with mesh_client() as client:
            here = Mesh(client, None, Settings())  # type: ignore[arg-type]  # only its client
            await store(here, known)
            await store(here, unknown)
            with sink():
                folder = Path(paths.evidence_dir())
                await eventually(
                    lambda: (
                        folder.exists() and {known, unknown} <= {item.data for item in read(folder)}
                    )
                )

    run(body())
    shown = shown_by("tail", "--no-follow", "--since", "1h")
    assert "newer/journal v=99 " in shown
    assert "undecodable evt.newer.service.start.failed" in shown
    assert "schema_version '2.0': this version of opsmesh reads 1.x" in shown
    assert "version 99, and this opsmesh knows 1" in shown_by("show", json.loads(known)["id"])


def test_any_minor_version_of_the_envelope_is_read() -> None:
    """1.x is read whatever x is; another major version is refused by its name."""
    assert decode(envelope(schema_version="1.12")).schema_version == "1.12"
    for version in ("2.0", "10.0", "0.9", "next"):
        with pytest.raises(EnvelopeError, match=r"reads 1\.x") as refused:
            decode(envelope(schema_version=version))
        assert refused.value.field == "schema_version"


CODE = """
from opsmesh.schemas.topics import Payload, Topic
class Build(Payload, frozen=True, kw_only=True):
    duration_ms: float
def to_2(old):
    return {"duration_ms": old["seconds"] * 1000}
BUILD = Topic("acme.build.done", payload=Build, owner="acme", description="A build ended.",
              example={"v": 2, "duration_ms": 1.0}, version=2, upcasters={1: to_2})
"""
SLOW_BUILDS = """
profiles:
  slow-builds:
    on: [acme.build.done]
    run_on: any
    where: event.payload.duration_ms > 1000.0
    actions: [emit: {topic: my.answer}]
"""


@pytest.mark.usefixtures("nats_server")
def test_an_older_host_is_understood_by_upcasters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile written for today's form of a payload decides what an older host still sends, and
    the stored bytes stay as they came."""
    (tmp_path / "acme_older_builds.py").write_text(CODE)
    info = tmp_path / "acme-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[opsmesh.topics]\nbuild = acme_older_builds:BUILD\n")
    monkeypatch.syspath_prepend(tmp_path)

    async def body() -> None:
        async with mesh(SLOW_BUILDS) as here:
            for host, payload in (
                ("older", {"seconds": 2}),
                ("today", {"v": 2, "duration_ms": 2000.0}),
                ("older", {"seconds": 0.5}),
            ):
                await here.publish("acme.build.done", host=host, payload=payload)
            await here.wait("my.answer", 2)
            last = await here.client.jetstream().get_last_msg(EVENTS, "evt.older.acme.build.done")
            await here.decided("slow-builds", last.seq or 0)
            assert len(await here.events("my.answer")) == 2
            stored = await here.events("acme.build.done")
            assert stored[0].payload == {"seconds": 2}

    run(body())
