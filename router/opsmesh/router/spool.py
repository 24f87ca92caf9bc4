"""The spool: events that the broker has not acknowledged yet, as a folder of small whole files.

The one rule: what `write` returned for is on disk. A file is there whole or not at all, its name
gives its place in the order, and a damaged record never spoils its neighbours (ADR 0002).
Standard library's smallest parts only: `opsmesh emit` imports this module.
"""

from __future__ import annotations

import os
import time
from binascii import crc32

from opsmesh.router import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: How the name of a file that waits to be sent ends.
SUFFIX = ".spool"
#: The folder, inside the spool, for records whose checksum is wrong.
CORRUPT = "corrupt"
#: Seconds after which an unfinished file was certainly left behind by a process that died.
UNFINISHED_AGE = 3600.0

_written = 0
_last_ns = 0


def write(spool_dir: str, lines: Sequence[bytes]) -> str:
    """Put events, one JSON object each, into one new file; its path, once it is on disk.

    OSError when it cannot be kept (a full disk): then nothing is left of it.
    """
    return _put(spool_dir, _next_name(), b"".join([_record(line) for line in lines]))


def rewrite(path: str, lines: Sequence[bytes]) -> None:
    """Keep only these events of a file; its place in the order stays."""
    spool_dir, _, name = path.rpartition("/")
    _put(spool_dir, name, b"".join([_record(line) for line in lines]))


def names(spool_dir: str) -> list[str]:
    """The files that wait, oldest first; a folder that is not there holds none."""
    try:
        found = os.listdir(spool_dir)  # noqa: PTH208
    except FileNotFoundError:
        return []
    return sorted(name for name in found if name.endswith(SUFFIX) and name[0] != ".")


def read(path: str) -> tuple[list[bytes], list[bytes]]:
    """A file's events, and its records whose checksum is wrong, as they stand."""
    with open(path, "rb") as file:  # noqa: PTH123
        records = file.read().split(b"\n")
    good, corrupt = [], []
    for record in records:
        if not record:
            continue
        line = record[9:]
        if record[:9] == b"%08x " % crc32(line):
            good.append(line)
        else:
            corrupt.append(record)
    return good, corrupt


def set_aside(spool_dir: str, name: str, records: Sequence[bytes]) -> str:
    """Keep the damaged records of a file for a person: the path of `corrupt/<name>`.

    Idempotent: a crash between this and the removal of the file repeats it.
    """
    return _put(f"{spool_dir}/{CORRUPT}", name, b"".join([record + b"\n" for record in records]))


def remove(path: str) -> None:
    """Forget a file whose events are safe elsewhere; one that is gone already is fine."""
    _unlink(path)


def sweep(spool_dir: str) -> None:
    """Remove unfinished files of processes that died: nobody was told that these were kept."""
    try:
        found = os.listdir(spool_dir)  # noqa: PTH208
    except FileNotFoundError:
        return
    for name in found:
        if name[0] != "." or not name.endswith(SUFFIX):
            continue
        path = f"{spool_dir}/{name}"
        try:
            age = time.time() - os.stat(path).st_mtime  # noqa: PTH116
        except FileNotFoundError:
            continue
        if age > UNFINISHED_AGE:
            _unlink(path)


def _record(line: bytes) -> bytes:
    # A raw line break inside JSON is white space, never part of a value.
    line = line.strip().replace(b"\r", b" ").replace(b"\n", b" ")
    return b"%08x %s\n" % (crc32(line), line)


def _next_name() -> str:
    """Names of one process always grow, even when the clock is set back."""
    global _written, _last_ns
    _written += 1
    _last_ns = max(time.time_ns(), _last_ns + 1)
    return f"{_last_ns:020d}-{os.getpid()}-{_written}{SUFFIX}"


def _put(folder_path: str, name: str, data: bytes) -> str:
    """A whole file under this name, on disk; nothing is left of it when that fails."""
    folder = _open_folder(folder_path)
    try:
        new, path = f"{folder_path}/.{name}", f"{folder_path}/{name}"
        try:
            _write_file(new, data)
            os.rename(new, path)  # noqa: PTH104 (pathlib costs start-up time)
        except BaseException:
            _unlink(new)
            raise
        os.fsync(folder)  # the name, too, has to survive a power cut
    finally:
        os.close(folder)
    return path


def _write_file(path: str, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def _open_folder(path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    missing, parent = [], path
    while not os.path.isdir(parent):  # noqa: PTH112
        parent = os.path.dirname(parent)  # noqa: PTH120
        missing.append(parent)
    paths.private_dir(path)
    for parent in missing:  # a new folder is on disk when the folder above it is
        folder = os.open(parent, flags)
        os.fsync(folder)
        os.close(folder)
    return os.open(path, flags)


def _unlink(path: str) -> None:
    try:  # noqa: SIM105 (contextlib costs start-up time)
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        pass
