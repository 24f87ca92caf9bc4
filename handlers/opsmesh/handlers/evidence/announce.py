"""The newest seal as an event: once in the stream, whatever was killed in between.

Three things keep it single: the archive notes which seal was announced; before that note exists,
the stream's last event of the topic is looked at; and the broker takes the new one only if that is
still the last one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.js.api import Header
from nats.js.errors import APIError, NotFoundError

from opsmesh.handlers.evidence import disk, seals
from opsmesh.handlers.evidence.seals import Seal
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import envelope, ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event

#: The seal that was announced last, by its hash.
NOTE: Final = ".announced"
#: The broker's refusal of a message whose subject has another last message (server 2.15.1).
WRONG_LAST: Final = 10071


def pending(folder: Path) -> Seal | None:
    """The newest seal, unless it was announced."""
    seal = seals.newest(folder)
    if seal is None:
        return None
    try:
        known = (folder / NOTE).read_text().strip()
    except FileNotFoundError:
        known = ""
    return None if known == seal.hash else seal


async def announce(client: Client, folder: Path, seal: Seal, *, host: str) -> bool:
    """Whether the seal is in the stream now; False: somebody published meanwhile, try again.

    Raises what the client raises when the broker is away.
    """
    event = of(seal, host=host)
    last_seq, stored = await last(client, envelope.subject(event.host, event.topic))
    if stored != seal.hash and not await publish(client, event, last_seq=last_seq):
        return False
    disk.replace(folder / NOTE, f"{seal.hash}\n".encode())
    return True


async def last(client: Client, subject: str) -> tuple[int, str]:
    """The sequence of the subject's last message, and the hash of the seal that it tells of; 0
    where there is none."""
    try:
        found = await client.jetstream().get_last_msg(EVENTS, subject)
    except NotFoundError:
        return 0, ""
    return found.seq or 0, _seal_hash(found.data or b"")


async def publish(client: Client, event: Event, *, last_seq: int) -> bool:
    """Whether the broker took it: only behind the message `last_seq` of its subject."""
    headers = {
        Header.MSG_ID.value: event.id,
        Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(last_seq),
    }
    subject = envelope.subject(event.host, event.topic)
    try:
        await client.jetstream().publish(subject, envelope.encode(event), headers=headers)
    except APIError as error:
        if error.err_code != WRONG_LAST:
            raise
        return False
    return True


def of(seal: Seal, *, host: str) -> Event:
    """The event of a seal; the same seal gives the same event."""
    manifest = seal.manifest
    ms = times.parse_us(manifest.sealed_at) // 1000
    event_id = ids.derived(ms, manifest.archive, str(manifest.segment), seal.hash)
    return Event(
        topic=seals.TOPIC,
        ts_utc=manifest.sealed_at,
        source="opsmesh",
        component="sink",
        severity="info",
        correlation_id=event_id,
        host=host,
        session_id="",
        workspace="",
        payload={
            "archive": manifest.archive,
            "segment": manifest.segment,
            "file": manifest.file,
            "stream": manifest.stream,
            "first_seq": manifest.first_seq,
            "last_seq": manifest.last_seq,
            "lines": manifest.lines,
            "bytes": manifest.bytes,
            "last_hash": manifest.last,
            "root": manifest.root,
            "seal_hash": seal.hash,
            "key_fingerprint": manifest.key,
            "seal": seal.raw.decode().rstrip("\n"),
        },
        id=event_id,
        schema_version=SCHEMA_VERSION,
    )


class _Stored(msgspec.Struct):
    payload: dict[str, Any] = {}


def _seal_hash(data: bytes) -> str:
    try:
        return str(msgspec.json.decode(data, type=_Stored).payload.get("seal_hash", ""))
    except (msgspec.DecodeError, ValueError):
        return ""
