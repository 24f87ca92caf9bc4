"""`tail` and `replay --dry-run` over a real broker: each event once."""

from __future__ import annotations

import json

import pytest
from tests.cli.conftest import Cli
from tests.conftest import mesh_client, run
from tests.handlers.mesh import write_profiles

from opsmesh.router.settings import Settings
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import SEVERITIES, Event, encode, subject

PROFILES = """
profiles:
  one:
    on: [a.b]
    actions: [emit: {topic: my.answer}]
"""

pytestmark = pytest.mark.usefixtures("nats_server")


def event(id: str) -> bytes:
    return encode(
        Event(
            topic="a.b",
            ts_utc="2026-11-23T09:00:00Z",
            source="test",
            component="test",
            severity="error",
            correlation_id=id,
            host=Settings().host,
            session_id="",
            workspace="",
            payload={},
            id=id,
        )
    )


def test_event_that_is_stored_twice_is_shown_and_decided_once(cli: Cli) -> None:
    """A broker that has forgotten an id stores its event again; nobody sees two."""
    names = [ids.uuid7() for _ in range(3)]

    async def store() -> None:
        async with mesh_client() as client:
            for id in (*names, names[0]):  # no message id: the broker keeps both
                await client.jetstream().publish(subject(Settings().host, "a.b"), event(id))

    run(store())
    write_profiles(PROFILES)
    shown = cli("tail", "--no-follow", "--since", "1h", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in shown] == names
    decided = cli("replay", "--since", "1h", "--dry-run", "--json").stdout.splitlines()
    assert [json.loads(line)["outcome"] for line in decided] == ["fire"] * 3


def test_tail_as_cloudevents(cli: Cli) -> None:
    """Each line is the event as a CloudEvent; what is no event is named beside them."""
    name = ids.uuid7()

    async def store() -> None:
        async with mesh_client() as client:
            await client.jetstream().publish("evt.x.a.c", b"no event")
            await client.jetstream().publish(subject(Settings().host, "a.b"), event(name))

    run(store())
    done = cli("tail", "--no-follow", "--since", "1h", "--cloudevents")
    [found] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (found["specversion"], found["id"], found["type"]) == ("1.0", name, "a.b")
    assert "left out: sequence 1 on evt.x.a.c" in done.stderr


def test_tail_of_a_severity(cli: Cli) -> None:
    """--severity shows what is as grave or graver, and what is no event at all."""

    async def store() -> None:
        async with mesh_client() as client:
            for severity in SEVERITIES:
                data = event(ids.uuid7()).replace(b'"error"', f'"{severity}"'.encode())
                await client.jetstream().publish(subject(Settings().host, "a.b"), data)
            await client.jetstream().publish("evt.x.a.c", b"no event")

    run(store())
    said = cli("tail", "--no-follow", "--since", "1h", "--severity", "error").stdout
    assert [line.split()[1] for line in said.splitlines()] == ["error", "critical", "undecodable"]


@pytest.mark.parametrize("command", [("tail",), ("replay",), ("evidence", "tail")])
def test_a_topic_that_nothing_can_match(cli: Cli, command: tuple[str, ...]) -> None:
    """A pattern that no topic matches is named, and what one looks like."""
    for pattern in ("python", "a..b", "A.b"):
        done = cli(*command, "--topic", pattern)
        assert done.exit_code == 2
        assert f"'{pattern}' matches no topic" in done.stderr
