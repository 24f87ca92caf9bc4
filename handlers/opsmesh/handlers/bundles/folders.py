"""Where bundles lie: `<bundles>/<date>/<run id>-<step>[.<n>]/`, each with a manifest.

A folder whose name does not begin with a dot is whole: it was written aside, fsynced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

#: What is in every bundle: its manifest, and the event as it was stored, without its secrets.
MANIFEST: Final = "manifest.json"
EVENT: Final = "event.json"
REPORT: Final = "report.md"
#: Bytes of a manifest that are read; no bundle of ours has a longer one.
MAX_MANIFEST: Final = 8 * 2**20

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def safe(name: str) -> str:
    """The name as that of a file: no separators, not hidden, not long."""
    return _UNSAFE.sub("_", name)[:96].lstrip(".") or "file"


def newest(bundles: Path, *, limit: int | None = None) -> Iterator[Path]:
    """The folders of whole bundles, the newest first, as their names say."""
    count = 0
    for day in sorted(_days(bundles), reverse=True):
        try:
            names = sorted((e.name for e in os.scandir(day) if _whole(e)), reverse=True)
        except OSError:
            continue
        for name in names:
            if limit is not None and count >= limit:
                return
            count += 1
            yield day / name


def read_manifest(folder: Path) -> dict[str, Any]:
    """The bundle's manifest; an empty one when it cannot be read."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            found = json.loads(file.read(MAX_MANIFEST))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def bundle_id(folder: Path) -> str:
    """The bundle's id: the hash of its manifest, which has the hashes of all its files."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def _days(bundles: Path) -> list[Path]:
    try:
        return [bundles / e.name for e in os.scandir(bundles) if _DAY.fullmatch(e.name)]
    except OSError:
        return []


def _whole(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
