"""The sink with a real broker that forgets ids after a second: what is stored twice is one line."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from collections.abc import Callable

import pytest
from nats.aio.client import Client

from opsmesh.handlers.evidence import reader, segments
from opsmesh.handlers.evidence.lines import Line
from opsmesh.handlers.evidence.verify import verify
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Events, Settings
from opsmesh.schemas import ids, times
from tests.conftest import eventually, mesh_client, run
from tests.evidence.made import parsed
from tests.evidence.sinks import archived, ended, folder, log_file, sink

#: The shortest window that still drops a second copy which follows at once.
ENV = {"OPSMESH_EVENTS__DUPLICATE_WINDOW": "1s"}
HOUR = 3_600_000

pytestmark = pytest.mark.usefixtures("nats_server")


def forgetful() -> Settings:
    return Settings(events=Events.model_validate({"duplicate_window": "1s"}))


def event(id: str, text: str = "") -> bytes:
    return b'{"topic":"a.b","text":"%s","id":"%s"}' % (text.encode(), id.encode())


async def store(client: Client, id: str, text: str = "") -> int:
    """Store an event that may be there already, as soon as the broker has forgotten that."""
    js = client.jetstream()
    found = []

    async def stored() -> bool:
        ack = await js.publish("evt.h.a.b", event(id, text), headers={"Nats-Msg-Id": id})
        found.append(ack.seq)
        return not ack.duplicate

    await eventually(stored)
    return found[-1]


async def others(client: Client, count: int, text: str = "") -> None:
    for _ in range(count):
        await store(client, ids.uuid7(), text)


def notes(kind: str) -> list[Line]:
    return [line for line in parsed(folder()) if line.note.get("kind") == kind]


def lines_of(id: str) -> list[int]:
    """The sequences of the lines that hold the event."""
    return [
        line.seq
        for line in parsed(folder())
        if line.kind != "note" and b'"id":"%s"' % id.encode() in line.data
    ]


#: What makes an id: one that was made just now, an hour ago, an hour ahead, and one of a stranger.
KINDS = {
    "now": lambda: ids.uuid7(),
    "behind": lambda: ids.uuid7(times.now_us() // 1000 - HOUR),
    "ahead": lambda: ids.uuid7(times.now_us() // 1000 + HOUR),
    "foreign": lambda: "build-42",
}


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            make, id=name, marks=[pytest.mark.slow] if name in ("behind", "foreign") else []
        )
        for name, make in KINDS.items()
    ],
)
def test_event_that_is_stored_twice_is_one_line(make: Callable[[], str]) -> None:
    """Whatever its clock said, the second copy is a note that names the first, and the chain holds
    for both."""
    id = make()

    async def body() -> None:
        async with mesh_client(forgetful()) as client:
            with sink(**ENV) as process:
                first = await store(client, id)
                await others(client, 3)
                await eventually(lambda: archived(client))
                second = await store(client, id)
                await others(client, 1)
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)
            assert lines_of(id) == [first]
            [note] = notes("duplicate")
            [line] = [line for line in parsed(folder()) if line.seq == first]
            assert note.seq == second
            assert note.note == {
                "kind": "duplicate",
                "of": first,
                "of_hash": line.hash,
                "id": id,
                "sha256": hashlib.sha256(event(id)).hexdigest(),
            }
            assert [item.seq for item in reader.read(folder())] == [1, 2, 3, 4, 6]

    run(body())
    report = verify(folder())
    assert (report.intact, report.lines, report.first_seq, report.last_seq) == (True, 6, 1, 6)


def test_sink_that_was_killed_knows_what_it_archived() -> None:
    """The second copy comes to a new process, after a kill -9."""
    id = ids.uuid7()

    async def body() -> None:
        async with mesh_client(forgetful()) as client:
            with sink(**ENV) as process:
                await store(client, id)
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGKILL)
            with sink(**ENV) as process:
                await store(client, id)
                await others(client, 1)
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)

    run(body())
    assert lines_of(id) == [1]
    assert [note.seq for note in notes("duplicate")] == [2]
    assert verify(folder()).intact


@pytest.mark.parametrize("index", [True, False], ids=["with-index", "without-index"])
def test_first_copy_in_a_sealed_segment(index: bool) -> None:
    """The first copy lies many segments back, sealed and compressed; the indexes may be gone."""
    id = ids.uuid7()
    seconds = []

    async def body() -> None:
        async with mesh_client(forgetful()) as client:
            env = {**ENV, "OPSMESH_EVIDENCE__SEGMENT_BYTES": "2KiB"}
            with sink(**env) as process:
                await store(client, id)
                await others(client, 20, "x" * 200)
                await eventually(lambda: len(segments.listing(folder())) > 4)
                await eventually(lambda: segments.listing(folder())[0].compressed.exists())
                await eventually(lambda: not segments.listing(folder())[0].path.exists())
                if not index:
                    for path in folder().rglob("*.ids"):
                        path.unlink()
                seconds.append(await store(client, id))

                def noted() -> list[Line]:
                    # while the sink is at work the last line may be half of one
                    with contextlib.suppress(AssertionError, FileNotFoundError):
                        return notes("duplicate")
                    return []

                await eventually(noted)
                await ended(process, signal.SIGTERM)
            assert list(folder().rglob("*.ids"))

    run(body())
    assert lines_of(id) == [1]
    assert [note.seq for note in notes("duplicate")] == seconds
    assert verify(folder()).intact


def test_both_copies_in_one_batch() -> None:
    """A sink that catches up finds both copies in what it writes at once."""
    id = ids.uuid7()

    async def body() -> None:
        async with mesh_client(forgetful()) as client:
            await store(client, id)
            await others(client, 2)
            await store(client, id)
            await others(client, 1)
            with sink(**ENV) as process:
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)

    run(body())
    assert lines_of(id) == [1]
    [note] = notes("duplicate")
    [line] = [line for line in parsed(folder()) if line.seq == 1]
    assert (note.seq, note.note["of_hash"]) == (4, line.hash)
    assert verify(folder()).intact


def test_another_event_under_the_same_id_is_kept() -> None:
    """What differs is no duplicate: it is a line of its own, and a note and the log say so."""
    id = ids.uuid7()

    async def body() -> None:
        async with mesh_client(forgetful()) as client:
            with sink(**ENV) as process:
                await store(client, id, "one")
                await eventually(lambda: archived(client))
                await store(client, id, "another")
                await others(client, 1)
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)

    run(body())
    assert lines_of(id) == [1, 2]
    [note] = notes("id_reused")
    assert (note.seq, note.note["of"], note.note["id"]) == (2, 1, id)
    assert notes("duplicate") == []
    assert "evidence.id_reused" in log_file().read_text()
    assert verify(folder()).intact


def test_stream_that_was_restored_is_not_archived_twice(nats_server: EmbeddedServer) -> None:
    """A stream that went back brings events that the archive has: notes, no second lines."""
    names = [ids.uuid7() for _ in range(4)]

    async def body() -> None:
        async with mesh_client(forgetful()) as client:
            js = client.jetstream()
            config = (await js.stream_info("EVENTS")).config
            with sink(**ENV) as process:
                for id in names:
                    await store(client, id)
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)
            await js.delete_stream("EVENTS")
            await js.add_stream(config)
            for id in names[:2]:
                await store(client, id)
            with sink(**ENV) as process:
                await others(client, 1)
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)

    run(body())
    assert [lines_of(id) for id in names] == [[1], [2], [3], [4]]
    assert [note.note["of"] for note in notes("duplicate")] == [1, 2]
    assert verify(folder()).intact
