"""`file`: a file of this machine; of one that is larger than the limit, its end."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import RootModel

from opsmesh.handlers import beneath
from opsmesh.handlers.actions.spec import Text
from opsmesh.handlers.collectors.contract import Piece, Request
from opsmesh.handlers.template import Template


class FileSpec(RootModel[Text]):
    """The path; one that is relative is within the event's workspace."""


class FileCopy:
    """The file's end."""

    key: ClassVar[str] = "file"
    spec: ClassVar[type[FileSpec]] = FileSpec

    def __init__(self, spec: FileSpec) -> None:
        self._path = spec.root

    async def collect(self, request: Request) -> Sequence[Piece]:
        text = request.render(self._path)
        try:
            path = Path(request.ctx.event.workspace or "/", Path(text).expanduser())
            beneath.checked(path, Template(self._path))
            name = request.name or path.name or "file"
            data, size = await asyncio.to_thread(read_end, path, request.max_bytes)
        except (OSError, ValueError, RuntimeError) as error:
            name = request.name or Path(text).name or "file"
            reason = f"{text}: {getattr(error, 'strerror', None) or error}"
            return [request.piece(None, name=name, path=text, error=reason)]
        return [request.piece(data, name=name, path=str(path), truncated=size > len(data))]


def read_end(path: Path, limit: int) -> tuple[bytes, int]:
    """The last `limit` bytes of a regular file, and its length."""
    # O_NONBLOCK: opening a named pipe would wait for its other end
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("not a regular file")
        file.seek(max(0, facts.st_size - limit))
        data = file.read(limit)
        return data, max(facts.st_size, len(data))
