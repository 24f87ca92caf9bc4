"""Sinks as processes of their own, and what their archive holds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.evidence import segments
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.router.sink_consumer import name as sink_consumer
from opsmesh.router.topology import EVENTS
from tests.conftest import WHOLE
from tests.evidence.made import parsed


def folder() -> Path:
    return Path(paths.evidence_dir())


def log_file() -> Path:
    return Path(paths.state_dir(), "sink.log")


@contextmanager
def sink(*arguments: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A sink of its own process, killed at the end unless it has ended."""
    with log_file().open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *(arguments or ("-m", "opsmesh.handlers.evidence.sink"))],
            env={**os.environ, **env},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)


async def ended(process: subprocess.Popen[bytes], how: signal.Signals) -> int:
    process.send_signal(how)
    return await asyncio.to_thread(process.wait, WHOLE)


async def publish(client: Client, *messages: bytes) -> None:
    """Store messages, many at a time; returns when the broker has acknowledged all of them."""
    js = client.jetstream(publish_async_max_pending=500)
    acks = [await js.publish_async("evt.h.a.b", message) for message in messages]
    await asyncio.gather(*acks)


async def archived(client: Client) -> bool:
    """Whether the archive holds all that is in the stream, and the broker knows."""
    js = client.jetstream()
    last = (await js.stream_info(EVENTS)).state.last_seq
    found = segments.listing(folder())
    try:
        line = segments.tail(found[-1]).line if found else None
    except FileNotFoundError:  # it is compressed, or was one that never got a line
        return False
    if line is None or line.seq != last or line.kind == "note":
        return False
    try:
        info = await js.consumer_info(EVENTS, sink_consumer(Settings().host))
    except NotFoundError:
        return False
    return info.ack_floor is not None and info.ack_floor.stream_seq == last


def seqs() -> list[int]:
    return [line.seq for line in parsed(folder()) if line.kind != "note"]


def written() -> int:
    """Whole lines on disk now, while a sink may be writing."""
    found = 0
    for segment in segments.listing(folder()):
        # a sink that starts removes a file that never got a line
        with contextlib.suppress(FileNotFoundError), segments.opened(segment) as file:
            found += file.read().count(b"\n")
    return found


async def stored(client: Client, last: int) -> bool:
    return (await client.jetstream().stream_info(EVENTS)).state.last_seq == last
