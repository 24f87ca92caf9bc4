"""A component's figures on a UNIX socket of its own: who connects gets all of them, and the end.

The one rule: the socket is for its owner alone, and a component without it works as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from opsmesh.router import paths
from opsmesh.router.client import with_address
from opsmesh.router.metrics.book import Book, Figure

#: The folder of the sockets, in the runtime folder.
FOLDER: Final = "metrics"
#: How each socket is called after its component.
SUFFIX: Final = ".sock"
#: Seconds for one component to tell its figures.
PATIENCE: Final = 2.0

log = structlog.get_logger()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one component says."""

    component: str
    pid: int
    figures: list[Figure]


def folder() -> Path:
    """Where the sockets lie."""
    return Path(paths.runtime_dir(), FOLDER)


@contextlib.asynccontextmanager
async def told(component: str, book: Book) -> AsyncIterator[None]:
    """While the body runs, whoever connects is told what the book has."""
    path = folder() / f"{component.replace(':', '-').replace('/', '_')}{SUFFIX}"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            report = Report(component=component, pid=os.getpid(), figures=book.report())
            writer.write(msgspec.json.encode(report))
            await writer.drain()
        writer.close()

    try:
        server = await _listen(path, answer)
    except OSError as error:
        log.warning("metrics.not_told", error=str(error), path=str(path))
        yield
        return
    inode = path.stat().st_ino
    try:
        yield
    finally:
        server.close()
        with contextlib.suppress(OSError):  # a later process of that name may have taken the place
            if path.stat().st_ino == inode:
                path.unlink()


async def _listen(
    path: Path, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> asyncio.Server:
    paths.private_dir(str(path.parent))
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        with_address(str(path), listener.bind)
        path.chmod(0o600)
        listener.setblocking(False)
        return await asyncio.start_unix_server(answer, sock=listener)
    except BaseException:
        listener.close()
        raise


async def reports() -> list[Report]:
    """What every component of this mesh that runs says; who does not answer is left out."""
    try:
        sockets = sorted(folder().glob(f"*{SUFFIX}"))
    except OSError:
        return []
    found = await asyncio.gather(*(_ask(path) for path in sockets))
    return [report for report in found if report is not None]


async def _ask(path: Path) -> Report | None:
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(sock=_connected(path))
            try:
                return msgspec.json.decode(await reader.read(-1), type=Report)
            finally:
                writer.close()
    except (OSError, TimeoutError, msgspec.DecodeError):
        return None


def _connected(path: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.setblocking(False)
    try:
        with_address(str(path), one.connect)
    except BaseException:
        one.close()
        raise
    return one
