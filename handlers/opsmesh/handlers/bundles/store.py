"""Bundles in the mesh's object store: put, listed, fetched, removed.

The layout is the one of every NATS client (ADR-20): chunks under `$O.<bucket>.C.<nuid>`, then the
object's own message under `$O.<bucket>.M.<name>`, which is what makes it visible. Two things are
ours. The nuid is derived from the bundle's id, so that an upload that was cut is begun again in its
own place, and leaves nothing behind. And reading is bounded and ends: nats-py 2.16 follows links,
takes any size, and waits for ever for a chunk that has gone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.bundles.archive import BadBundle
from opsmesh.handlers.errors import HandlersError
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.topology import BUNDLES, BUNDLES_STREAM
from opsmesh.schemas import times

#: Bytes of a chunk, as the other clients have it.
CHUNK: Final = 128 * 1024
#: Bytes of an archive in the store: what is larger stays on its host.
MAX_ARCHIVE: Final = 256 * 2**20
#: Seconds to wait for one answer of the broker: an fsync may take its time.
TIMEOUT: Final = 10.0
#: Seconds that a list, and a whole bundle, may take to come.
LIST_S: Final = 30.0
FETCH_S: Final = 300.0
#: Characters of each thing that is told of an object.
LONGEST: Final = 200
SUFFIX: Final = ".tar.zst"
#: What an object's message tells of its bundle, so that a list needs no bundle to be fetched.
TOLD: Final = (
    *("profile", "step", "run_id", "event_id", "topic", "host", "created_utc"),
    *("bytes", "errors"),
)

_ID = re.compile(r"[0-9a-f]{64}")
_NUID = re.compile(r"[A-Za-z0-9]{1,64}")
_CHUNKS: Final = f"$O.{BUNDLES}.C"
_META: Final = f"$O.{BUNDLES}.M"


class NotShared(HandlersError):
    """The object store has no such bundle, or not all of it any more."""


@dataclass(frozen=True, kw_only=True)
class Object:
    """A bundle of the object store, as its message tells; its words are its host's."""

    bundle_id: str
    nuid: str
    size: int
    digest: str
    stored: str
    told: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """The parts that one upload has stored: how many bytes, when the last one, at which place."""

    nuid: str
    size: int
    last_us: int
    last_seq: int


class Store:
    """The object store of one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._js = client.jetstream(timeout=TIMEOUT)

    async def put(self, archive: Path, bundle_id: str, manifest: Mapping[str, Any]) -> None:
        """Store an archive; it is in the store as a whole when this returns, or not to be seen."""
        nuid = bundle_id[:22]
        # what an upload that was cut has left
        await self._js.purge_stream(BUNDLES_STREAM, subject=f"{_CHUNKS}.{nuid}")
        digest, size, chunks = hashlib.sha256(), 0, 0
        with archive.open("rb") as file:
            while block := await asyncio.to_thread(file.read, CHUNK):
                digest.update(block)
                await self._js.publish(f"{_CHUNKS}.{nuid}", block)
                size, chunks = size + len(block), chunks + 1
        name = f"{bundle_id}{SUFFIX}"
        about = {
            "name": name,
            "description": "evidence bundle of opsmesh",
            "metadata": {key: str(manifest.get(key, ""))[:LONGEST] for key in TOLD},
            "options": {"max_chunk_size": CHUNK},
            "bucket": BUNDLES,
            "nuid": nuid,
            "size": size,
            "chunks": chunks,
            "digest": f"SHA-256={base64.urlsafe_b64encode(digest.digest()).decode()}",
            "mtime": times.format_us(times.now_us()),
        }
        await self._js.publish(
            _subject(name), msgspec.json.encode(about), headers={"Nats-Rollup": "sub"}
        )

    async def list(self) -> list[Object]:
        """Every bundle that is there, in the order in which they were stored."""
        try:
            async with asyncio.timeout(LIST_S):
                return [
                    one
                    async for message in scan(
                        self._client,
                        BUNDLES_STREAM,
                        subjects=[f"{_META}.>"],
                        newest_per_subject=True,
                    )
                    if (one := _read(message.data)) is not None
                ]
        except NotFoundError:
            return []  # an agent of an older version has made the streams

    async def fetch(self, one: Object, target: BinaryIO) -> None:
        """Write an object's archive; BadBundle when it is not what its message says, NotShared when
        parts of it have gone, TimeoutError when it does not come."""
        async with asyncio.timeout(FETCH_S):
            await self._fetch(one, target)

    async def _fetch(self, one: Object, target: BinaryIO) -> None:
        if one.size > MAX_ARCHIVE:
            raise BadBundle(f"its archive has {one.size} bytes, more than {MAX_ARCHIVE}")
        digest, size = hashlib.sha256(), 0
        async for message in scan(self._client, BUNDLES_STREAM, subjects=[f"{_CHUNKS}.{one.nuid}"]):
            size += len(message.data)
            if size > one.size:
                raise BadBundle(f"its archive has more than the {one.size} bytes that it says")
            digest.update(message.data)
            await asyncio.to_thread(target.write, message.data)
        if size < one.size:
            raise NotShared(
                f"of bundle {one.bundle_id[:12]} only {size} of {one.size} bytes are left in the "
                "object store; its host may have it"
            )
        if digest.digest() != _digest(one.digest):
            raise BadBundle("its archive has another hash than it says")

    async def remove(self, one: Object) -> None:
        """Take an object out of the store; harmless when it is gone."""
        for subject in (_subject(f"{one.bundle_id}{SUFFIX}"), f"{_CHUNKS}.{one.nuid}"):
            await self._js.purge_stream(BUNDLES_STREAM, subject=subject)

    async def orphans(self, *, before_us: int) -> Sequence[Chunks]:
        """Parts of no object that is there, whose last one was stored before that time: an upload
        that is under way has parts, and no object yet."""
        chunks: dict[str, Chunks] = {}
        async for message in scan(
            self._client, BUNDLES_STREAM, subjects=[f"{_CHUNKS}.>"], headers_only=True
        ):
            where, headers = delivery(message.reply), message.headers or {}
            nuid = message.subject.rpartition(".")[2]
            before = chunks[nuid].size if nuid in chunks else 0
            chunks[nuid] = Chunks(
                nuid=nuid,
                size=before + int(headers.get("Nats-Msg-Size") or 0),
                last_us=where.timestamp_ns // 1000,
                last_seq=where.stream_seq,
            )
        used = await self._nuids() if chunks else set()
        return [one for one in chunks.values() if one.nuid not in used and one.last_us < before_us]

    async def _nuids(self) -> set[str]:
        """What the objects are made of, bundles and strangers' ones."""
        found = set()
        async for message in scan(
            self._client, BUNDLES_STREAM, subjects=[f"{_META}.>"], newest_per_subject=True
        ):
            with contextlib.suppress(msgspec.DecodeError):
                found.add(msgspec.json.decode(message.data, type=_Parts).nuid)
        return found

    async def drop(self, chunks: Chunks) -> None:
        """Remove parts up to the last one that was seen: those of an upload that has begun again
        since stay."""
        await self._js.purge_stream(
            BUNDLES_STREAM, subject=f"{_CHUNKS}.{chunks.nuid}", seq=chunks.last_seq + 1
        )

    async def make_room(self, size: int) -> int:
        """Remove the oldest bundles until `size` bytes are free; how many went."""
        info = await self._js.stream_info(BUNDLES_STREAM)
        limit = info.config.max_bytes or 0
        excess = info.state.bytes + size + size // 16 + CHUNK - limit
        removed = 0
        if limit > 0 and excess > 0:
            for one in await self.list():
                await self.remove(one)
                removed += 1
                excess -= one.size
                if excess <= 0:
                    break
        return removed


class _Parts(msgspec.Struct):
    nuid: str = ""


def _subject(name: str) -> str:
    return f"{_META}.{base64.urlsafe_b64encode(name.encode()).decode()}"


def _read(data: bytes) -> Object | None:
    """What an object's message tells; None for what is no bundle, or no longer there."""
    try:
        found = msgspec.json.decode(data)
        name, nuid, size = found["name"], found["nuid"], found["size"]
        if found.get("deleted") or (found.get("options") or {}).get("link"):
            return None
        told = found.get("metadata") or {}
        bundle_id = name.removesuffix(SUFFIX)
        if not (_ID.fullmatch(bundle_id) and _NUID.fullmatch(nuid) and isinstance(size, int)):
            return None
        return Object(
            bundle_id=bundle_id,
            nuid=nuid,
            size=max(0, size),
            digest=str(found.get("digest") or ""),
            stored=str(found.get("mtime") or "")[:LONGEST],
            told={key: str(told.get(key) or "")[:LONGEST] for key in TOLD},
        )
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return None


def _digest(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text.removeprefix("SHA-256="))
    except ValueError:
        return b""
