"""`disk`: how full the file systems are, in bytes and in inodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors.contract import Piece, Request, said, why
from opsmesh.handlers.collectors.subject import checked_path

#: df(1) --output: what is asked for, and as what it is told.
COLUMNS: Final = "source,fstype,size,used,avail,pcent,itotal,iused,iavail,ipcent,target"
#: Percent from which a file system counts as full.
FULL: Final = 95


class DiskSpec(Spec):
    """Which paths; the event's workspace, home, /, /tmp and /var unless given."""

    paths: Annotated[list[Text], Field(max_length=50)] = Field(default_factory=list)


class Disk:
    """What `df` says. It is a program of its own: a file system that does not answer stops it, and
    not the handlers."""

    key: ClassVar[str] = "disk"
    spec: ClassVar[type[DiskSpec]] = DiskSpec

    def __init__(self, spec: DiskSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        if self._spec.paths:
            texts = [str(Path(request.render(text)).expanduser()) for text in self._spec.paths]
        else:
            workspace = request.ctx.event.workspace
            home = request.env.get("HOME", "")
            texts = [text for text in (workspace, home) if text.startswith("/")]
            texts += ["/", "/tmp", "/var"]  # noqa: S108 (looked at, not written to)
        paths = list(dict.fromkeys(checked_path(text) for text in texts))
        argv = ["df", "--block-size=1K", f"--output={COLUMNS}", "--", *paths]
        ended = await request.run(argv)
        file_systems = _read(ended.stdout_tail)
        full = [one["target"] for one in file_systems if max(one["used"], one["inodes"]) >= FULL]
        return [
            request.piece(
                _once(said(ended)),
                command=tuple(argv),
                exit_code=ended.exit_code,
                error=why(ended, request.timeout_s),
                facts={"file_systems": file_systems, "full": full},
            )
        ]


def _once(data: bytes) -> bytes:
    """Each line once: two paths may be on one file system."""
    return b"".join(dict.fromkeys(data.splitlines(keepends=True)))


def _read(text: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines()[1:]:
        fields = line.split(maxsplit=10)
        if len(fields) == 11:
            found[fields[10]] = {
                "target": fields[10],
                "type": fields[1],
                "available_kib": int(fields[4]) if fields[4].isdigit() else None,
                "used": _percent(fields[5]),
                "inodes": _percent(fields[9]),
            }
    return list(found.values())


def _percent(text: str) -> int:
    number = text.removesuffix("%")
    return int(number) if number.isdigit() else 0
