"""A stream as one run of bytes, and back: the broker's own snapshot, which keeps sequences, times,
headers, and how far each consumer is.

The one rule: what comes back from `save` is whole, or it raises. The bytes are nats-server's own (a
compressed tar) and are not looked into. For streams that only grow at their end: of a bucket it is
not one moment (`bucket_copy`). Requests: `$JS.API.STREAM.SNAPSHOT` and `…RESTORE` of
nats-server; admin rights are needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from opsmesh.router.errors import RouterError

#: Bytes of one chunk: less than a message may have.
CHUNK: Final = 128 * 1024
#: Seconds to wait for the broker's first answer: it looks the whole stream through before.
ANSWER_S: Final = 120.0
#: Seconds between two chunks, after which a snapshot counts as broken off.
SILENCE_S: Final = 30.0


class SnapshotFailed(RouterError):
    """The broker gave no whole snapshot of `stream`, or did not take one."""

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(f"stream {stream}: {reason}")
        self.stream = stream
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a stream was when it was read: the broker's own words, which it wants back."""

    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def messages(self) -> int:
        """How many messages are in it."""
        return int(self.state.get("messages", 0))

    @property
    def last_seq(self) -> int:
        """The last sequence that the stream had given."""
        return int(self.state.get("last_seq", 0))


async def save(client: Client, stream: str, write: Callable[[bytes], object]) -> Snapshot:
    """Read the stream and its consumers as they are now, while others go on writing."""
    inbox = client.new_inbox()
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    heard = asyncio.Event()

    async def take(message: Msg) -> None:
        if ended.done():
            return
        heard.set()
        try:
            if message.data:
                await asyncio.to_thread(write, message.data)
                if message.reply:  # the last piece of all asks for no answer
                    await message.respond(b"")
                return
            status = (message.headers or {}).get("Status", "")
            description = (message.headers or {}).get("Description", "")
            ended.set_result("" if status in ("", "204") else f"{status} {description}".strip())
        except Exception as error:  # a full disk: whoever waits is told, not nats-py
            ended.set_exception(error)

    listening = await client.subscribe(inbox, cb=take)
    try:
        asked = {"deliver_subject": inbox, "chunk_size": CHUNK, "jsck": True}
        answer = await ask(client, f"$JS.API.STREAM.SNAPSHOT.{stream}", asked, stream)
        while not ended.done():
            heard.clear()
            done, _ = await asyncio.wait(
                (ended, asyncio.ensure_future(heard.wait())),
                timeout=SILENCE_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                raise SnapshotFailed(stream, f"nothing came for {SILENCE_S:g} s")
        if failed := ended.result():
            raise SnapshotFailed(stream, f"the broker broke off: {failed}")
    finally:
        await listening.unsubscribe()
    return Snapshot(config=answer["config"], state=answer["state"])


async def load(client: Client, snapshot: Snapshot, chunks: Iterable[bytes]) -> None:
    """Make the stream anew from what `save` wrote; there must be none of that name."""
    stream = str(snapshot.config["name"])
    asked = {"config": snapshot.config, "state": snapshot.state}
    answer = await ask(client, f"$JS.API.STREAM.RESTORE.{stream}", asked, stream)
    where = str(answer["deliver_subject"])
    for chunk in chunks:
        if said := (await client.request(where, chunk, timeout=SILENCE_S)).data:
            _raise_for(msgspec.json.decode(said), stream)
    last = await client.request(where, b"", timeout=ANSWER_S)
    _raise_for(msgspec.json.decode(last.data), stream)


async def ask(client: Client, subject: str, asked: dict[str, Any], stream: str) -> dict[str, Any]:
    """The broker's answer to a request of its API about a stream; SnapshotFailed for a refusal."""
    answer = await client.request(subject, msgspec.json.encode(asked), timeout=ANSWER_S)
    found: dict[str, Any] = msgspec.json.decode(answer.data)
    _raise_for(found, stream)
    return found


def _raise_for(answer: dict[str, Any], stream: str) -> None:
    if "error" in answer:
        raise SnapshotFailed(stream, str(answer["error"].get("description", "refused")))
