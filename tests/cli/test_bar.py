"""`opsmesh bar`: one block, as Waybar takes it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import pytest
from tests.cli.conftest import Cli
from tests.conftest import PATIENCE, eventually, mesh_client, run
from tests.handlers.mesh import write_profiles

from opsmesh.cli import bar
from opsmesh.cli.health import Health
from opsmesh.router import tasks
from opsmesh.router.server import EmbeddedServer, monitored
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, encode, subject

QUESTION = {"prompt": "Restart <a> & b?", "profile": "triage", "id": "1", "since": ""}
PROBLEM = {"what": "the agent hangs", "fix": "opsmesh doctor"}


@pytest.mark.parametrize(
    ("facts", "failures", "kind", "text"),
    [
        ({}, [], "ok", ""),
        ({"approvals": [QUESTION]}, [], "waiting", "? 1"),
        ({}, ["a on h", "b on h"], "failed", "✗ 2"),
        ({"approvals": [QUESTION]}, ["a on h"], "failed", "? 1  ✗ 1"),
        ({"verdict": "degraded", "problems": [PROBLEM]}, [], "degraded", "mesh degraded"),
        ({"verdict": "down"}, ["a on h"], "down", "mesh down  ✗ 1"),
    ],
)
def test_the_worst_is_shown(
    facts: dict[str, Any], failures: Sequence[str], kind: str, text: str
) -> None:
    """Class and text tell the worst that there is; while all is well there is no text."""
    found = bar.block(Health(**facts), failures)
    assert (found["class"], found["alt"], found["text"]) == (kind, kind, text)


def test_the_tooltip_is_bounded() -> None:
    """The newest failures are named, and how many more there were."""
    lines = bar.block(Health(), [f"f{n} on h" for n in range(9)])["tooltip"].splitlines()
    assert lines == ["opsmesh: ok", *(f"! f{n} on h" for n in (8, 7, 6, 5, 4)), "… and 4 more"]


def test_what_failed_again_is_one_line() -> None:
    """The same failure is named once, with how often it was; the newest first."""
    lines = bar.block(Health(), ["a on h", "b on h", "a on h"])["tooltip"].splitlines()
    assert lines == ["opsmesh: ok", "! a on h ×2", "! b on h"]


def failed(profile: str = "p") -> Event:
    id = ids.uuid7()
    return Event(
        topic="automation.run.deadlettered",
        ts_utc=times.format_us(times.now_us()),
        source="opsmesh",
        component=profile,
        severity="error",
        correlation_id=id,
        host=Settings().host,
        session_id="",
        workspace="",
        payload={"profile": profile, "error": "e"},
        id=id,
    )


async def store(event: Event) -> None:
    async with mesh_client() as client:
        data = encode(event)
        await client.jetstream().publish(subject(event.host, event.topic), data, stream="EVENTS")


def test_failures_since_the_last_look(cli: Cli, stand_ins: dict[str, str]) -> None:
    """Each counts until somebody has looked; who follows hears of one at once."""
    write_profiles("profiles: {}")
    cli("up", "--detach")
    run(store(failed()))
    assert json.loads(cli("bar", "--json").stdout)["failures"] == 1
    assert cli("bar", "--seen").stdout == ""
    with following() as lines:
        # a busy broker may be told as one that does not answer, in between
        blocks = map(json.loads, iter(lines.readline, ""))
        first = next(one for one in blocks if one["class"] == "ok")
        run(store(failed()))
        second = next(one for one in blocks if one["class"] == "failed")
    assert (first["failures"], second["failures"]) == (0, 1)


def test_who_may_not_listen_leaves_no_connection(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thin host with a handler's credentials hears nothing at once: it tries again, and each try
    ends."""
    monkeypatch.setattr(bar, "LOOK_S", 0.02)
    settings = Settings()
    settings.nats.url = nats_server.broker.url
    settings.nats.credentials = nats_server.broker.credentials("handler")

    async def body() -> None:
        listening = asyncio.create_task(bar._listen(settings, asyncio.Event()))
        try:
            await eventually(lambda: connections("total_connections") > 4)
            # the broker sees a moment later that one has ended, and the next may be there
            await eventually(lambda: connections("connections") <= 1)
        finally:
            await tasks.end([listening])

    def connections(which: str) -> int:
        return int(monitored(f"{nats_server.broker.monitor_url}/varz", patience=PATIENCE)[which])

    run(body())


@contextmanager
def following() -> Iterator[IO[str]]:
    """What `bar --follow` prints."""
    argv = [sys.executable, "-P", "-m", "opsmesh.cli.entry", "bar", "--follow", "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_without_a_mesh_it_is_down(cli: Cli) -> None:
    """A bar begins before the mesh: that is a state, and no error."""
    done = cli("bar", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["class"] == "down"
    assert cli("bar").stdout == "down  mesh down\n"
    assert cli("bar", "--seen").exit_code == 0
