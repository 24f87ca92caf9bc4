"""Which bundles of this host go, and their removal. The oldest go first; the newest one stays."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opsmesh.handlers.bundles import folders
from opsmesh.schemas import times

#: Seconds after which what a killed process has left half done is nobody's any more.
LEFT_S: Final = 86400.0
#: Where bundles of other hosts are kept once they were fetched.
FETCHED: Final = ".fetched"


@dataclass(frozen=True, kw_only=True)
class Old:
    """A bundle on disk: its folder, its bytes there, when it was made, and why it goes."""

    folder: Path
    size: int
    made_us: int
    why: str = ""


def choose(
    bundles: Path,
    *,
    older_than_s: float | None = None,
    keep: int | None = None,
    max_bytes: int | None = None,
    now_us: int | None = None,
) -> list[Old]:
    """What would go: what is older, what is beyond the newest `keep`, and the oldest of what is
    beyond `max_bytes` together. Fetched ones count like our own."""
    now_us = times.now_us() if now_us is None else now_us
    found = sorted(_all(bundles), key=lambda old: old.made_us, reverse=True)
    gone, total = [], 0
    for number, old in enumerate(found):
        total += old.size
        why = ""
        if older_than_s is not None and old.made_us < now_us - older_than_s * 1e6:
            why = "old"
        elif keep is not None and number >= keep:
            why = "many"
        elif max_bytes is not None and total > max_bytes and number:
            why = "large"
        if why:
            total -= old.size
            gone.append(Old(folder=old.folder, size=old.size, made_us=old.made_us, why=why))
    return gone[::-1]


def remove(chosen: Sequence[Old]) -> list[Old]:
    """Remove them; those that are gone. A name that does not begin with a dot stays whole: a
    bundle is moved aside first."""
    gone = []
    for old in chosen:
        aside = old.folder.with_name(f".{old.folder.name}.gone")
        try:
            old.folder.rename(aside)
        except OSError:
            continue
        shutil.rmtree(aside, ignore_errors=True)
        for mark in ("shared", "shared-hub"):
            old.folder.with_name(f".{old.folder.name}.{mark}").unlink(missing_ok=True)
        gone.append(old)
        with contextlib.suppress(OSError):  # others of that day are there still
            old.folder.parent.rmdir()
    return gone


def clear(bundles: Path, *, older_than_s: float, max_bytes: int) -> list[Old]:
    """Remove what the settings let go, and what was never finished."""
    _sweep(bundles, times.now_us() - round(LEFT_S * 1e6))
    return remove(choose(bundles, older_than_s=older_than_s, max_bytes=max_bytes))


def _sweep(bundles: Path, before_us: int) -> None:
    """Remove folders that were written aside and never put in their place."""
    for place in (*bundles.glob("????-??-??"), bundles / FETCHED):
        for folder in place.glob(".*"):
            with contextlib.suppress(OSError):
                if folder.is_dir() and folder.lstat().st_mtime_ns // 1000 < before_us:
                    shutil.rmtree(folder, ignore_errors=True)
    for packed in bundles.glob(".pack-*"):
        with contextlib.suppress(OSError):
            if packed.lstat().st_mtime_ns // 1000 < before_us:
                packed.unlink()


def _all(bundles: Path) -> list[Old]:
    fetched = bundles / FETCHED
    places = list(folders.newest(bundles))
    with contextlib.suppress(OSError):
        places += [one for one in fetched.iterdir() if not one.name.startswith(".")]
    found = []
    for folder in places:
        try:
            size = sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))
            made = folder.stat().st_mtime_ns // 1000
        except OSError:
            continue
        found.append(Old(folder=folder, size=size, made_us=made))
    return found
