"""`opsmesh gc` shows what nobody needs, and takes exactly that when told."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig, StreamSource, SubjectTransform
from nats.js.errors import NotFoundError

from opsmesh.handlers.bundles.store import Store
from opsmesh.handlers.care import backup, gc
from opsmesh.handlers.live import versions
from opsmesh.handlers.live.position import Cursor, Positions
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.router import component, paths
from opsmesh.router.settings import Settings
from opsmesh.router.topology import BUNDLES, BUNDLES_STREAM, VERSIONS
from opsmesh.schemas import times
from tests.cli.conftest import Cli, cli
from tests.conftest import eventually, mesh_client, run
from tests.handlers.mesh import mesh

__all__ = ["cli"]

DAY = 86400.0


def file(path: Path, *, age_s: float = 0, size: int = 10) -> Path:
    """A file that was last written so long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def found(cli: Cli, *arguments: str) -> list[dict[str, Any]]:
    """What `opsmesh gc --json` says."""
    answer = cli("gc", "--json", *arguments)
    assert answer.exit_code == 0, answer.stderr
    listed: list[dict[str, Any]] = json.loads(answer.stdout)
    return listed


def test_backups_beyond_the_newest_go(home: Path, cli: Cli) -> None:
    """The newest --keep backups stay, and one that was broken off a day ago goes; a preview removes
    nothing."""
    folder = backup.folder()
    made = [file(folder / f"b{n}{backup.SUFFIX}", age_s=(9 - n) * DAY) for n in range(4)]
    broken = file(folder / f".b9{backup.SUFFIX}.partial", age_s=2 * DAY)
    young = file(folder / f".b8{backup.SUFFIX}.partial")
    listed = found(cli, "backups", "--keep", "2")
    assert [one["name"] for one in listed] == [*map(str, made[:2]), str(broken)]
    assert [one["bytes"] for one in listed] == [10, 10, 10]
    assert all(path.exists() for path in (*made, broken))
    assert all(one["removed"] for one in found(cli, "backups", "--keep", "2", "--yes"))
    assert sorted(folder.iterdir()) == sorted([*made[2:], young])


def test_logs_of_components_that_are_gone_go(home: Path, cli: Cli) -> None:
    """A log goes when nothing has been written to it for a month."""
    old = file(component.logs_dir() / "producer-former.log", age_s=40 * DAY)
    young = file(component.logs_dir() / "agent.log", age_s=20 * DAY)
    assert [one["name"] for one in found(cli, "logs", "--yes")] == [str(old)]
    assert young.exists()
    assert not old.exists()


def test_what_a_restore_set_aside_goes_only_by_its_name(home: Path, cli: Cli) -> None:
    """Evidence of before a restore is not found unless it is asked for."""
    aside = file(Path(paths.state_dir(), "replaced-20261127T090000", "evidence", "1.jsonl"))
    everything = run(gc.find(Settings(), None, kinds=[]))
    assert everything == []
    [one] = found(cli, "replaced", "--yes")
    assert one["bytes"] == 10
    assert not aside.parent.parent.exists()


def test_bundles_beyond_the_settings_go(home: Path, cli: Cli) -> None:
    """A bundle goes that is older than bundles.keep, with its whole folder; a younger one stays."""
    bundles = Path(paths.bundles_dir())
    old, young = bundles / "2026-07-01" / "run-1-look", bundles / "2026-11-27" / "run-2-look"
    for folder, age_s in ((old, 120 * DAY), (young, 0.0)):
        file(folder / "manifest.json", age_s=age_s)
        os.utime(folder, (time.time() - age_s,) * 2)
    [one] = found(cli, "bundles", "--yes")
    assert (one["name"], one["bytes"], one["why"]) == (str(old), 10, "older than bundles.keep")
    assert not old.exists()
    assert young.exists()


def test_where_no_mesh_ever_was_nothing_is_made(home: Path, cli: Cli) -> None:
    """On a machine without a mesh nothing is found, and no broker is set up to find it."""
    assert found(cli) == []
    assert not Path(paths.state_dir()).exists()


def test_wrong_kind_is_a_wrong_call(home: Path, cli: Cli) -> None:
    """A kind that there is none of is exit code 2, with those that there are."""
    answer = cli("gc", "evidence")
    assert answer.exit_code == 2
    assert "one of chunks, consumers" in answer.stderr


@pytest.mark.usefixtures("nats_server")
def test_parts_of_an_upload_that_was_broken_off_go() -> None:
    """Parts without an object go once they are old; those of a bundle that is there stay."""

    async def body() -> None:
        async with mesh_client() as client:
            js, store = client.jetstream(), Store(client)
            for nuid in ("used", "left"):
                for _ in range(2):
                    await js.publish(f"$O.{BUNDLES}.C.{nuid}", b"x" * 100)
            await js.publish(f"$O.{BUNDLES}.M.aa", b'{"name": "strange", "nuid": "used"}')
            now_us = times.now_us()
            assert await store.orphans(before_us=now_us - 60_000_000) == []
            [left] = await store.orphans(before_us=now_us + 60_000_000)
            assert (left.nuid, left.size) == ("left", 200)
            await js.publish(f"$O.{BUNDLES}.C.left", b"begun again")
            await store.drop(left)
            counts = (await js.stream_info(BUNDLES_STREAM, "$O.>")).state.subjects
            assert counts == {
                f"$O.{BUNDLES}.C.used": 2,
                f"$O.{BUNDLES}.C.left": 1,
                f"$O.{BUNDLES}.M.aa": 1,
            }

    run(body())


PROFILES = """
profiles:
  stays:
    on: [a.b]
    actions: [emit: {topic: my.answer}]
  goes:
    on: [a.b]
    actions: [emit: {topic: my.answer}]
"""


async def _from_a_leaf(client: Client, former: str, name: str) -> None:
    """Have VERSIONS source, as a hub does, the removal of `former`, made that of `name`."""
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="LEAF", subjects=["leaf.>"]))
    removal = (await js.get_last_msg(VERSIONS, f"ver.{former}")).data or b""
    await js.publish(f"leaf.{name}", removal.replace(former.encode(), name.encode()))
    config = (await js.stream_info(VERSIONS)).config
    moved = [SubjectTransform(src="leaf.>", dest="ver.>")]
    sources = [StreamSource(name="LEAF", subject_transforms=moved)]
    await js.update_stream(replace(config, sources=sources))

    async def there() -> bool:
        try:
            await js.get_last_msg(VERSIONS, f"ver.{name}")
        except NotFoundError:
            return False
        return True

    await eventually(there)


@pytest.mark.usefixtures("nats_server")
def test_positions_of_removed_profiles_go() -> None:
    """A position goes whose profile was removed; one of a profile in force stays, and so does one
    that came back after it was found, one that is decided for since, and one that a leaf removed
    at its own broker."""

    async def body() -> None:
        async with mesh(PROFILES) as here:
            host = here.settings.host
            positions = Positions(here.client)
            profiles = {name: here.server.in_force(name) for name in ("stays", "goes")}
            cursor = Cursor(seq=1, owner="", count=1, at_us=times.now_us())
            for name in ("former", "back"):
                await positions.write(name, cursor, 0)
                await versions.removed(here.client, profiles["goes"], consumer=name, host=host)
            later = Cursor(seq=2, owner="", count=1, at_us=times.now_us() + 3_600_000_000)
            await positions.write("elsewhere", later, 0)
            await versions.removed(here.client, profiles["goes"], consumer="elsewhere", host=host)
            await positions.write("leafs", cursor, 0)
            await _from_a_leaf(here.client, "former", "leafs")
            items = await gc.find(here.settings, here.client, kinds=["consumers"])
            assert [item.name for item in items] == ["former", "back"]
            await versions.write(
                here.client, profiles["goes"], consumer="back", host=host, from_seq=1
            )
            await gc.remove(items)
            assert (await positions.cursor("former"))[0] is None
            assert (await positions.cursor("back"))[0] is not None

    run(body())


@pytest.mark.usefixtures("nats_server")
def test_folders_of_ended_runs_go() -> None:
    """A day-old folder goes whose run has ended or is unknown; one of a run under way stays."""

    async def body() -> None:
        waits = PROFILES.replace("emit: {topic: my.answer}", "wait: never.comes", 1)
        async with mesh(waits) as here:
            await here.publish("a.b")

            async def states() -> dict[str, str]:
                runs = [one async for one in Ledger(here.client).runs()]
                return {run.run_id: run.state for run in runs if run.profile == "stays"}

            under_way = next(iter(await eventually(states)))
            work = Path(paths.state_dir(), "work")
            for run_id, age_s in ((under_way, 2 * DAY), ("unknown", 2 * DAY), ("young", 0)):
                file(work / run_id / "file", age_s=age_s)
                os.utime(work / run_id, (time.time() - age_s,) * 2)
            items = await gc.find(here.settings, here.client, kinds=["work"])
            assert [Path(item.name).name for item in items] == ["unknown"]
            await gc.remove(items)
            assert sorted(path.name for path in work.glob("[!.]*")) == sorted([under_way, "young"])

    run(body())
