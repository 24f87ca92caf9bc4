"""What lies in the spool, and how the agent is: what `status`, `doctor` and `spool` tell people.

The one rule: nothing is changed here, and nothing needs a broker.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from opsmesh.router import losses, paths, spool, spool_room
from opsmesh.router.client import with_address
from opsmesh.router.ingest import ASKS_STATUS
from opsmesh.router.losses import Loss

#: Seconds that the agent gets to say how it is.
PATIENCE: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file: `state` is `waiting`, `damaged` (set aside) or `unreadable`."""

    name: str
    state: str
    bytes: int
    written_s: float | None = None
    events: int = 0
    damaged: int = 0
    sources: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class State:
    """The spool at a glance; `bytes` are those that it takes on disk, in whole blocks."""

    files: int
    bytes: int
    max_bytes: int
    when_full: str
    oldest_s: float | None
    damaged: int
    dropped: list[Loss]
    untold: int


def look(spool_dir: str) -> State:
    """The whole folder; files that go meanwhile are not counted."""
    waiting = spool.names(spool_dir)
    used = 0
    for name in waiting:
        with contextlib.suppress(OSError):
            used += spool_room.blocks(os.stat(f"{spool_dir}/{name}").st_size)  # noqa: PTH116
    max_bytes, when_full = spool_room.limits(spool_dir)
    untold = [losses.LOG, *losses.frozen(spool_dir)]
    return State(
        files=len(waiting),
        bytes=used * spool_room.BLOCK,
        max_bytes=max_bytes,
        when_full=when_full,
        oldest_s=_age(waiting[0]) if waiting else None,
        damaged=len(damaged_names(spool_dir)),
        dropped=losses.total(spool_dir),
        untold=sum(loss.events for log in untold for loss in losses.summary(spool_dir, log)),
    )


def damaged_names(spool_dir: str) -> list[str]:
    """What was set aside."""
    try:
        return sorted(n for n in os.listdir(f"{spool_dir}/{spool.CORRUPT}") if n[0] != ".")  # noqa: PTH208
    except OSError:
        return []


def waiting_entry(spool_dir: str, name: str) -> Entry:
    """One file that waits, read."""
    path = f"{spool_dir}/{name}"
    size = os.stat(path, follow_symlinks=False).st_size  # noqa: PTH116
    try:
        good, corrupt = spool.read(path)
    except OSError:
        return Entry(name=name, state="unreadable", bytes=size, written_s=_written(name))
    return Entry(
        name=name,
        state="waiting",
        bytes=size,
        written_s=_written(name),
        events=len(good),
        damaged=len(corrupt),
        sources=_sources(good),
    )


def damaged_entry(spool_dir: str, name: str) -> Entry:
    """One that was set aside."""
    path = f"{spool_dir}/{spool.CORRUPT}/{name}"
    size = os.stat(path, follow_symlinks=False).st_size  # noqa: PTH116
    records = damaged_records(spool_dir, name)
    return Entry(
        name=name,
        state="damaged" if records is not None else "unreadable",
        bytes=size,
        written_s=_written(name),
        damaged=len(records or ()),
    )


def damaged_records(spool_dir: str, name: str) -> list[bytes] | None:
    """The records that were set aside under this name, as they stand, and notes; None for what is
    no readable file."""
    path = f"{spool_dir}/{spool.CORRUPT}/{name}"
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with os.fdopen(file, "rb") as opened:
            return [record for record in opened.read().split(b"\n") if record]
    except OSError:  # a folder
        return None


def event_in(record: bytes) -> bytes | None:
    """The event in a damaged record, when it still is one: a JSON object with a topic."""
    for line in (record[9:], record):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("topic"), str):
            return line
    return None


def ask_agent() -> dict[str, Any] | None:
    """What the agent says of itself; None when none listens. TimeoutError when it hangs."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            with_address(paths.ingest_socket(), connection.connect)
            connection.sendall(ASKS_STATUS + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                part = connection.recv(65536)
                if not part:
                    return None
                answer += part
        except TimeoutError:
            raise
        except OSError:
            return None
    try:
        facts = json.loads(answer).get("agent")
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def _sources(lines: list[bytes]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        source = event.get("source") if isinstance(event, dict) else None
        found[source if isinstance(source, str) and source else losses.UNKNOWN] += 1
    return dict(found)


def _written(name: str) -> float | None:
    """When a file was written, in Unix seconds, as its name says."""
    ns = name[:20]
    return int(ns) / 1e9 if ns.isdecimal() and len(ns) == 20 else None


def _age(name: str) -> float | None:
    at = _written(name)
    return None if at is None else max(0.0, time.time() - at)
