"""`opsmesh trace`: the tree from event to decision to run to what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli.conftest import Cli
from tests.conftest import mesh_client, run
from tests.handlers.explaining import Records
from tests.handlers.mesh import Mesh, mesh

from opsmesh.router.server import EmbeddedServer

PROFILES = """
profiles:
  triage:
    on: service.start.failed
    actions:
      - {id: look, command: [echo, hello]}
      - {id: tell, emit: {topic: my.told, payload: {n: 1}}}
  fragile:
    on: my.told
    retry: {attempts: 1}
    actions: [{id: boom, command: [sh, -c, exit 3]}]
  picky:
    on: service.start.failed
    where: event.payload.unit == "other"
    actions: [command: ["true"]]
"""


def story(look: Callable[[Mesh], Any]) -> None:
    """A unit fails; one profile tells of it, another fails at what it was told."""

    async def body() -> None:
        async with mesh(PROFILES) as m:
            await m.publish()
            await m.wait("automation.run.succeeded")
            await m.wait("automation.run.deadlettered")
            await m.decided("picky", 2)
            await look(m)

    run(body())


def depth(text: str, part: str) -> int:
    """How deep in the tree the first line with `part` stands."""
    line = next(line for line in text.splitlines() if part in line)
    return (len(line) - len(line.lstrip("│├└─ "))) // 4


def test_tree(nats_server: EmbeddedServer, cli: Cli) -> None:
    """Under an event its firing, under that the run, its steps, and what it emitted, and so on."""

    async def look(m: Mesh) -> None:
        [event] = await m.events("service.start.failed")
        text = (await asyncio.to_thread(cli, "trace", event.id)).stdout
        assert text.splitlines()[0] == f"{event.id} 4 events, 2 runs"
        parts = [
            "service.start.failed",
            "▸ triage fired (on)",
            "run succeeded",
            "my.told",
            "▸ fragile fired (on)",
            "run deadlettered",
            "failed  boom",
        ]
        assert [depth(text, part) for part in parts] == [1, 2, 3, 4, 5, 6, 7]
        assert depth(text, "done    look") == depth(text, "my.told") == 4
        assert "exit code 0" in text
        assert "exit code 3" in text
        assert "picky" not in text

    story(look)


def test_ids(nats_server: EmbeddedServer, cli: Cli) -> None:
    """Any event's id, a run's id and the beginning of one lead to the same story."""

    async def look(m: Mesh) -> None:
        [event] = await m.events("service.start.failed")
        [told] = await m.events("my.told")
        runs = await m.runs()
        texts = {
            (await asyncio.to_thread(cli, "trace", one)).stdout
            for one in (event.id, told.id, told.id[:30], *(one.run_id for one in runs))
        }
        assert len(texts) == 1
        unknown = await asyncio.to_thread(cli, "trace", "no-such-id")
        assert (unknown.exit_code, "no event, run or correlation" in unknown.stderr) == (3, True)

    story(look)


def test_misses(nats_server: EmbeddedServer, cli: Cli) -> None:
    """With --misses the profiles that listened and did not fire are there too."""

    async def look(m: Mesh) -> None:
        [event] = await m.events("service.start.failed")
        text = (await asyncio.to_thread(cli, "trace", event.id, "--misses")).stdout
        assert "▹ picky filtered (where) re-derived" in text

    story(look)


def test_json(nats_server: EmbeddedServer, cli: Cli) -> None:
    """As JSON: the events in order, each with its decisions, their runs and steps."""

    async def look(m: Mesh) -> None:
        [event] = await m.events("service.start.failed")
        found = json.loads((await asyncio.to_thread(cli, "trace", event.id, "--json")).stdout)
        assert found[0]["event"]["id"] == event.id
        assert len(found) == 4
        (decision,) = found[0]["decisions"]
        assert (decision["decision"]["profile"], decision["run"]["state"]) == (
            "triage",
            "succeeded",
        )
        assert [step["id"] for step in decision["run"]["steps"]] == ["look", "tell"]

    story(look)


def test_one_firing_of_several_events(nats_server: EmbeddedServer, cli: Cli, home: Path) -> None:
    """A firing is told once, under the event that it is about; the others point there."""
    profiles = """
profiles:
  digest:
    on: service.start.failed
    collect: {window: 1m}
    actions: [command: ["true"]]
"""

    async def body() -> list[str]:
        async with mesh_client() as client:
            made = Records(client)
            first = await made.publish("service.start.failed", {})
            more = {"correlation_id": first.correlation_id, "causation_id": first.id}
            second = await made.publish("service.start.failed", {}, **more)
            await made.decide(profiles, later_s=120)
            return [first.id, second.id]

    first, second = run(body())
    text = cli("trace", first).stdout
    assert f"with, and told under, {second}" in text
    assert "for 2 events" in text
    assert text.count("opsmesh run show") == 1
    assert depth(text, "run succeeded") == 4


def test_triggered_runs(nats_server: EmbeddedServer, cli: Cli) -> None:
    """A run that another one's step has triggered is told under the event that led to it, also over
    several steps, with what came of it."""
    profiles = """
profiles:
  first: {on: service.start.failed, actions: [trigger: second]}
  second: {on: never.happens, actions: [trigger: third]}
  third: {on: never.happens, actions: [emit: third.done]}
"""

    async def body() -> None:
        async with mesh(profiles) as m:
            event = await m.publish()
            await m.wait("automation.run.succeeded", 3)
            shown = (await asyncio.to_thread(cli, "trace", event.id)).stdout
            assert "5 events, 3 runs" in shown
            for name in ("second", "third"):
                assert depth(shown, f"▸ {name} step") == 2
            assert depth(shown, "third.done") == 4
            assert depth(shown, "automation.run.succeeded") == 4
            told = await asyncio.to_thread(cli, "trace", event.id, "--json")
            [first, *_] = json.loads(told.stdout)
            assert {one["profile"] for one in first["triggered"]} == {"second", "third"}

    run(body())
