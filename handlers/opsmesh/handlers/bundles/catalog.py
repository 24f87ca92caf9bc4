"""Which bundles there are: on this host, fetched from others, and in the object store.

A bundle is named by the beginning of its id or of its run's, or by its folder. What an object says
of a bundle is its host's word; what is fetched is checked against the id before anything is shown.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from opsmesh.handlers.bundles import archive, folders
from opsmesh.handlers.bundles.folders import MANIFEST
from opsmesh.handlers.bundles.retention import FETCHED
from opsmesh.handlers.bundles.store import TOLD, Object, Store
from opsmesh.handlers.errors import HandlersError
from opsmesh.schemas import times

#: Characters of an id that are enough to name a bundle.
LEAST: Final = 4

Where = Literal["here", "fetched", "shared"]


class NoSuchBundle(HandlersError):
    """No bundle, or more than one, is named so."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A bundle that is known of: by its manifest, or by what its object tells."""

    bundle_id: str
    where: Where
    told: dict[str, Any]
    folder: Path | None = None
    stored: Object | None = field(default=None, compare=False)

    @property
    def made_us(self) -> int:
        """When it was made; 0 where that is no time."""
        with contextlib.suppress(ValueError):
            return times.parse_us(str(self.told.get("created_utc") or ""))
        return 0

    def named(self, text: str) -> bool:
        """Whether the text is the beginning of its id or its run's."""
        return len(text) >= LEAST and (
            self.bundle_id.startswith(text) or str(self.told.get("run_id") or "").startswith(text)
        )


def local(bundles: Path) -> Iterator[Known]:
    """Those on this host, the newest first; a folder whose manifest cannot be read is none."""
    for folder in folders.newest(bundles):
        if (known := _known(folder, "here")) is not None:
            yield known
    with contextlib.suppress(OSError):
        for folder in sorted((bundles / FETCHED).iterdir()):
            if not folder.name.startswith("."):
                known = _known(folder, "fetched")
                if known is not None:
                    yield known


def merged(ours: Iterable[Known], objects: Sequence[Object]) -> list[Known]:
    """Each bundle once, the newest first; of one that is here too, the one that is here."""
    found = {known.bundle_id: known for known in ours}
    for one in objects:
        if one.bundle_id not in found:
            found[one.bundle_id] = Known(
                bundle_id=one.bundle_id, where="shared", told=dict(one.told), stored=one
            )
    return sorted(found.values(), key=lambda known: known.made_us, reverse=True)


def choose(known: Iterable[Known], text: str) -> Known:
    """The one that is named so; NoSuchBundle when there is none or more than one."""
    found = {one.bundle_id: one for one in known if one.named(text)}
    if not found:
        few = "" if len(text) >= LEAST else f"; write {LEAST} characters of the id at least"
        raise NoSuchBundle(f"no bundle {text!r} is known{few}")
    if len(found) > 1:
        ids = ", ".join(
            f"{one.bundle_id[:12]} ({one.told.get('step')!r})" for one in found.values()
        )
        raise NoSuchBundle(f"{len(found)} bundles are named {text!r}: {ids}")
    return next(iter(found.values()))


def of_folder(folder: Path) -> Known:
    """A bundle by its folder, wherever it lies."""
    known = _known(folder, "here")
    if known is None:
        raise NoSuchBundle(f"{folder} holds no {MANIFEST} that can be read")
    return known


async def fetch(known: Known, bundles: Path, store: Store) -> Path:
    """The bundle's folder on this host; BadBundle when what comes is not the bundle."""
    if known.folder is not None:
        return known.folder
    if known.stored is None:
        raise NoSuchBundle(f"bundle {known.bundle_id[:12]} is not in the object store")
    target = bundles / FETCHED / known.bundle_id
    if target.is_dir():
        return target
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target.parent) as packed:
        await store.fetch(known.stored, packed)
        packed.seek(0)
        archive.unpack(packed, target, expect=known.bundle_id)
    return target


def _known(folder: Path, where: Where) -> Known | None:
    manifest = folders.read_manifest(folder)
    if not manifest:
        return None
    told = {key: manifest.get(key) for key in TOLD}
    return Known(bundle_id=folders.bundle_id(folder), where=where, told=told, folder=folder)
