"""The archive against the stream: what an archive that was written anew cannot change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client

from opsmesh.handlers.evidence import (
    against,
    announce,
    ed25519,
    keys,
    lines,
    seals,
    segments,
)
from opsmesh.handlers.evidence.report import Report
from opsmesh.handlers.evidence.verify import verify
from opsmesh.router import redaction, sink_consumer
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from tests.conftest import PATIENCE, eventually, mesh_client, run
from tests.evidence.made import event, opened
from tests.evidence.sealed import change, found, rechain, reseal, seal
from tests.evidence.test_attacks import manifest

#: An archive, its keys, and the attacker's way.
Attack = Callable[[Path, Path], None]


@pytest.fixture
def folder(home: Path) -> Path:
    """Where the archive lies."""
    return home / "evidence"


@pytest.fixture
def own_keys(home: Path) -> Path:
    """Where its keys lie."""
    return home / "keys"


async def archived(client: Client, folder: Path, own_keys: Path, *, sizes: list[int]) -> None:
    """Events in the stream and in an archive of segments of these sizes, all but the last sealed
    and announced."""
    js = client.jetstream()
    for n in range(1, sum(sizes) + 1):
        await js.publish("evt.h.a.b", event(n))
    await _write(client, folder, sizes)
    seal(folder, own_keys)
    for segment in segments.sealed(folder):
        sealed = seals.read(segment)
        assert sealed is not None
        assert await announce.announce(client, folder, sealed, host="h")
    await _write(client, folder, [])


async def _write(client: Client, folder: Path, sizes: list[int]) -> None:
    """As the sink would: what the archive does not have yet."""
    ends = {sum(sizes[: n + 1]) for n in range(len(sizes) - 1)}
    with opened(folder) as writer:
        async for msg in scan(client, EVENTS, start_seq=writer.seq + 1):
            where = delivery(msg.reply)
            if where.stream_seq > writer.seq:
                writer.event(where.stream_seq, where.timestamp_ns // 1000, msg.data)
                if where.stream_seq in ends:
                    writer.commit()
                    writer.end_segment()
        writer.commit()


async def compared(client: Client, folder: Path, own_keys: Path) -> Report:
    """`verify --against-stream` of whoever has the public key alone."""
    public = keys.public(own_keys)
    assert public is not None
    key = ed25519.fingerprint(public)
    report = verify(folder, key=key)
    await against.compare(client, folder, report, key=key, host="h")
    return report


def rewritten(folder: Path, own_keys: Path) -> None:
    """Everything from the middle of the second segment on is written anew, and sealed again with
    the true key."""
    chain = segments.listing(folder)[1:]

    def edit(now: list[bytes]) -> None:
        now[2] = now[2].replace(b'"n":', b'"m":')

    prev = manifest(chain[0]).prev
    change(chain[0], edit)
    rechain(chain, prev=prev)
    reseal(chain[:1], (own_keys / keys.PRIVATE).read_bytes())


def tail_deleted(folder: Path, own_keys: Path) -> None:
    """The last segment never was, and the one before it is the end."""
    *_, sealed, last = segments.listing(folder)
    last.path.unlink()
    said = manifest(sealed)
    head = segments.Head(
        number=sealed.number, size=said.bytes, seq=said.last_seq, hash=said.last, closed=True
    )
    segments.write_head(folder, head)


def sealed_tail_deleted(folder: Path, own_keys: Path) -> None:
    """The last sealed segment never was either."""
    tail_deleted(folder, own_keys)
    first, second = segments.listing(folder)
    second.compressed.unlink()
    second.seal.unlink()
    said = manifest(first)
    head = segments.Head(number=1, size=said.bytes, seq=said.last_seq, hash=said.last, closed=True)
    segments.write_head(folder, head)


def time_changed(folder: Path, own_keys: Path) -> None:
    """An event of the open segment was stored a year earlier, and all hashes fit."""
    *_, sealed, last = segments.listing(folder)
    change(last, lambda now: now.__setitem__(0, now[0].replace(b'"time":"20', b'"time":"19', 1)))
    rechain([last], prev=manifest(sealed).last)


def noted_away(folder: Path, own_keys: Path) -> None:
    """An event of the open segment is replaced by a note that it was missing."""
    *_, sealed, last = segments.listing(folder)

    def noted(now: list[bytes]) -> None:
        line = lines.parse(now[0])
        assert line is not None
        facts = {"kind": "missing", "from": line.seq, "to": line.seq}
        now[0] = lines.of_note("EVENTS", line.seq, line.time, line.prev, facts)[0]

    change(last, noted)
    rechain([last], prev=manifest(sealed).last)


def begun_again(folder: Path, own_keys: Path) -> None:
    """A note claims that the stream began again, so that what came before would not count."""
    *_, sealed, last = segments.listing(folder)

    def noted(now: list[bytes]) -> None:
        line = lines.parse(now[0])
        assert line is not None
        facts = {"kind": "regressed", "archived": line.seq, "stream_last": line.seq}
        now[0] = lines.of_note("EVENTS", line.seq, line.time, line.prev, facts)[0]

    change(last, noted)
    rechain([last], prev=manifest(sealed).last)


#: What the stream shows of each: kind, file and line of the first problem of these kinds.
ATTACKS: list[tuple[Attack, list[tuple[str, str, int]]]] = [
    (rewritten, [("contradicted", "2.jsonl", 3), ("contradicted", "2.seal.json", 1)]),
    (tail_deleted, [("truncated", "2.jsonl", 10)] * 7),
    (sealed_tail_deleted, [("contradicted", "2.jsonl", 1), *[("truncated", "1.jsonl", 10)] * 17]),
    (time_changed, [("contradicted", "3.jsonl", 1)]),
    (noted_away, [("removed", "3.jsonl", 1)]),
    (begun_again, [("removed", "3.jsonl", 2)] * 21),
]


@pytest.mark.parametrize(("attack", "expected"), ATTACKS, ids=[a.__name__ for a, _ in ATTACKS])
def test_stream_contradicts_what_the_archive_cannot_show(
    nats_server: EmbeddedServer,
    folder: Path,
    own_keys: Path,
    attack: Attack,
    expected: list[tuple[str, str, int]],
) -> None:
    """An archive that verifies in itself, since the attacker had the key or needed none, is found
    by the stream, with file and line."""

    async def body() -> None:
        async with mesh_client() as client:
            await archived(client, folder, own_keys, sizes=[10, 10, 5])
            await client.jetstream().add_consumer(EVENTS, durable_name=sink_consumer.name("h"))
            await acknowledge_all(client)
            assert found(await compared(client, folder, own_keys)) == []
            attack(folder, own_keys)
            public = keys.public(own_keys)
            assert public is not None
            assert verify(folder, key=ed25519.fingerprint(public)).intact
            assert sorted(found(await compared(client, folder, own_keys))) == sorted(expected)

    run(body())


async def acknowledge_all(client: Client) -> None:
    """As a sink that has everything."""
    js = client.jetstream()
    pull = await js.pull_subscribe_bind(sink_consumer.name("h"), stream=EVENTS)
    last = (await js.stream_info(EVENTS)).state.last_seq
    for msg in await pull.fetch(last, timeout=PATIENCE):
        await msg.ack_sync()


def test_what_is_not_archived_yet_is_no_problem(
    nats_server: EmbeddedServer, folder: Path, own_keys: Path
) -> None:
    """Messages that the sink has not acknowledged may be missing at the end, and are counted."""

    async def body() -> None:
        async with mesh_client() as client:
            await archived(client, folder, own_keys, sizes=[10, 5])
            for n in range(3):
                await client.jetstream().publish("evt.h.a.b", event(n))
            report = await compared(client, folder, own_keys)
            assert (found(report), report.compared, report.pending) == ([], 16, 3)

    run(body())


def test_what_the_stream_has_no_more_is_not_asked_for(
    nats_server: EmbeddedServer, folder: Path, own_keys: Path
) -> None:
    """Messages that retention removed, or somebody deleted, leave the archive as it is."""

    async def body() -> None:
        async with mesh_client() as client:
            await archived(client, folder, own_keys, sizes=[10, 5])
            js = client.jetstream()
            await js.purge_stream(EVENTS, keep=8)
            await js.delete_msg(EVENTS, 12)
            report = await compared(client, folder, own_keys)
            assert (found(report), report.compared) == ([], 7)

    run(body())


def test_stream_that_began_again_is_compared_from_there(
    nats_server: EmbeddedServer, folder: Path, own_keys: Path
) -> None:
    """Behind a note that the stream began again, the archive is compared with the new one."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            await archived(client, folder, own_keys, sizes=[10, 5])
            config = (await js.stream_info(EVENTS)).config
            await js.delete_stream(EVENTS)
            await js.add_stream(config)
            for n in range(4):
                await js.publish("evt.h.a.b", event(n + 100))
            with opened(folder) as writer:
                writer.note({"kind": lines.REGRESSED, "archived": 16, "stream_last": 4}, seq=0)
                writer.commit()
            await _write(client, folder, [])
            report = await compared(client, folder, own_keys)
            assert (found(report), report.compared) == ([], 4)

    run(body())


def test_redacted_lines_agree_with_what_they_were_made_of(
    nats_server: EmbeddedServer, folder: Path, own_keys: Path
) -> None:
    """A sink that takes secrets out agrees with the stream by the same redaction; without it the
    line is another."""
    secret = b'{"topic":"a.b","payload":{"password":"%s"}}' % b"-".join(
        [b"hunter", b"two", b"x" * 9]
    )

    async def body() -> None:
        async with mesh_client() as client:
            for data in (event(1), secret, event(3)):
                await client.jetstream().publish("evt.h.a.b", data)
            redactor = redaction.load(Settings())
            with opened(folder) as writer:
                async for msg in scan(client, EVENTS):
                    where = delivery(msg.reply)
                    stored = (EVENTS, where.stream_seq, where.timestamp_ns // 1000)
                    clean = redactor.redact_bytes(msg.data, stored=stored)
                    assert (clean == msg.data) == (where.stream_seq != 2)
                    writer.event(*stored[1:], clean)
                writer.commit()
            for how, count in ((redactor, 0), (None, 1)):
                report = verify(folder)
                await against.compare(client, folder, report, key=None, host="h", redactor=how)
                assert len(report.problems) == count

    run(body())


def test_forged_announcement_is_told(
    nats_server: EmbeddedServer, folder: Path, own_keys: Path
) -> None:
    """An event of a seal that no key of the archive signed is a problem of its own."""

    async def body() -> None:
        async with mesh_client() as client:
            await archived(client, folder, own_keys, sizes=[10, 5])
            true = seals.read(segments.listing(folder)[0])
            assert true is not None
            raw = true.raw.replace(b'"lines":10', b'"lines":11')
            await announce.announce(client, folder, seals.parse(raw), host="h")
            await _write(client, folder, [])
            report = await compared(client, folder, own_keys)
            assert found(report) == [("bad seal", "stream EVENTS", 17)]

    run(body())


def test_another_archive_in_its_place(
    nats_server: EmbeddedServer, folder: Path, own_keys: Path
) -> None:
    """An archive that is not the one whose seals this host announced is a contradiction."""

    async def body() -> None:
        async with mesh_client() as client:
            await archived(client, folder, own_keys, sizes=[10, 5])
            other = folder.with_name("other")
            await _write(client, other, [10, 6])
            seal(other, folder.with_name("other-keys"))
            report = await compared(client, other, folder.with_name("other-keys"))
            assert found(report) == [("contradicted", "keys.chain", 1)]

    run(body())


def test_seal_is_announced_once(nats_server: EmbeddedServer, folder: Path, own_keys: Path) -> None:
    """However often it is announced, with its note lost and beyond the broker's duplicate window,
    a seal is one message of the stream."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            config = (await js.stream_info(EVENTS)).config
            config.duplicate_window = 0.1
            await js.update_stream(config)
            await archived(client, folder, own_keys, sizes=[10, 5])
            sealed = announce.pending(folder)
            assert sealed is None
            (folder / announce.NOTE).unlink()
            before = (await js.stream_info(EVENTS)).state.last_seq
            sealed = announce.pending(folder)
            assert sealed is not None
            event_id = announce.of(sealed, host="h").id

            async def forgotten() -> bool:
                """Whether the broker takes the id again, on another subject."""
                ack = await js.publish("evt.h.a.b", b"{}", headers={"Nats-Msg-Id": event_id})
                return not ack.duplicate

            await eventually(forgotten)
            assert await announce.announce(client, folder, sealed, host="h")
            assert announce.pending(folder) is None
            assert (await js.stream_info(EVENTS)).state.last_seq == before + 1

    run(body())


def test_two_who_announce_at_once(
    nats_server: EmbeddedServer, folder: Path, own_keys: Path
) -> None:
    """Whoever looked at the stream before another one published is refused, and sees it then."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            await archived(client, folder, own_keys, sizes=[10, 5])
            [segment] = segments.sealed(folder)
            sealed = seals.read(segment)
            assert sealed is not None
            made = announce.of(sealed, host="h")
            last_seq, known = await announce.last(client, f"evt.h.{seals.TOPIC}")
            assert known == sealed.hash
            await js.publish(f"evt.h.{seals.TOPIC}", b"{}")
            count = (await js.stream_info(EVENTS)).state.messages
            other = msgspec.structs.replace(made, id="another")
            assert not await announce.publish(client, other, last_seq=last_seq)
            assert (await js.stream_info(EVENTS)).state.messages == count

    run(body())
