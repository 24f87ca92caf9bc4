"""State of another form is left alone, and `opsmesh upgrade` brings an older one here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.client import Client

from opsmesh.handlers.care import upgrade
from opsmesh.handlers.care.backup import kept
from opsmesh.handlers.care.file import Reader
from opsmesh.router import agent, connection, migrations, paths, state_format, topology
from opsmesh.router.errors import NeedsUpgrade, StateTooNew
from opsmesh.router.migrations import Migration
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from tests.cli.conftest import Cli, cli
from tests.conftest import mesh_client, run

__all__ = ["cli"]


async def marked(client: Client, metadata: dict[str, str]) -> None:
    """Give EVENTS these marks, as another version would."""
    js = client.jetstream()
    config = (await js.stream_info(topology.EVENTS)).config
    await js.update_stream(replace(config, metadata=metadata, description="another version's"))


async def ensured(client: Client) -> None:
    """What the agent does when it finds a broker."""
    known = topology.Known(Path(paths.state_dir(), "known.json"))
    await topology.ensure(client.jetstream(), Settings(), known)


@pytest.fixture
def form_2(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A version of opsmesh that wants form 2; what its one step did, and whether it is cut off."""
    done: list[str] = []

    async def broker(client: Client, settings: Settings) -> None:
        done.append("broker")
        if "cut" in done:
            done.remove("cut")
            raise KeyboardInterrupt

    step = Migration(
        to=2, what="a step", broker=broker, folders=lambda settings: done.append("folders")
    )
    monkeypatch.setattr(migrations, "MIGRATIONS", (step,))
    monkeypatch.setattr(state_format, "FORMAT", 2)
    return done


def test_newer_streams_are_left_alone(nats_server: EmbeddedServer, cli: Cli) -> None:
    """Streams of a newer form are refused with the version that wrote them, and not changed."""

    async def body() -> None:
        async with mesh_client() as client:
            await marked(client, {state_format.KEY: "9", state_format.BY: "9.1.0"})
            with pytest.raises(StateTooNew, match=r"opsmesh 9\.1\.0, in form 9"):
                await ensured(client)
            config = (await client.jetstream().stream_info(topology.EVENTS)).config
            assert config.description == "another version's"

    run(body())
    done = cli("tail", "--since", "1m", "--no-follow")
    assert (done.exit_code, "install opsmesh 9.1.0 again" in done.stderr) == (1, True)


def test_newer_folders_are_left_alone(home: Path, cli: Cli) -> None:
    """Folders of a newer form keep agent and `up` from starting."""
    state_format.mark_local(9)
    before = sorted(Path(paths.state_dir()).rglob("*"))
    assert agent.main() == 1
    done = cli("up", "--detach")
    assert (done.exit_code, "form 9" in done.stderr) == (1, True)
    assert sorted(Path(paths.state_dir()).rglob("*")) == before


def test_nothing_pends_on_what_0_1_0_wrote(nats_server: EmbeddedServer, cli: Cli) -> None:
    """State without marks is of the first form, and `--check` has nothing to do on it."""

    async def body() -> None:
        async with mesh_client() as client:
            await marked(client, {})
            config = (await client.jetstream().stream_info(topology.EVENTS)).config
            assert state_format.KEY not in (config.metadata or {})

    run(body())
    done = cli("upgrade", "--check", "--json")
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert (plan["pending"], plan["broker"]["format"]) == (False, 1)
    assert [one["setting"] for one in plan["changes"]] == ["description"]


def test_upgrade_is_resumed(nats_server: EmbeddedServer, cli: Cli, form_2: list[str]) -> None:
    """A step that was cut off is taken again, after a backup; done, everything is of the new form,
    and nobody works on it before."""

    async def body() -> None:
        settings = Settings()
        where = connection.endpoint(settings, role="admin")
        client = await connection.connect(where, name="test")
        with pytest.MonkeyPatch.context() as older:
            older.setattr(state_format, "FORMAT", 1)
            await ensured(client)
        with pytest.raises(NeedsUpgrade):
            await ensured(client)
        form_2.append("cut")
        with pytest.raises(KeyboardInterrupt):
            await migrations.apply(client, settings)
        assert (await upgrade.look(client, settings)).pending
        await client.close()

    run(body())
    assert cli("upgrade", "--check").exit_code == 1
    done = cli("upgrade")
    assert done.exit_code == 0, done.output
    assert form_2 == ["broker", "broker", "folders"]
    with Reader(kept()[0]) as reader:
        assert (reader.manifest.state_format, reader.problems()) == (1, [])
    assert cli("upgrade", "--check").exit_code == 0
    assert cli("upgrade").exit_code == 0
    assert form_2 == ["broker", "broker", "folders"]

    async def after() -> None:
        async with mesh_client() as client:
            for wanted in topology.streams(Settings()):
                config = (await client.jetstream().stream_info(wanted.name or "")).config
                assert state_format.of(config.metadata).format == 2

    run(after())
