"""`opsmesh backup` and `opsmesh restore`, with a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from opsmesh.handlers import serve
from opsmesh.handlers.care import backup as backups
from opsmesh.handlers.care import restore
from opsmesh.handlers.care.file import BadBackup, Manifest, Reader, Writer
from opsmesh.handlers.evidence import sink
from opsmesh.handlers.live.position import Cursor, Positions
from opsmesh.router import agent, paths, server, state_format, topology
from opsmesh.router.errors import RestoreUnfinished
from opsmesh.router.kv import Bucket
from opsmesh.router.publish import Publisher
from opsmesh.router.settings import Settings
from tests.cli.conftest import Cli, cli
from tests.conftest import PATIENCE, eventually, mesh_client, private_folders, run, start_server

__all__ = ["cli"]


async def publish(client: Client, first: int, count: int) -> None:
    """Events `first` and on."""
    publisher = Publisher(client)
    for n in range(first, first + count):
        await publisher.publish("evt.h.a.b", b'{"n": %d}' % n, msg_id=f"m{n}")


def with_broker(body: Callable[[Client], object]) -> None:
    """The body beside a broker that runs for it alone."""
    running = start_server()

    async def session() -> None:
        async with mesh_client() as client:
            await body(client)  # type: ignore[misc]

    try:
        run(session())
    finally:
        running.stop()


async def bodies(client: Client) -> list[bytes]:
    """What EVENTS holds, by sequence."""
    js = client.jetstream()
    state = (await js.stream_info(topology.EVENTS)).state
    found = range(state.first_seq, state.last_seq + 1)
    return [(await js.get_msg(topology.EVENTS, seq)).data or b"" for seq in found]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A backup of 20 events, of which a consumer had 5, made on another machine."""
    home = tmp_path_factory.mktemp("made")
    path = home / "one"

    async def before(client: Client) -> None:
        await publish(client, 0, 20)
        js = client.jetstream()
        config = ConsumerConfig(durable_name="reader", ack_policy=AckPolicy.EXPLICIT)
        await js.add_consumer(topology.EVENTS, config=config)
        reading = await js.pull_subscribe_bind("reader", stream=topology.EVENTS)
        for message in await reading.fetch(5, timeout=PATIENCE):
            await message.ack_sync()
        ledger = Bucket(client, topology.RUNS)
        revision = 0
        for n in range(9):
            revision = await ledger.put("p.e", b"%d" % n, revision=revision)
        await ledger.put("p.f", b"{}", ttl_s=3600)
        assert await backups.make(client, Settings(), path)

    with pytest.MonkeyPatch.context() as env:
        private_folders(home, env)
        evidence = Path(paths.evidence_dir(), "2026", "11")
        evidence.mkdir(parents=True)
        (evidence / "27-000001-EVENTS-000000000001.jsonl").write_text("a line\n")
        Path(paths.config_dir()).mkdir()
        Path(paths.config_dir(), "profiles.yaml").write_text("version: 1\nprofiles: {}\n")
        Path(paths.keys_dir()).mkdir()
        Path(paths.keys_dir(), "evidence.key").write_text("secret")
        with_broker(before)
    assert path.stat().st_mode & 0o777 == 0o600
    return path.read_bytes()


@pytest.fixture
def backed_up(home: Path, made: bytes) -> Path:
    """That backup, beside a machine that has nothing yet."""
    path = home / "one.opsmesh-backup"
    path.write_bytes(made)
    return path


def test_back_as_it_was(cli: Cli, backed_up: Path) -> None:
    """A restore gives the events under their sequences, the consumer's place, the ledger and the
    archive, and the broker knows the ids of what came back."""
    done = cli("restore", str(backed_up), "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["streams"]["EVENTS"] == {"messages": 20, "last_seq": 20}

    async def after(client: Client) -> None:
        assert await bodies(client) == [b'{"n": %d}' % n for n in range(20)]
        info = await client.jetstream().consumer_info(topology.EVENTS, "reader")
        assert (info.ack_floor and info.ack_floor.stream_seq, info.num_pending) == (5, 15)
        ledger = Bucket(client, topology.RUNS)
        entries = [await ledger.get(key) for key in ("p.e", "p.f")]
        assert [(e.value, e.revision) for e in entries if e] == [(b"8", 9), (b"{}", 10)]
        ack = await Publisher(client).publish("evt.h.a.b", b"again", msg_id="m19")
        assert (ack.seq, ack.duplicate) == (20, True)

    with_broker(after)
    found = list(Path(paths.evidence_dir()).rglob("*.jsonl"))
    assert [path.read_text() for path in found] == ["a line\n"]
    assert topology.Known(Path(paths.state_dir(), "known.json")).last_seq(topology.EVENTS) == 20


def test_never_over_a_mesh(cli: Cli, backed_up: Path) -> None:
    """What is here is refused without --replace, and with a broker that runs; with --replace it is
    kept aside."""

    async def before(client: Client) -> None:
        await publish(client, 100, 3)
        done = await asyncio.to_thread(cli, "restore", "--replace", str(backed_up))
        assert (done.exit_code, "opsmesh down" in done.stderr) == (1, True)

    with_broker(before)
    done = cli("restore", str(backed_up))
    assert (done.exit_code, "--replace" in done.stderr) == (1, True)
    done = cli("restore", "--replace", str(backed_up), "--json")
    assert done.exit_code == 0, done.output
    assert Path(json.loads(done.stdout)["replaced"], "jetstream", "jetstream").is_dir()

    async def after(client: Client) -> None:
        assert len(await bodies(client)) == 20

    with_broker(after)


def test_another_server_is_backed_up_first(
    cli: Cli, backed_up: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams of a server of one's own are not removed without --replace, and with it they are in a
    backup before."""

    async def before(client: Client) -> None:
        own = server.known(Path(paths.state_dir()))
        assert own is not None
        monkeypatch.setenv("OPSMESH_NATS__URL", own.url)
        monkeypatch.setenv("OPSMESH_NATS__CREDENTIALS", str(own.credentials("admin")))
        await publish(client, 100, 3)
        done = await asyncio.to_thread(cli, "restore", str(backed_up))
        assert (done.exit_code, "stream EVENTS up to sequence 3" in done.stderr) == (1, True)
        assert len(await bodies(client)) == 3
        done = await asyncio.to_thread(cli, "restore", "--replace", str(backed_up))
        assert done.exit_code == 0, done.output
        assert len(await bodies(client)) == 20

    with_broker(before)
    [first] = backups.kept()
    with Reader(first) as reader:
        assert [one.last_seq for one in reader.manifest.streams if one.name == "EVENTS"] == [3]
        assert reader.problems() == []


def test_damage_is_found(cli: Cli, backed_up: Path) -> None:
    """One changed byte is named by `--verify`, and a restore of it touches nothing."""
    data = bytearray(backed_up.read_bytes())
    data[data.index(b"a line\n")] ^= 1
    backed_up.write_bytes(data)
    found = cli("backup", "--verify", str(backed_up))
    assert found.exit_code == 1
    assert "27-000001-EVENTS-000000000001.jsonl is not what was written" in found.stdout
    assert cli("restore", str(backed_up)).exit_code == 1
    assert not Path(paths.evidence_dir()).exists()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.9999])
def test_cut(backed_up: Path, part: float) -> None:
    """A backup that was cut anywhere is no backup."""
    data = backed_up.read_bytes()
    backed_up.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(BadBackup):
        Reader(backed_up)


def test_unfinished_leaves_nothing(tmp_path: Path) -> None:
    """A backup that fails in the middle leaves no file, under no name."""
    path = tmp_path / "b"
    source = tmp_path / "a"
    source.write_bytes(b"x")

    def fail() -> None:
        with Writer(path) as writer:
            writer.add("evidence/a", source)
            writer.add("evidence/b", tmp_path)  # a folder

    with pytest.raises(IsADirectoryError):
        fail()
    source.unlink()
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that make a backup under one name do not write into each other's."""
    path, source = tmp_path / "b", tmp_path / "a"
    source.write_bytes(b"x" * 100_000)
    monkeypatch.setattr("os.getpid", lambda: 1)
    first = Writer(path)
    monkeypatch.setattr("os.getpid", lambda: 2)
    with Writer(path) as second, first:
        for writer in (first, second):
            writer.add("evidence/a", source)
        first.finish(manifest(first))
        second.add("evidence/b", source)
        assert Reader(path).problems() == []
        second.finish(manifest(second))
    assert len(Reader(path).manifest.members) == 2


def manifest(writer: Writer) -> Manifest:
    """What a backup of these files says of itself."""
    return Manifest(
        opsmesh="0",
        state_format=1,
        host="h",
        made_utc="",
        keys=False,
        streams=(),
        members=writer.members,
    )


@pytest.mark.parametrize("where", ["usb/", "usb/first"])
def test_no_file_takes_the_place_of_a_folder(cli: Cli, tmp_path: Path, where: str) -> None:
    """A folder that is not there, as of a disk that is not mounted, is an error."""
    done = cli("backup", f"{tmp_path}/{where}")
    assert done.exit_code == 3
    assert f"there is no folder {tmp_path}/usb" in done.stderr
    assert not (tmp_path / "usb").exists()


def test_interrupted_restore_is_said(cli: Cli, backed_up: Path) -> None:
    """After a restore that was cut off nothing starts, and a second one brings all of it."""
    restore.begin(backed_up)  # and killed here
    assert isinstance(state_format.hindrance(), RestoreUnfinished)
    assert "opsmesh restore --replace" in cli("up", "--detach").stderr
    assert agent.main() == serve.main([]) == sink.main() == 1
    assert cli("restore", "--replace", str(backed_up)).exit_code == 0
    assert state_format.hindrance() is None


def test_without_keys(backed_up: Path) -> None:
    """A backup holds no key unless it is asked for."""
    with Reader(backed_up) as reader:
        names = [member.name for member in reader.manifest.members]
    assert "config/profiles.yaml" in names
    assert not [name for name in names if name.endswith(".key")]


def test_cursor_is_never_ahead(cli: Cli, tmp_path: Path) -> None:
    """Taken while events come, a backup has no profile's cursor beyond the events that it has."""
    path = tmp_path / "busy"

    async def body(client: Client) -> None:
        publisher = Publisher(client)
        positions, revision, n = Positions(client), 0, 0

        async def busy() -> None:
            nonlocal revision, n
            while True:
                n += 1
                ack = await publisher.publish("evt.h.a.b", b"{}", msg_id=f"b{n}")
                cursor = Cursor(seq=ack.seq, owner="o", count=n, at_us=0)
                revision = await positions.write("profile-p", cursor, revision, {})

        task = asyncio.create_task(busy())
        await eventually(lambda: n >= 50)
        await backups.make(client, Settings(), path)
        task.cancel()

    with_broker(body)
    done = cli("restore", "--replace", str(path))
    assert done.exit_code == 0, done.output

    async def after(client: Client) -> None:
        cursor, _ = await Positions(client).cursor("profile-p")
        last = (await client.jetstream().stream_info(topology.EVENTS)).state.last_seq
        assert cursor is not None
        assert 50 <= cursor.seq <= last

    with_broker(after)
