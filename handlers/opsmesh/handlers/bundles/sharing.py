"""Gives this host's bundles to the others, in the background of the handlers process.

On a leaf that is the one at the hub: the host's own broker is for nobody else.

What is to be done is read from the folders, never remembered: a bundle without a mark beside it has
not been given away. So a restart, a broker that was away and a bundle that another process made are
the same case. One process of a host shares at a time, for a bundle has one place in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import structlog
import watchfiles
from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.handlers.bundles import archive, folders, retention
from opsmesh.handlers.bundles.archive import BadBundle
from opsmesh.handlers.bundles.store import MAX_ARCHIVE, Store
from opsmesh.router import paths, tasks
from opsmesh.router.errors import PermissionDenied
from opsmesh.router.settings import Bundles
from opsmesh.schemas import times

#: Seconds until it is tried again after the broker did not answer: doubled up to the second one.
RETRY_S: Final = 5.0
RETRY_MAX_S: Final = 300.0
#: Seconds after which the folders are looked at also when nobody told of a bundle: another process
#: (`opsmesh replay`) may have made one, and old ones are to go.
LOOK_S: Final = 3600.0
#: Whose object store: that of the broker which the host works with, or of the hub that it joined.
StoreOf = Literal["own", "hub"]
#: The end of the name of the mark that says so.
MARKS: Final[dict[StoreOf, str]] = {"own": "shared", "hub": "shared-hub"}
#: Bundles that are looked at for one that is not shared, the newest first.
MOST: Final = 2000

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A bundle that is to be shared."""

    folder: Path
    manifest: dict[str, Any]


class Sharing:
    """The task of one handlers process. `bundled` is set when there is a new bundle; with no
    `store` nothing is shared, and what is too old is removed."""

    def __init__(
        self,
        client: Client,
        settings: Bundles,
        bundles: Path,
        bundled: asyncio.Event,
        *,
        store: StoreOf | None = "own",
    ) -> None:
        self._store = Store(client)
        self._whose = store
        self._settings = settings
        self._bundles = bundles
        self._bundled = bundled

    async def run(self) -> None:
        """Share what is not shared, and remove what is too old, for ever."""
        watching = asyncio.create_task(self._watch()) if self._whose == "hub" else None
        try:
            await self._run()
        finally:
            if watching is not None:
                await tasks.end([watching])

    async def _watch(self) -> None:
        """Hear of bundles that the host's other handlers make."""
        await asyncio.to_thread(paths.private_dir, str(self._bundles))
        async for _ in watchfiles.awatch(self._bundles, watch_filter=_is_no_mark):
            self._bundled.set()

    async def _run(self) -> None:
        delay = RETRY_S
        while True:
            self._bundled.clear()
            try:
                alone = await self.once() is not None
                delay, wait = RETRY_S, LOOK_S if alone else RETRY_MAX_S
            except PermissionDenied as error:  # they stay on this host
                log.warning("bundles.not_shared", error=str(error))
                wait = LOOK_S
            except (NatsError, OSError, TimeoutError) as error:
                log.warning("bundles.not_shared", error=f"{type(error).__name__}: {error}")
                wait, delay = delay, min(2 * delay, RETRY_MAX_S)
            except Exception:  # a folder that nobody foresaw costs no other bundle
                log.exception("bundles.not_shared")
                wait, delay = delay, min(2 * delay, RETRY_MAX_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._bundled.wait()

    async def once(self) -> int | None:
        """Share all that waits, and remove what is too old; how many were shared, None while
        another process of this host is at it."""
        if not await asyncio.to_thread(self._bundles.is_dir):
            return 0
        shared = 0
        with alone(self._bundles) as mine:
            if not mine:
                return None
            if self._settings.share and self._whose is not None:
                whose = self._whose
                for one in await asyncio.to_thread(waiting, self._bundles, self._settings, whose):
                    shared += await self._share(one, MARKS[whose])
            gone = await asyncio.to_thread(
                retention.clear,
                self._bundles,
                older_than_s=self._settings.keep,
                max_bytes=self._settings.max_bytes,
            )
            if gone:
                log.info("bundles.removed", count=len(gone))
        return shared

    async def _share(self, one: Waiting, end: str) -> bool:
        with tempfile.NamedTemporaryFile(prefix=".pack-", dir=self._bundles) as packed:
            path = Path(packed.name)
            try:
                bundle_id = await asyncio.to_thread(_pack, one.folder, path)
            except BadBundle as error:
                # evidence that was changed is not given away as if it were none
                log.warning("bundle.refused", folder=str(one.folder), error=str(error))
                await asyncio.to_thread(_note, one.folder, end, "refused")
                return False
            except OSError as error:  # it was removed meanwhile, or the disk is full: another time
                log.warning("bundle.not_packed", folder=str(one.folder), error=str(error))
                return False
            size = path.stat().st_size
            if size > MAX_ARCHIVE:
                log.warning("bundle.too_large", folder=str(one.folder), bytes=size)
                await asyncio.to_thread(_note, one.folder, end, "too large")
                return False
            if removed := await self._store.make_room(size):
                log.warning("bundles.made_room", removed=removed)
            await self._store.put(path, bundle_id, one.manifest)
            await asyncio.to_thread(_note, one.folder, end, bundle_id)
            log.info("bundle.shared", bundle=bundle_id[:12], bytes=size, folder=one.folder.name)
            return True


def mark(folder: Path, end: str = MARKS["own"]) -> Path:
    """The file beside a bundle that says that it has been shared."""
    return folder.with_name(f".{folder.name}.{end}")


def waiting(bundles: Path, settings: Bundles, store: StoreOf = "own") -> list[Waiting]:
    """The bundles that are to be shared, the oldest first."""
    since_us = times.now_us() - round(settings.shared_age * 1e6)
    found = []
    for folder in folders.newest(bundles, limit=MOST):
        if mark(folder, MARKS[store]).exists():
            continue
        manifest = folders.read_manifest(folder)
        if not manifest or manifest.get("share") is False or "version" not in manifest:
            continue
        with contextlib.suppress(ValueError):
            if times.parse_us(str(manifest.get("created_utc"))) >= since_us:
                found.append(Waiting(folder=folder, manifest=manifest))
    return found[::-1]


@contextlib.contextmanager
def alone(bundles: Path) -> Iterator[bool]:
    """Whether this process is the one that shares; another one does not wait."""
    descriptor = os.open(bundles / ".sharing.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _pack(folder: Path, path: Path) -> str:
    with path.open("wb") as target:
        return archive.pack(folder, target)


def _note(folder: Path, end: str, text: str) -> None:
    mark(folder, end).write_text(f"{text}\n")


def _is_no_mark(_: watchfiles.Change, path: str) -> bool:
    # what is packed, marked and locked here has a dot; a bundle comes to its name as a whole
    return not Path(path).name.startswith(".")
