"""The sink as a process with a real broker: every stored event once, in order, whatever happens."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path

import pytest
from nats.aio.client import Client
from typer.testing import CliRunner, Result

from opsmesh.cli.evidence.commands import app as cli
from opsmesh.handlers.evidence import against, keys, sealing, seals, segments
from opsmesh.handlers.evidence.verify import verify
from opsmesh.router import paths, redaction
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.sink_consumer import name as sink_consumer
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import commitments, ids, openings, times
from opsmesh.schemas.envelope import decode
from tests.conftest import WHOLE, eventually, mesh_client, restart, run, start_server
from tests.evidence.made import event, parsed
from tests.evidence.sinks import (
    archived,
    ended,
    folder,
    log_file,
    publish,
    seqs,
    sink,
    stored,
    written,
)

#: A sink that may write no file beyond 10 kB: its disk is full.
ON_A_FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
from opsmesh.handlers.evidence.sink import main
sys.exit(main())
"""


def events() -> list[bytes]:
    """The archived messages, without those that tell of seals."""
    told = f'"topic":"{seals.TOPIC}"'.encode()
    return [one.data for one in parsed(folder()) if one.kind != "note" and told not in one.data]


def test_events_are_archived_and_sigterm_ends_it(nats_server: EmbeddedServer) -> None:
    """Events are on disk before they are acknowledged; SIGTERM is exit code 0."""

    async def body() -> None:
        async with mesh_client() as client:
            with sink() as process:
                await publish(client, *(event(n) for n in range(300)))
                await eventually(lambda: archived(client))
                assert seqs() == list(range(1, 301))
                assert [line.data for line in parsed(folder())] == [event(n) for n in range(300)]
                assert await ended(process, signal.SIGTERM) == 0

    run(body())
    assert verify(folder()).intact


def test_every_byte_is_kept(nats_server: EmbeddedServer) -> None:
    """Unknown fields, odd spacing, pretty-printed, invalid and binary messages come back exact."""
    messages = [
        b'{"topic":"a.b","not_ours":{"x": [1, 2.50, 1e3]},"z":"\\u00e9 \xc3\xa9"}',
        b'  { "topic" : "a.b" }\t',
        b'{\n  "topic": "a.b"\n}\n',
        b'{"broken":',
        bytes(range(256)),
        b"",
    ]

    async def body() -> None:
        async with mesh_client() as client:
            with sink() as process:
                await publish(client, *messages)
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)

    run(body())
    assert [line.data for line in parsed(folder())] == messages
    assert [line.kind for line in parsed(folder())] == ["event"] * 2 + ["base64"] * 4


def test_exactly_once_across_kill_9(nats_server: EmbeddedServer) -> None:
    """A sink that is killed in the middle of 5,000 events, twice, leaves each exactly once."""
    count = 5000

    async def body() -> None:
        async with mesh_client() as client:
            # small segments, so that there is a middle to be killed in
            env = {"OPSMESH_EVIDENCE__SEGMENT_BYTES": "100KiB"}
            for half in (range(count // 2), range(count // 2, count)):
                # each has something to write, though the one before may have been quick
                await publish(client, *(event(n) for n in half))
                before = written()
                with sink(**env) as process:
                    await eventually(lambda before=before: written() > before)
                    await ended(process, signal.SIGKILL)
            with sink(**env) as process:
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)

    run(body())
    assert events() == [event(n) for n in range(count)]
    assert verify(folder()).intact


def test_broker_restarts(nats_server: EmbeddedServer) -> None:
    """A broker that is killed and one that is stopped under the sink cost nothing."""

    async def body() -> None:
        async with mesh_client() as client:
            with sink() as process:
                await publish(client, *(event(n) for n in range(100)))
                await eventually(lambda: archived(client))
                for end in (nats_server.kill, nats_server.stop):
                    await restart(client, nats_server, end)
                    await publish(client, *(event(n) for n in range(100)))
                    await eventually(lambda: archived(client))
                assert await ended(process, signal.SIGTERM) == 0

    run(body())
    assert seqs() == list(range(1, 301))
    assert verify(folder()).intact


def test_deleted_consumer_is_made_anew(nats_server: EmbeddedServer) -> None:
    """Somebody who deletes the sink's consumer does not stop the evidence."""

    async def body() -> None:
        async with mesh_client() as client:
            with sink():
                await publish(client, event(1))
                await eventually(lambda: archived(client))
                await client.jetstream().delete_consumer(EVENTS, sink_consumer(Settings().host))
                await publish(client, event(2))
                await eventually(lambda: archived(client))

    run(body())
    assert seqs() == [1, 2]


def test_torn_line_is_fetched_again(nats_server: EmbeddedServer) -> None:
    """A line that a crash cut is cut off, kept aside, and written again from the stream."""

    async def body() -> None:
        async with mesh_client() as client:
            await publish(client, *(event(n) for n in range(10)))
            with sink() as process:
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGKILL)
            [segment] = segments.listing(folder())
            whole = segment.path.read_bytes()
            segment.path.write_bytes(whole[:-30])
            (folder() / segments.HEAD).unlink()  # the crash came before it was written

            async def whole_again() -> bool:  # everything was acknowledged before the crash
                return segment.path.read_bytes() == whole

            with sink() as process:
                await eventually(whole_again)
                await ended(process, signal.SIGTERM)
            assert segment.path.read_bytes() == whole
            assert len(list(segment.path.parent.glob("*.torn"))) == 1

    run(body())
    assert verify(folder()).intact


def test_messages_that_retention_removed_are_noted(nats_server: EmbeddedServer) -> None:
    """What the stream no longer had is a note with its sequences, and the rest follows."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            await publish(client, *(event(n) for n in range(10)))
            await eventually(lambda: stored(client, 10))
            await js.purge_stream(EVENTS, keep=4)
            await js.delete_msg(EVENTS, 8)
            with sink() as process:
                # the last two tell of what is missing
                await eventually(lambda: stored(client, 12))
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)

    run(body())
    assert seqs() == [7, 9, 10, 11, 12]
    assert [line.note for line in parsed(folder()) if line.kind == "note"] == [
        {"kind": "missing", "from": 1, "to": 6},
        {"kind": "missing", "from": 8, "to": 8},
    ]
    assert verify(folder()).intact


@pytest.mark.parametrize("count", [2, 5, 8], ids=["shorter", "equal", "longer"])
def test_stream_that_was_made_anew_is_noted(nats_server: EmbeddedServer, count: int) -> None:
    """Another stream of the same name is seen whatever its length, noted, and read from its
    beginning."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            config = (await js.stream_info(EVENTS)).config
            await publish(client, *(event(n) for n in range(5)))
            with sink() as process:
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)
            await js.delete_stream(EVENTS)
            await js.add_stream(config)
            await publish(client, *(event(n) for n in range(100, 100 + count)))
            await eventually(lambda: stored(client, count))
            with sink() as process:
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)

    run(body())
    assert seqs() == [*range(1, 6), *range(1, count + 1)]
    [note] = [line.note for line in parsed(folder()) if line.kind == "note"]
    assert note == {"kind": "regressed", "archived": 5, "stream_last": count}
    assert verify(folder()).intact


def test_rotation_under_the_sink(nats_server: EmbeddedServer) -> None:
    """Segments rotate while events arrive, and the chain goes through all of them."""

    async def body() -> None:
        async with mesh_client() as client:
            with sink(OPSMESH_EVIDENCE__SEGMENT_BYTES="2KiB"):
                await publish(client, *(event(n) for n in range(200)))
                await eventually(lambda: archived(client))

    run(body())
    assert events() == [event(n) for n in range(200)]
    report = verify(folder())
    assert report.intact
    assert report.segments > 10


async def announced(client: Client) -> list[str]:
    """The hashes of the seals that the stream tells of, in its order."""
    messages = scan(client, EVENTS, subjects=[f"evt.*.{seals.TOPIC}"])
    return [decode(msg.data).payload["seal_hash"] async for msg in messages]


async def settled(client: Client) -> bool:
    """Whether everything closed is sealed, the newest seal is announced, and all is archived."""
    newest = seals.newest(folder())
    if sealing.due(folder()) or newest is None:
        return False
    return (await announced(client))[-1:] == [newest.hash] and await archived(client)


def test_segments_are_sealed_and_announced_under_load(nats_server: EmbeddedServer) -> None:
    """While events arrive and segments rotate, each is sealed, the newest seal is announced once,
    and its event makes no other seal."""

    async def body() -> None:
        async with mesh_client() as client:
            with sink(OPSMESH_EVIDENCE__SEGMENT_BYTES="20KiB") as process:
                for _ in range(5):
                    await publish(client, *(event(n) for n in range(400)))
                await eventually(lambda: settled(client))
                seals_made = len(segments.sealed(folder()))
                await publish(client, event(1))  # more would have come by now if it went round
                await eventually(lambda: settled(client))
                # one more where the last file was full, and this event has ended it
                assert 10 < seals_made <= len(segments.sealed(folder())) <= seals_made + 1
                hashes = await announced(client)
                assert len(set(hashes)) == len(hashes)
                assert await ended(process, signal.SIGTERM) == 0
            report = verify(folder())
            await against.compare(client, folder(), report, key=None, host=Settings().host)
            assert (report.problems, report.compared) == ([], 2001 + len(hashes))

    run(body())
    assert Path(paths.keys_dir(), keys.PRIVATE).exists()


def test_sealing_survives_kill_9_of_the_sink(nats_server: EmbeddedServer) -> None:
    """A sink that is killed -9 again and again while it rotates leaves every event once, every
    closed segment sealed and each announced seal once."""

    async def body() -> None:
        async with mesh_client() as client:
            env = {"OPSMESH_EVIDENCE__SEGMENT_BYTES": "20KiB"}
            for round_ in range(4):
                before = written()
                with sink(**env) as process:
                    await publish(
                        client, *(event(n) for n in range(500 * round_, 500 * round_ + 500))
                    )
                    await eventually(lambda before=before: written() > before)
                    await ended(process, signal.SIGKILL)
            with sink(**env) as process:
                await eventually(lambda: settled(client))
                await ended(process, signal.SIGTERM)
            hashes = await announced(client)
            assert len(set(hashes)) == len(hashes)

    run(body())
    assert events() == [event(n) for n in range(2000)]
    assert verify(folder()).problems == []


def test_sink_never_carries_what_seals(nats_server: EmbeddedServer) -> None:
    """After it has rotated and sealed, the sink has neither the signatures' library nor zstd in
    its memory."""

    async def body() -> None:
        async with mesh_client() as client:
            with sink(OPSMESH_EVIDENCE__SEGMENT_BYTES="2KiB") as process:
                await publish(client, *(event(n) for n in range(100)))
                await eventually(lambda: settled(client))
                maps = Path(f"/proc/{process.pid}/maps").read_text()
                assert not re.search(r"cryptography|zstd", maps)

    run(body())


def test_what_the_sink_sealed_first_is_told(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`opsmesh evidence seal` names the file it asked for also where the sink's own process was
    faster."""
    mine = sealing.seal_closed

    def late(*folders: Path) -> sealing.Outcome:
        mine(*folders)  # stands in for the sink's process
        return mine(*folders)

    monkeypatch.setattr(sealing, "seal_closed", late)

    async def body() -> None:
        async with mesh_client() as client:
            with sink() as process:
                await publish(client, event(0))
                await eventually(lambda: archived(client))
                assert await ended(process, signal.SIGTERM) == 0

    run(body())
    told = CliRunner().invoke(cli, ["seal", "--json"])
    assert [row["segment"] for row in json.loads(told.stdout)["sealed"]] == [1]


def test_segment_is_sealed_on_demand(nats_server: EmbeddedServer) -> None:
    """`opsmesh evidence seal` has the running sink close its file and seals it; a second time there
    is nothing to seal."""

    def seal() -> Result:
        return CliRunner().invoke(cli, ["seal", "--json"])

    async def body() -> None:
        async with mesh_client() as client:
            with sink() as process:
                await publish(client, *(event(n) for n in range(20)))
                await eventually(lambda: archived(client))
                first = await asyncio.to_thread(seal)
                [row] = json.loads(first.stdout)["sealed"]
                assert (row["segment"], row["lines"]) == (1, 20)
                await eventually(lambda: settled(client))
                again = await asyncio.to_thread(seal)
                assert json.loads(again.stdout)["sealed"] == []
                assert "nothing was stored since the last seal" in again.stderr
                await publish(client, event(20))
                await eventually(lambda: archived(client))
                assert await ended(process, signal.SIGTERM) == 0
            second = await asyncio.to_thread(seal)  # no sink runs: under the archive's lock
            [row] = json.loads(second.stdout)["sealed"]
            assert (row["segment"], row["lines"]) == (2, 2)
            with sink() as process:
                await eventually(lambda: settled(client))
                await ended(process, signal.SIGTERM)
            assert len(await announced(client)) == 2

    run(body())
    assert events() == [event(n) for n in range(21)]
    assert verify(folder()).problems == []


def test_full_disk_stops_the_archive_and_nothing_else(nats_server: EmbeddedServer) -> None:
    """A disk that takes no more leaves whole lines; with room again everything follows."""

    async def body() -> None:
        async with mesh_client() as client:
            await publish(client, *(event(n) for n in range(100)))
            with sink("-c", ON_A_FULL_DISK) as process:
                await eventually(lambda: "evidence.not_written" in log_file().read_text())
                assert process.poll() is None
                assert await ended(process, signal.SIGTERM) == 0
            assert log_file().read_text().count("evidence.not_written") == 1
            with sink() as process:
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)

    run(body())
    assert seqs() == list(range(1, 101))
    assert verify(folder()).intact


def test_second_sink_ends_at_once(nats_server: EmbeddedServer) -> None:
    """A second sink says who writes already, and ends with code 1."""

    async def body() -> None:
        async with mesh_client() as client:
            with sink() as first:
                await publish(client, event(1))
                await eventually(lambda: archived(client))
                with sink() as second:
                    assert await asyncio.to_thread(second.wait, WHOLE) == 1
                assert f"is already running (pid {first.pid})" in log_file().read_text()

    run(body())


def test_sink_waits_for_broker_and_stream(home: Path) -> None:
    """Started before there is a broker, and before there is a stream, it waits for both; while it
    waits, SIGTERM is still exit code 0."""
    Path(paths.state_dir()).mkdir(parents=True)

    async def body() -> None:
        with sink() as process:
            await eventually(lambda: "evidence.no_broker" in log_file().read_text())
            assert await ended(process, signal.SIGTERM) == 0
        with sink() as process:
            running = await asyncio.to_thread(start_server)
            try:
                await eventually(lambda: "evidence.no_stream" in log_file().read_text())
                async with mesh_client() as client:
                    await publish(client, event(1))
                    await eventually(lambda: archived(client))
                assert await ended(process, signal.SIGTERM) == 0
            finally:
                running.stop()

    run(body())
    assert seqs() == [1]


def test_secret_of_a_foreign_client_is_not_archived(nats_server: EmbeddedServer) -> None:
    """What a client published straight to the broker loses its secret at the sink, a restart takes
    it for no other stream, and the archive verifies."""
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    foreign = b'{"topic":"a.b","n":1.50,"payload":{"said":"push with %s"}}'
    no_event = b"\xff password=%s\x00"

    async def body() -> None:
        async with mesh_client() as client:
            messages = [event(1), foreign % token.encode(), no_event % token.encode()]
            with sink() as process:
                await publish(client, *messages)
                await eventually(lambda: archived(client))
                assert await ended(process, signal.SIGTERM) == 0
            with sink() as process:
                await publish(client, event(4))
                await eventually(lambda: archived(client))
                assert await ended(process, signal.SIGTERM) == 0

    run(body())
    lines = parsed(folder())
    assert [line.kind for line in lines] == ["event", "event", "base64", "event"]
    assert lines[0].data == event(1)
    mark = rb"\[redacted:github_token:[\w-]{22}\]"
    assert re.fullmatch(re.escape(foreign).replace(b"%s", mark), lines[1].data)
    assert re.fullmatch(rb"\xff password=\[redacted:[a-z_]+:[\w-]{22}\]\x00", lines[2].data)
    assert verify(folder()).intact
    # Without an id of its own it has the one that every reader derives, and opens under it.
    event_id = ids.derived(times.parse_us(lines[1].time) // 1000, EVENTS, "2")
    key = redaction.key(redaction.key_file())
    (one,) = openings.of(json.loads(lines[1].data), key, context=event_id)
    assert commitments.opens(one.commitment, commitments.from_text(one.salt), token)
