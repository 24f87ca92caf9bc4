"""The folder the shells write to: a file for each shell, and a next one when that is full.

No line may be lost while a shell writes, so a file is removed only when nobody will write to it
again: its shell has gone on to the next one, or is no more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from opsmesh.router import paths

#: `<shell>-<pid>-<when it began>.<n>.jsonl`, as the hooks name it.
NAME: Final = re.compile(r"(bash|zsh|fish)-(\d{1,10})-\d{1,24}\.(\d{1,9})\.jsonl")
#: What the hooks jot on; it holds nothing once they are done.
SCRATCH: Final = re.compile(r"\.(?:bash|fish)-(\d{1,10})")
#: Bytes that are read at once, and the longest line that is one: a hook's is shorter by far.
BLOCK: Final = 1 << 18


class Line(NamedTuple):
    """A whole line, where it was found, and where the next one begins."""

    file: str
    shell: str
    at: int
    next: int
    text: bytes


def folder() -> Path:
    """Where it is; the hooks know the same rule."""
    return Path(paths.state_dir(), "producers", "shell", "inbox")


def files(place: Path) -> list[tuple[str, re.Match[str]]]:
    """The shells' files, each shell's in their order."""
    found = [(path.name, NAME.fullmatch(path.name)) for path in place.iterdir()]
    ours = [(name, match) for name, match in found if match]
    return sorted(ours, key=lambda item: (item[0].split(".")[0], int(item[1][3])))


def lines(place: Path, offsets: Mapping[str, int]) -> Iterator[Line]:
    """Every whole line that lies behind its file's offset; empty ones are left out."""
    for name, match in files(place):
        at = offsets.get(name, 0)
        try:
            with _opened(place / name) as file:
                size = os.fstat(file.fileno()).st_size
                at = at if at <= size else 0  # not the file we knew
                file.seek(at)
                while block := file.read(BLOCK):
                    whole = block.rfind(b"\n") + 1
                    if not whole:
                        if len(block) < BLOCK:
                            break  # the shell is still at it, or was killed in the middle
                        whole = len(block)  # no hook writes this
                    start = 0
                    for text in block[:whole].splitlines(keepends=True):
                        start += len(text)
                        if text.strip():
                            yield Line(name, match[1], at + start - len(text), at + start, text)
                    at += whole
                    file.seek(at)
        except OSError:
            continue  # gone, unreadable, or no plain file


def _opened(path: Path) -> BinaryIO:
    # no link and no pipe that somebody has put there
    return os.fdopen(
        os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
    )


def tidy(place: Path, offsets: Mapping[str, int]) -> list[str]:
    """Remove what was read to its end and will not be written again; the names that are left."""
    known = files(place)
    last = {name.split(".")[0]: name for name, _ in known}
    left = []
    for name, match in known:
        path = place / name
        # First whether the shell is there, then the size: what it wrote before it went is counted.
        done = last[name.split(".")[0]] != name or not alive(int(match[2]))
        try:
            if done and _read_to_the_end(path, offsets.get(name, 0)):
                path.unlink()
                continue
        except OSError:
            pass
        left.append(name)
    for path in list(place.iterdir()):
        scratch = SCRATCH.fullmatch(path.name)
        if scratch and not alive(int(scratch[1])):
            path.unlink(missing_ok=True)
    return left


def _read_to_the_end(path: Path, offset: int) -> bool:
    """Whether no whole line is left; a cut one of a shell that is no more never becomes whole."""
    with _opened(path) as file:
        file.seek(offset)
        return b"\n" not in file.read(BLOCK).strip(b"\n")


def alive(pid: int) -> bool:
    """Whether a process has this number; another one may have it by now, which only means that a
    file is kept for longer."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
