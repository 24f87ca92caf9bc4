"""What nobody needs any more: found and shown first, removed only when told.

The one rule: found is only what certainly nothing will ask for again. Dead letters, evidence and
the streams' own messages are never found (they have limits of their own); what a restore has set
aside goes only when it is asked for by its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.bundles import retention
from opsmesh.handlers.bundles.store import Chunks, Store
from opsmesh.handlers.care import backup, restore
from opsmesh.handlers.live import versions
from opsmesh.handlers.live.position import Positions
from opsmesh.handlers.live.versions import Version
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.router import component, listing, paths
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS, VERSIONS
from opsmesh.schemas import times

#: Seconds after which what is unfinished counts as left behind: no upload or backup takes so long.
LEFT_S: Final = 86400.0
#: Seconds after which a log that nobody writes to is of a component that is gone.
LOG_S: Final = 30 * 86400.0

#: The header of what a hub has from a leaf's stream.
SOURCED: Final = "Nats-Stream-Source"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that can go: its kind, its name and bytes, from when it is, and why it goes."""

    kind: str
    name: str
    size: int
    at_us: int
    why: str
    remove: Callable[[], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of things. `asked`: only when named; `here` or `at_broker` finds them."""

    name: str
    what: str
    asked: bool = False
    here: Callable[[Settings, int], Iterator[Item]] | None = None
    at_broker: Callable[[Client, Settings], AsyncIterator[Item]] | None = None


async def find(
    settings: Settings, client: Client | None, *, kinds: list[str], keep: int = backup.KEEP
) -> list[Item]:
    """What would go, kind by kind; without a client only what lies here. No `kinds`: all but those
    that are to be named."""
    found: list[Item] = []
    for kind in KINDS:
        if (kind.name not in kinds) if kinds else kind.asked:
            continue
        if kind.here is not None:
            found += await asyncio.to_thread(_listed, kind.here, settings, keep)
        elif kind.at_broker is not None and client is not None:
            with contextlib.suppress(NotFoundError):  # streams that nobody has made yet
                found += [item async for item in kind.at_broker(client, settings)]
    return found


def _listed(finder: Callable[[Settings, int], Iterator[Item]], *how: Any) -> list[Item]:
    return list(finder(*how))


async def remove(
    items: list[Item], *, left: Callable[[Item, OSError], None] = lambda _item, _error: None
) -> list[Item]:
    """Remove them; those that are gone. `left` hears of what cannot be removed, and why."""
    gone = []
    for item in items:
        try:
            await item.remove()
        except OSError as error:
            left(item, error)
            continue
        gone.append(item)
    return gone


async def _chunks(client: Client, settings: Settings) -> AsyncIterator[Item]:
    """Parts of bundles whose upload was broken off."""
    store = Store(client)
    for left in await store.orphans(before_us=times.now_us() - round(LEFT_S * 1e6)):

        async def gone(left: Chunks = left) -> None:
            await store.drop(left)

        yield Item(
            kind="chunks",
            name=left.nuid,
            size=left.size,
            at_us=left.last_us,
            why="no bundle in the object store is made of them",
            remove=gone,
        )


async def _consumers(client: Client, settings: Settings) -> AsyncIterator[Item]:
    """What profiles that were removed still have at the broker."""
    js = client.jetstream()
    gone = await _removed(client)
    known = await listing.consumers(js, EVENTS) if gone else {}
    positions = Positions(client)
    for name, version in gone.items():
        cursor, _ = await positions.cursor(name)
        if cursor is None and name not in known:
            continue
        if cursor is not None and cursor.at_us > version.at_us:
            continue  # another host decides for it still

        async def forget(name: str = name) -> None:
            latest = await versions.newest(client, name)
            if latest is None or latest.source is not None:
                return  # the profile has come back meanwhile
            await positions.forget(name)
            with contextlib.suppress(NotFoundError):
                await js.delete_consumer(EVENTS, name)

        yield Item(
            kind="consumers",
            name=name,
            size=0,
            at_us=version.at_us,
            why=f"profile {version.profile} was removed",
            remove=forget,
        )


async def _removed(client: Client) -> dict[str, Version]:
    """By consumer, the versions that say of a profile that it is gone, and are the newest here."""
    newest: dict[str, Version] = {}
    async for message in scan(client, VERSIONS):
        if SOURCED not in (message.headers or {}):  # a leaf's profiles have their places there
            version = msgspec.json.decode(message.data, type=Version)
            newest[version.consumer] = version
    return {name: version for name, version in newest.items() if version.source is None}


async def _work(client: Client, settings: Settings) -> AsyncIterator[Item]:
    """Working folders of runs that have ended here, or that the ledger has forgotten."""
    folders = {path.name: path for path in _dated(Path(paths.state_dir(), "work").glob("[!.]*"))}
    if not folders:
        return
    ended = {run.run_id: run.finished async for run in Ledger(client).runs()}
    for run_id, path in folders.items():
        if ended.get(run_id, True) and _age_s(path) > LEFT_S:
            why = "its run has ended" if run_id in ended else "no run of this id is known"
            yield _on_disk("work", path, why)


def _bundles(settings: Settings, keep: int) -> Iterator[Item]:
    """Bundles beyond `bundles.keep` and `bundles.max_bytes`."""
    limits = settings.bundles
    chosen = retention.choose(
        Path(paths.bundles_dir()), older_than_s=limits.keep, max_bytes=limits.max_bytes
    )
    for old in chosen:

        async def gone(old: retention.Old = old) -> None:
            if not await asyncio.to_thread(retention.remove, [old]):
                raise OSError(f"{old.folder} cannot be moved aside")

        yield Item(
            kind="bundles",
            name=str(old.folder),
            size=old.size,
            at_us=old.made_us,
            why={"old": "older than bundles.keep", "large": "beyond bundles.max_bytes"}[old.why],
            remove=gone,
        )


def _backups(settings: Settings, keep: int) -> Iterator[Item]:
    """Backups in the state folder beyond the newest, and those that were broken off."""
    kept = backup.kept()
    for path in kept[: max(0, len(kept) - keep)]:
        yield _on_disk("backups", path, f"{keep} newer ones are kept")
    for path in _dated(backup.folder().glob(".*.partial")):
        if _age_s(path) > LEFT_S:
            yield _on_disk("backups", path, "it was broken off")


def _logs(settings: Settings, keep: int) -> Iterator[Item]:
    """Logs that nothing has written to for a month."""
    for path in _dated(component.logs_dir().glob("*.log*")):
        if _age_s(path) > LOG_S:
            yield _on_disk("logs", path, "nothing has been written to it for a month")


def _replaced(settings: Settings, keep: int) -> Iterator[Item]:
    """What was here before a backup was put back: streams and evidence among it."""
    for path in _dated(Path(paths.state_dir()).glob(f"{restore.REPLACED}*")):
        yield _on_disk("replaced", path, "a backup was put in its place")


#: In the order in which they are shown.
KINDS: Final = (
    Kind(
        name="chunks",
        what="parts of shared bundles whose upload was broken off",
        at_broker=_chunks,
    ),
    Kind(
        name="consumers",
        what="consumers and positions of profiles that were removed",
        at_broker=_consumers,
    ),
    Kind(name="work", what="working folders of runs that have ended", at_broker=_work),
    Kind(name="bundles", what="bundles beyond bundles.keep and bundles.max_bytes", here=_bundles),
    Kind(name="backups", what="backups beyond the newest --keep, and broken ones", here=_backups),
    Kind(name="logs", what="logs that nothing has written to for a month", here=_logs),
    Kind(name="replaced", what="what a restore has set aside", asked=True, here=_replaced),
)


def _on_disk(kind: str, path: Path, why: str) -> Item:
    async def gone() -> None:
        if path.is_dir():
            await asyncio.to_thread(shutil.rmtree, path)
        else:
            path.unlink(missing_ok=True)

    return Item(
        kind=kind,
        name=str(path),
        size=_size(path),
        at_us=round(path.stat().st_mtime * 1e6),
        why=why,
        remove=gone,
    )


def _dated(found: Iterator[Path]) -> list[Path]:
    """The oldest first; what has gone since it was listed is left out."""
    dated = []
    for path in found:
        with contextlib.suppress(FileNotFoundError):
            dated.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(dated)]


def _age_s(path: Path) -> float:
    """Seconds since anything in it was written."""
    newest = max((one.lstat().st_mtime for one in (path, *path.rglob("*"))), default=0.0)
    return times.now_us() / 1e6 - newest


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(one.lstat().st_size for one in path.rglob("*") if not one.is_dir())
