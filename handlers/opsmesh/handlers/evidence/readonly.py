"""The archive's files as DuckDB sees them: they can be read, and nothing else.

DuckDB's own file access knows no difference between reading and writing: what a question may read,
`COPY … TO` may overwrite, also hidden in a WITH clause. So the archive is handed over as a file
system of ours that has no way to write, and DuckDB's own is switched off (ADR 0014).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

#: The scheme of the archive's paths: `evidence://2026/11/23-000001-EVENTS-000000000001.jsonl`.
SCHEME: Final = "evidence"

Progress = Callable[[int], None]


def url(name: str) -> str:
    """How DuckDB names the file of this name below the archive's folder."""
    return f"{SCHEME}://{name}"


def filesystem(folder: Path, names: Iterable[str], *, progress: Progress | None = None) -> Any:
    """An fsspec file system that holds these files of `folder`; `progress` hears of bytes read.

    ImportError without fsspec, which DuckDB needs for a file system of somebody else's.
    """
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

    held = {url(name): folder / name for name in names}

    class Archive(AbstractFileSystem):  # type: ignore[misc]
        protocol = SCHEME
        cachable = False

        def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
            if mode != "rb" or path not in held:
                raise PermissionError("the archive is only read")
            try:
                return _Reading(held[path], progress)
            except FileNotFoundError as error:
                raise _changed(path) from error

        def glob(self, path: str, **_: Any) -> list[str]:
            return [path] if path in held else []

        def exists(self, path: str, **_: Any) -> bool:
            return path in held

        isfile = exists

        def size(self, path: str) -> int:
            try:
                return held[path].stat().st_size
            except FileNotFoundError as error:
                raise _changed(path) from error

    return Archive()


def _changed(path: str) -> OSError:
    return OSError(f"{path} was sealed or moved meanwhile; ask again")


class _Reading(io.FileIO):
    """One open file that tells how much was read of it."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        super().__init__(path, "rb")
        self._progress = progress

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        """Bytes from where it stands."""
        data = super().read(-1 if size is None else size)
        if self._progress is not None and data:
            self._progress(len(data))
        return data
