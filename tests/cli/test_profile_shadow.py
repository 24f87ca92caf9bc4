"""`opsmesh profile try`, `diff-shadow`, `promote`: a new text beside the one in force."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.cli.conftest import Cli
from tests.conftest import eventually, run
from tests.handlers.mesh import Mesh, mesh, write_profiles
from typer.testing import Result

from opsmesh.handlers.live.consumers import CANDIDATE, consumer_name
from opsmesh.handlers.live.position import Positions
from opsmesh.handlers.profiles import overrides
from opsmesh.router import paths
from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas.envelope import Event

PROFILES = """
profiles:
  # how we look at failures
  note:
    on: service.start.failed
    where: event.payload.unit != "noise"
    actions: [command: ["true"]]
  other:  # stays
    on: my.other
    actions: [command: ["true"]]
"""
CANDIDATE_TEXT = """
profiles:
  note:
    on: [service.start.failed, my.more]
    # only what is ours
    where: event.topic == "my.more" || event.payload.unit == "ours"
    actions: [command: ["true"]]
"""


@pytest.fixture(autouse=True)
def quiet(log_of_before: None) -> None:
    """What handlers log beside a command is not part of what the command prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


async def call(cli: Cli, *arguments: str, **more: Any) -> Result:
    """A command beside running handlers."""
    return await asyncio.to_thread(cli, "profile", *arguments, **more)


async def published(m: Mesh, *units: str) -> list[Event]:
    """An event for each unit; `more` is one of my.more."""
    found = []
    for unit in units:
        topic = "my.more" if unit == "more" else "service.start.failed"
        found.append(await m.publish(topic, payload={"unit": unit}))
    return found


async def tried(m: Mesh, cli: Cli, text: str, folder: Path) -> None:
    """A candidate that decides."""
    file = folder / "new.yaml"
    file.write_text(text)
    assert (await call(cli, "try", str(file))).exit_code == 0
    consumer = f"{CANDIDATE}-note-on-{m.settings.host}"

    async def begun() -> bool:
        return (await Positions(m.client).cursor(consumer))[0] is not None

    await eventually(begun)


async def decided(m: Mesh, *kinds: str) -> None:
    """Return once the profile's texts have decided everything that is stored."""
    last = (await m.client.jetstream().stream_info("EVENTS")).state.last_seq
    profile = m.server.in_force("note")
    for kind in kinds:
        consumer = consumer_name(profile, m.settings.host, kind=kind)

        async def there(consumer: str = consumer) -> bool:
            cursor, _ = await Positions(m.client).cursor(consumer)
            return cursor is not None and cursor.seq >= last

        await eventually(there)


def test_from_trial_to_promotion(cli: Cli, nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A candidate decides in shadow beside the active text; where they part is shown with reasons;
    promoted, it acts, and the rest of the file is as it was."""

    async def body() -> None:
        async with mesh(PROFILES) as m:
            before = m.server.in_force("note").hash
            await published(m, "early")
            await decided(m, "profile")
            await tried(m, cli, CANDIDATE_TEXT, tmp_path)
            ours, theirs, more, noise = await published(m, "ours", "theirs", "more", "noise")
            (listed,) = [
                row
                for row in json.loads((await call(cli, "ls", "--json")).stdout)
                if row["profile"] == "note"
            ]
            assert listed["candidate"]["since"] is not None
            assert "note · candidate" in (await call(cli, "ls")).stdout

            async def compared() -> Any:
                found = json.loads((await call(cli, "diff-shadow", "note", "--json")).stdout)
                apart = [*found["only_active"], *found["only_candidate"]]
                return found if len(apart) == 2 else None

            found = await eventually(compared)
            assert [one["event"] for one in found["both"]] == [ours.id]
            (lost,) = found["only_active"]
            assert (lost["event"], lost["other"]["clause"]) == (theirs.id, "where")
            (gained,) = found["only_candidate"]
            assert (gained["event"], gained["other"]["clause"]) == (more.id, "on")
            text = (await call(cli, "diff-shadow", "note")).stdout
            assert "fired by both 1 · only active 1 · only candidate 1" in text
            assert f"+ {text.split('+ ')[1][:12]}  my.more  {more.id}" in text
            assert 'event.topic == "my.more" || event.payload.unit == "ours" is false' in text
            later = json.loads(
                (await call(cli, "diff-shadow", "note", "--since", "0s", "--json")).stdout
            )
            assert (later["both"], later["only_active"]) == ([], [])

            refused = await call(cli, "promote", "note", input="n\n")
            assert refused.exit_code == 1
            assert "fired by both 1" in refused.stdout
            promoted = await call(cli, "promote", "note", "--yes")
            assert promoted.exit_code == 0, promoted.stderr
            config = Path(paths.config_dir())
            head, tail = PROFILES.split("  note:")[0], "  other:" + PROFILES.split("  other:")[1]
            assert (config / "profiles.yaml").read_text() == (
                head + CANDIDATE_TEXT.partition("profiles:\n")[2] + tail
            )
            assert (config / "profiles.yaml.bak").read_text() == PROFILES
            await eventually(lambda: m.server.in_force("note").hash != before)
            assert "candidate" not in (await call(cli, "ls")).stdout
            await published(m, "more")
            done = len([run for run in await m.runs() if run.topic == "my.more"])
            assert done <= 1

            async def ran() -> bool:
                return any(run.topic == "my.more" for run in await m.runs())

            await eventually(ran)
            assert noise.id not in {run.event_id for run in await m.runs()}

    run(body())


def test_shadow_without_an_active_text(cli: Cli, nats_server: EmbeddedServer) -> None:
    """For a profile that is itself in shadow: what it would have fired; promoting enables it."""
    text = PROFILES.replace("on: service", "state: shadow\n    on: service")

    async def body() -> None:
        async with mesh(text) as m:
            one, _ = await published(m, "one", "noise")
            await decided(m, "profile")
            found = json.loads((await call(cli, "diff-shadow", "note", "--json")).stdout)
            assert found["compared"] is False
            assert [fired["event"] for fired in found["only_candidate"]] == [one.id]
            assert "would have fired 1 times" in (await call(cli, "diff-shadow", "note")).stdout
            assert (await call(cli, "promote", "note", "--yes")).exit_code == 0
            assert overrides.read() == {"note": "enabled"}

    run(body())


def test_a_new_profile_is_tried(cli: Cli, nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """A profile that is not in force yet can be tried, and gets a file of its own."""

    async def body() -> None:
        new = CANDIDATE_TEXT
        async with mesh(PROFILES.replace("note:", "another:")) as m:
            await tried(m, cli, new, tmp_path)
            (more,) = await published(m, "more")

            async def fired() -> Any:
                found = json.loads((await call(cli, "diff-shadow", "note", "--json")).stdout)
                return found["only_candidate"]

            (one,) = await eventually(fired)
            assert one["event"] == more.id
            assert (await call(cli, "promote", "note", "--yes", "--json")).exit_code == 0
            path = Path(paths.config_dir(), "profiles.d", "note.yaml")
            assert path.read_text() == new

    run(body())


def test_trial_is_ended(cli: Cli, tmp_path: Path) -> None:
    """--stop removes the candidate; what is not there is said."""
    write_profiles(PROFILES)
    file = tmp_path / "new.yaml"
    file.write_text(CANDIDATE_TEXT)
    assert cli("profile", "try", str(file), "--json").exit_code == 0
    assert cli("profile", "try", "--stop", "note").exit_code == 0
    assert cli("profile", "try", "--stop", "note").exit_code == 3
    assert cli("profile", "diff-shadow", "note").exit_code == 3
    assert cli("profile", "promote", "note", "--yes").exit_code == 3


def test_what_cannot_be_tried(cli: Cli, tmp_path: Path) -> None:
    """A broken file, one with two profiles, and one that changes nothing are refused."""
    write_profiles(PROFILES)
    file = tmp_path / "new.yaml"
    file.write_text(CANDIDATE_TEXT.replace("where:", "were:"))
    result = cli("profile", "try", str(file))
    assert (result.exit_code, "new.yaml:6:5" in result.stderr) == (1, True)
    file.write_text(PROFILES)
    assert "one profile" in cli("profile", "try", str(file)).stderr
    file.write_text(PROFILES.partition("  other:")[0])
    assert "nothing to try" in cli("profile", "try", str(file)).stderr
    assert cli("profile", "try", str(tmp_path / "none.yaml")).exit_code == 3
    assert cli("profile", "try").exit_code == 2
    assert not Path(paths.config_dir(), "candidates").exists()


def test_recorded_reason_is_shown(cli: Cli, nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Why a candidate did not fire is its decision on record, when more than the event decided."""
    text = PROFILES.partition("  other:")[0].replace(
        "where:", "throttle: {at_most: 1, per: 1h}\n    #"
    )

    async def body() -> None:
        async with mesh(PROFILES) as m:
            await tried(m, cli, text, tmp_path)
            first, second = await published(m, "one", "two")

            async def compared() -> Any:
                found = json.loads((await call(cli, "diff-shadow", "note", "--json")).stdout)
                return found if found["only_active"] else None

            found = await eventually(compared)
            assert [one["event"] for one in found["both"]] == [first.id]
            (lost,) = found["only_active"]
            assert lost["event"] == second.id
            assert (lost["other"]["outcome"], lost["other"]["clause"]) == ("throttled", "throttle")

    run(body())
