"""What one message of Yazi says. Pure: no clock, no file system.

One message is one operation: `file.op.*` with all its files, and `file.batch.completed` after it
when they are more than one. An operation on so many files that they do not fit into one event is
several `file.op.*`, and still one batch, which then has the number of files only.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from opsmesh.producers.yazi.dds import Message, path_text

MOVE: Final = "file.op.move"
COPY: Final = "file.op.copy"
DELETE: Final = "file.op.delete"
BATCH: Final = "file.batch.completed"
DENIED: Final = "file.path.access.denied"

#: Bytes of paths in one event, at most: the agent takes lines up to 1 MiB, and paths grow when
#: they are escaped.
ROOM: Final = 128 * 1024

Pair = tuple[str, str]
Some = TypeVar("Some", str, Pair)


@dataclass(frozen=True)
class Fact:
    """One event to be."""

    topic: str
    payload: dict[str, Any]

    @property
    def place(self) -> str:
        """One path that it is about: the first one's, where that is now; empty when it has none."""
        for item in (*self.payload.get("items", ()), *self.payload.get("paths", ())):
            return str(item["dst"] if isinstance(item, dict) else item)
        return str(self.payload.get("path", ""))


def facts(message: Message) -> list[Fact]:
    """What the message says; nothing for a body of another shape, or for nothing at all."""
    body, instance = message.body, {"instance": message.sender}
    match message.kind:
        case "rename":
            return _moved(_pairs([(body.get("from"), body.get("to"))]), instance, "rename")
        case "bulk" | "bulk-rename":
            changes = body.get("changes")
            ways = changes.items() if isinstance(changes, dict) else ()
            return _moved(_pairs(ways), instance, "rename")
        case "move":
            return _moved(_pairs(_items(body.get("items"))), instance, "move")
        case "duplicate":
            return _copied(_pairs(_items(body.get("items"))), instance)
        case "trash" | "delete":
            return _deleted(_paths(body.get("urls")), instance, message.kind)
        case "load":
            return _denied(body, instance)
    return []


def _moved(pairs: Sequence[Pair], instance: dict[str, str], operation: str) -> list[Fact]:
    found = []
    for part in _parts(pairs):
        renamed = all(os.path.dirname(src) == os.path.dirname(dst) for src, dst in part)  # noqa: PTH120
        found.append(Fact(MOVE, {"items": _told(part), "rename": renamed, **instance}))
    return found + _batch(operation, len(pairs), found, instance)


def _copied(pairs: Sequence[Pair], instance: dict[str, str]) -> list[Fact]:
    found = [Fact(COPY, {"items": _told(part), **instance}) for part in _parts(pairs)]
    return found + _batch("copy", len(pairs), found, instance)


def _deleted(paths: Sequence[str], instance: dict[str, str], operation: str) -> list[Fact]:
    trash = operation == "trash"
    found = [Fact(DELETE, {"paths": part, "trash": trash, **instance}) for part in _parts(paths)]
    return found + _batch(operation, len(paths), found, instance)


def _batch(
    operation: str, count: int, told: Sequence[Fact], instance: dict[str, str]
) -> list[Fact]:
    if count < 2:
        return []
    payload: dict[str, Any] = {"operation": operation, "count": count, **instance}
    if len(told) == 1:
        payload |= {k: v for k, v in told[0].payload.items() if k in ("items", "paths")}
    return [Fact(BATCH, payload)]


def _denied(body: Any, instance: dict[str, str]) -> list[Fact]:
    """`{"stage": {"Failed": {"type": "raw", "code": 13}}}` (yazi-fs/src/stage.rs)."""
    stage, path = body.get("stage"), path_text(body.get("url"))
    failed = stage.get("Failed") if isinstance(stage, dict) else None
    code = failed.get("code") if isinstance(failed, dict) else None
    if path is None or type(code) is not int or code not in (errno.EACCES, errno.EPERM):
        return []
    return [Fact(DENIED, {"path": path, "errno": code, "message": os.strerror(code), **instance})]


def _items(items: object) -> Iterator[tuple[object, object]]:
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            yield item.get("from"), item.get("to")


def _pairs(ways: Iterable[tuple[object, object]]) -> list[Pair]:
    """The ways from one path to another; Yazi also tells a rename to the same name."""
    texts = [(path_text(src), path_text(dst)) for src, dst in ways]
    return [(src, dst) for src, dst in texts if src and dst and src != dst]


def _paths(urls: object) -> list[str]:
    texts = [path_text(url) for url in urls] if isinstance(urls, list) else []
    return [text for text in texts if text]


def _told(pairs: Iterable[Pair]) -> list[dict[str, str]]:
    return [{"src": src, "dst": dst} for src, dst in pairs]


def _parts(items: Sequence[Some]) -> Iterator[list[Some]]:
    """The items in parts that fit into an event each."""
    part: list[Some] = []
    room = ROOM
    for item in items:
        size = sum(len(text.encode()) for text in ((item,) if isinstance(item, str) else item))
        if part and size > room:
            yield part
            part, room = [], ROOM
        part.append(item)
        room -= size
    if part:
        yield part
