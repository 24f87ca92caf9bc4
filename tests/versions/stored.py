"""What earlier releases have stored, as `capture` wrote it down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from opsmesh.router import topology

FOLDER: Final = Path(__file__).parent / "data"
#: The releases whose events are kept.
RELEASES: Final = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
#: What is captured of each: what one version writes and another one reads.
STREAMS: Final = (
    topology.EVENTS,
    topology.DLQ,
    topology.DECISIONS,
    topology.FIRINGS,
    topology.VERSIONS,
    f"KV_{topology.RUNS}",
    f"KV_{topology.WINDOWS}",
)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One message."""

    subject: str
    headers: dict[str, str]
    data: bytes


def stored(release: str, stream: str) -> Iterator[Stored]:
    """The messages of a stream, in their order."""
    with Path(FOLDER, release, f"{stream}.jsonl").open() as lines:
        for line in lines:
            told = json.loads(line)
            yield Stored(
                subject=told["subject"], headers=told["headers"], data=told["data"].encode()
            )


async def publish(client: Client, release: str, *streams: str) -> None:
    """Put the messages of these streams into today's, as a host of that release would."""
    js = client.jetstream()
    for stream in streams:
        for message in stored(release, stream):
            await js.publish(message.subject, message.data, headers=_kept(message.headers))


def _kept(headers: dict[str, str]) -> dict[str, str] | None:
    """What says something of the message, and not of how it was written once."""
    once = ("Nats-Batch", "Nats-Expected", "Nats-TTL")
    return {k: v for k, v in headers.items() if not k.startswith(once)} or None
