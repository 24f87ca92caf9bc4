"""VS Code's logs: what they say of extensions that cannot be activated, and of a host's end.

Seen in code-server 4.139.1, which has VS Code's server; what the desktop writes is from its sources
(vs/platform/extensions/electron-main/extensionHostStarter.ts). Pure but for `Tail` and `end_of`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

#: Logs of an extension host, in its own folder; the second is a server's.
OF_HOST: Final = ("exthost.log", "remoteexthost.log")
#: Logs that tell of a host's end, seen from that folder.
OF_ENDS: Final = (
    "../remoteagent.log",
    "../../remoteagent.log",
    "../../main.log",
    "../renderer.log",
)
#: Bytes that are read at once, and at a log's end.
CHUNK: Final = 1024 * 1024
#: Characters kept of an error.
LONGEST: Final = 2000
#: Signals by which an editor, a session or a machine ends its processes.
ORDERLY: Final = frozenset({"SIGTERM", "SIGINT", "SIGHUP"})
#: Exit codes of a process that was asked to end: its own, and SIGTERM as Electron (the number of
#: the signal, and no signal) and a shell have it.
ASKED: Final = frozenset({0, 15, 143})

_FAILED: Final = re.compile(
    rb"([\d-]+ [\d:.]+) \[error\] Activating extension '?([\w.-]+)'? failed due to an error:"
)
_NEXT: Final = re.compile(rb"[\d-]+ [\d:.]+ \[error\] (.*)")
_HEAD: Final = re.compile(rb"[\d-]+ [\d:.]+ \[\w+\] ")
_END: Final = re.compile(
    r"(?:exited|terminated unexpectedly|crashed).*?code:? ?(?P<code>-?\d+|null|undefined)"
    r"(?:.*?signal:? ?(?P<signal>\w+))?",
    re.IGNORECASE,
)
#: What is said for an end that has no signal.
_NONE: Final = frozenset({"null", "unknown", "undefined"})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An extension that could not be activated; `offset`: where its log says so."""

    extension: str
    message: str
    offset: int
    at_us: int


@dataclass(frozen=True, kw_only=True)
class End:
    """How a host's process ended, as a log has it."""

    text: str
    exit_code: int | None
    signal: str | None
    path: Path

    @property
    def orderly(self) -> bool:
        """Whether it was asked to end."""
        return self.signal in ORDERLY or (self.signal is None and self.exit_code in ASKED)


@dataclass
class Tail:
    """A log that grows; `identity` is its inode: another file under its name is read from its
    start."""

    path: Path
    identity: int = 0
    offset: int = 0
    #: Whether a failure was seen whose error has not been written yet.
    pending: bool = False

    def read(self, *, last: bool = False) -> list[Failure]:
        """Failures in what is new. One whose error has not been written yet waits for the next
        call, unless this is the `last`."""
        self.pending = False
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self.identity or status.st_size < self.offset:
                    self.identity, self.offset = status.st_ino, 0
                file.seek(self.offset)
                data = file.read(CHUNK)
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) == CHUNK:
            whole = data  # a line without an end is none of what we look for
        found, taken = failures(whole, self.offset, last=last)
        self.pending = taken < len(whole)
        self.offset += taken
        return found


def failures(data: bytes, offset: int, *, last: bool) -> tuple[list[Failure], int]:
    """The failures in whole lines that begin at `offset` of a log, and how many bytes are done."""
    found: list[Failure] = []
    for match in _FAILED.finditer(data):
        rest = data[match.end() :].lstrip(b"\r").removeprefix(b"\n")
        if not rest and not last:
            return found, match.start()
        text = _NEXT.match(rest)
        message = text[1] if text else match[0].split(b"] ", 1)[1].rstrip(b":")
        found.append(
            Failure(
                extension=match[2].decode(),
                message=message.decode("utf-8", "replace")[:LONGEST],
                offset=offset + match.start(),
                at_us=_time(match[1].decode()),
            )
        )
    return found, len(data)


def end_of(pid: int, folder: Path) -> End | None:
    """What a log says of this process's end, the newest; None when none does."""
    named = re.compile(rf"(?:<{pid}>|\bpid:? ?{pid}\b)")
    for path in (folder / name for name in OF_ENDS):
        for line in reversed(_last_lines(path)):
            if named.search(line) and (found := _END.search(line)):
                code, signal = found["code"], found["signal"]
                return End(
                    text=_HEAD.sub(b"", line.encode()).decode().strip()[:LONGEST],
                    exit_code=int(code) if code.lstrip("-").isdecimal() else None,
                    signal=None if signal is None or signal.lower() in _NONE else signal,
                    path=Path(os.path.normpath(path)),
                )
    return None


def end_logs(folder: Path) -> Iterator[Path]:
    """Where a host's end may be told."""
    return (Path(os.path.normpath(folder / name)) for name in OF_ENDS)


def _last_lines(path: Path) -> Sequence[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - CHUNK))
            return file.read(CHUNK).decode("utf-8", "replace").splitlines()
    except OSError:
        return ()


def _time(text: str) -> int:
    """A log's time, which is local."""
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1_000_000)
    except ValueError:
        return 0
