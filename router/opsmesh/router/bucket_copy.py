"""A key-value bucket as lines, and back.

The broker's own snapshot of a bucket that is written to is not one moment of it: measured (2.15.1),
a key that was overwritten meanwhile is lost, old value and new. So a bucket is read as a stream, in
order, up to a message behind which there was nothing when it was sent. What has been read by then,
the last of each key, is what the bucket held at that moment: a value that was missed had a newer
one, which was read. Atomic batches are stored at once, so none is cut.

The one rule: a restored bucket ends with the sequence that it had, and each value has at least its
own: whoever remembers a revision never takes something new for something known.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from nats.aio.client import Client

from opsmesh.router.pull import delivery
from opsmesh.router.scan import QUIET, last_seq, scan
from opsmesh.router.snapshot import SILENCE_S, Snapshot, SnapshotFailed, ask

#: Messages that are under way at once while a bucket is written.
AHEAD: Final = 500
#: Headers that were for the broker when the value was written.
_SPENT: Final = ("Nats-Expected-", "Nats-Batch-", "Nats-Msg-Id")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the bucket."""

    seq: int
    subject: str
    data: bytes
    headers: dict[str, str] = {}


_line = msgspec.json.Decoder(Line).decode


async def save(client: Client, stream: str, write: Callable[[bytes], object]) -> Snapshot:
    """Write the bucket, a JSON object a line, while others go on writing to it."""
    info = await ask(client, f"$JS.API.STREAM.INFO.{stream}", {}, stream)
    seq, count = int(info["state"]["last_seq"]), 0
    if info["state"]["messages"]:
        reading, silence_s = scan(client, stream, follow=True), SILENCE_S
        async with contextlib.aclosing(reading):  # type: ignore[type-var]
            while True:
                try:
                    async with asyncio.timeout(silence_s):
                        message = await anext(reading)
                except TimeoutError as error:
                    if silence_s == QUIET:
                        break  # what came last was removed
                    raise SnapshotFailed(stream, f"nothing came for {SILENCE_S:g} s") from error
                where = delivery(message.reply)
                seq, count = where.stream_seq, count + 1
                headers = dict(message.headers or {})
                line = Line(seq=seq, subject=message.subject, data=message.data, headers=headers)
                await asyncio.to_thread(write, msgspec.json.encode(line) + b"\n")
                silence_s = SILENCE_S
                if where.pending == 0:  # perhaps for a moment, see `scan`
                    if await last_seq(client.jetstream(), stream) <= seq:
                        break
                    silence_s = QUIET
    return Snapshot(config=info["config"], state={"messages": count, "last_seq": seq})


async def load(client: Client, snapshot: Snapshot, lines: Callable[[], Iterable[bytes]]) -> None:
    """Make the bucket anew; there must be none of its name. `lines` gives what `save` wrote, each
    time it is called."""
    stream = str(snapshot.config["name"])
    newest: dict[str, int] = {}
    for line in _lines(lines()):
        newest[line.subject] = line.seq
    config = {**snapshot.config, "first_seq": max(1, snapshot.last_seq - len(newest) + 1)}
    await ask(client, f"$JS.API.STREAM.CREATE.{stream}", config, stream)
    js = client.jetstream(publish_async_max_pending=AHEAD)
    acks = []
    for line in _lines(lines()):
        if newest[line.subject] == line.seq:
            headers = {k: v for k, v in line.headers.items() if not k.startswith(_SPENT)}
            acks.append(await js.publish_async(line.subject, line.data, headers=headers or None))
    for ack in acks:
        await ack


def values(lines: Iterable[bytes]) -> int:
    """How many keys, the marks of removed ones included, are in what `save` wrote."""
    return len({line.subject for line in _lines(lines)})


def _lines(blocks: Iterable[bytes]) -> Iterator[Line]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from map(_line, whole)
