"""Files that are their owner's alone, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from opsmesh.router import paths


def write_private(path: Path, data: bytes) -> None:
    """Replace the file (0600); after a power cut it holds the old bytes or the new ones."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace the folder (0700) by one that holds these files and nothing else."""
    new, old = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    paths.private_dir(str(new))
    for name, data in contents.items():
        write_private(new / name, data)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
