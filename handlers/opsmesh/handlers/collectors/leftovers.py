"""`config_leftovers`: configuration files that a package manager did not dare to replace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.schemas import times

#: pacman(8), "Handling config files"; dpkg(1) --force-confold; ucf(1).
SUFFIXES: Final = (".pacnew", ".pacsave", ".dpkg-new", ".dpkg-dist", ".dpkg-old", ".ucf-dist")
#: Files that are looked at, and found ones that are told.
MAX_FILES: Final = 100_000
FACTS: Final = 50
#: A file that is so many seconds older than the event came with its transaction.
RECENT_S: Final = 3600.0


class ConfigLeftoversSpec(Spec):
    """Which folders."""

    folders: Annotated[list[Text], Field(min_length=1, max_length=50)] = Field(
        default_factory=lambda: ["/etc"]
    )


class ConfigLeftovers:
    """The files, those of the last hour first."""

    key: ClassVar[str] = "config_leftovers"
    spec: ClassVar[type[ConfigLeftoversSpec]] = ConfigLeftoversSpec

    def __init__(self, spec: ConfigLeftoversSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        folders = [Path(request.render(one)).expanduser() for one in self._spec.folders]
        if not all(folder.is_absolute() for folder in folders):
            raise Unavailable("folders are absolute paths")
        since_us = request.ctx.event.ts_us - round(RECENT_S * 1e6)
        found = await asyncio.to_thread(lambda: sorted(_found(folders), reverse=True))
        new = [path for at_us, path in found if at_us >= since_us]
        lines = [
            f"{'new  ' if at_us >= since_us else 'older'}  {times.format_us(at_us)}  {path}\n"
            for at_us, path in found
        ]
        facts = {"count": len(found), "new": new[:FACTS]}
        return [request.piece("".join(lines) or "none\n", facts=facts)]


def _found(folders: Sequence[Path]) -> Iterator[tuple[int, str]]:
    """When each came to its place, and its path. Its content's time is the package's."""
    looked = 0
    for folder in folders:
        for base, _, names in os.walk(folder):
            for name in names:
                looked += 1
                if looked > MAX_FILES:
                    return
                if name.endswith(SUFFIXES):
                    path = os.path.join(base, name)  # noqa: PTH118 (many, and texts already)
                    try:
                        yield os.lstat(path).st_ctime_ns // 1000, path
                    except OSError:
                        continue
