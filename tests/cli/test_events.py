"""`tail` and `replay --dry-run` over a real broker: each event once."""

from __future__ import annotations

import json

import pytest
from tests.cli.conftest import Cli
from tests.conftest import mesh_client, run
from tests.handlers.mesh import write_profiles

from opsmesh.router.settings import Settings
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import Event, encode, subject

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
