"""The spool: events that the broker has not acknowledged yet, as a folder of small whole files.

The one rule: what `write` returned for is on disk. A file is there whole or not at all, its name
gives its place in the order, and a damaged record never spoils its neighbours (ADR 0002). How much
it may hold, and what happens when it is full: `spool_room` (ADR 0012).
Standard library's smallest parts only: `opsmesh emit` imports this module.
"""

from __future__ import annotations

import errno
import os
import time
from binascii import crc32

from opsmesh.router import paths, spool_room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

#: How the name of a file that waits to be sent ends.
SUFFIX = ".spool"
#: The folder, inside the spool, for what is damaged.
CORRUPT = "corrupt"
#: How a note about damage begins, among the damaged records of a file.
NOTE = b"# "
#: Seconds after which an unfinished file was certainly left behind by a process that died.
UNFINISHED_AGE = 3600.0

_REGULAR, _KIND = 0o100000, 0o170000  # stat.S_IFREG and S_IFMT, without importing stat

_written = 0
_last_ns = 0


def write(spool_dir: str, lines: Sequence[bytes], *, busy: Collection[str] = ()) -> str:
    """Put events, one JSON object each, into one new file; its path, once it is on disk.

    OSError when it cannot be kept (a full disk; `spool_room.Full`): then nothing is left of it.
    Where the user has chosen that new events are dropped, they are counted, and the path is empty.
    `busy`: files that are being sent, and are not dropped for this one.
    """
    data = _whole(lines)
    folder = _open_folder(spool_dir)
    try:
        gauge = spool_room.Gauge(spool_dir)
        try:
            if not gauge.has_room(len(data)):
                from opsmesh.router import spool_overflow  # rare, and it imports json

                if not spool_overflow.make_room(spool_dir, gauge, lines, len(data), busy=busy):
                    return ""
            path = _put(folder, spool_dir, _next_name(), data)
            # After the file is there, never before: an agent that sees neither has missed nothing.
            gauge.add(len(data))
        finally:
            gauge.close()
    finally:
        os.close(folder)
    return path


def rewrite(path: str, lines: Sequence[bytes]) -> None:
    """Keep only these events of a file; its place in the order stays."""
    spool_dir, _, name = path.rpartition("/")
    put(spool_dir, name, _whole(lines))


def names(spool_dir: str) -> list[str]:
    """The files that wait, oldest first; a folder that is not there holds none."""
    try:
        found = os.listdir(spool_dir)  # noqa: PTH208
    except FileNotFoundError:
        return []
    return sorted(name for name in found if name.endswith(SUFFIX) and name[0] != ".")


def is_empty(spool_dir: str) -> bool:
    """Whether no file waits, without a look at all of them."""
    try:
        with os.scandir(spool_dir) as found:
            return not any(item.name.endswith(SUFFIX) and item.name[0] != "." for item in found)
    except FileNotFoundError:
        return True


def read(path: str) -> tuple[list[bytes], list[bytes]]:
    """A file's events, and its records whose checksum is wrong, as they stand; a file that was cut
    has a note among these.

    FileNotFoundError when it is gone. Any other OSError: it is no file, or cannot be read.
    """
    # Neither a link's target nor a pipe's other end is the spool's.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if os.fstat(file).st_mode & _KIND != _REGULAR:
            raise OSError(errno.EINVAL, "not a regular file", path)
        parts = []
        while part := os.read(file, 1 << 20):
            parts.append(part)
    finally:
        os.close(file)
    good: list[bytes] = []
    corrupt: list[bytes] = []
    end = b""
    for record in b"".join(parts).split(b"\n"):
        if not record:
            continue
        line = record[9:]
        if record[:9] != b"%08x " % crc32(line):
            corrupt.append(record)
        elif line.startswith(b"="):
            end = line
        else:
            good.append(line)
    if not end:
        corrupt.append(NOTE + b"the end of this file is missing: records may have been cut off")
    elif not corrupt and end != b"=%d" % len(good):
        corrupt.append(NOTE + b"records are missing: %d of %s" % (len(good), end[1:]))
    return good, corrupt


def set_aside(spool_dir: str, name: str, records: Sequence[bytes]) -> str:
    """Keep the damaged records of a file for a person: the path of `corrupt/<name>`.

    Idempotent: a crash between this and the removal of the file repeats it.
    """
    return put(f"{spool_dir}/{CORRUPT}", name, b"".join([record + b"\n" for record in records]))


def move_aside(spool_dir: str, name: str) -> str:
    """Move what is no readable file out of the way, as it stands: the path of `corrupt/<name>`."""
    folder = f"{spool_dir}/{CORRUPT}"
    os.close(_open_folder(folder))
    kept = f"{folder}/{name}"
    os.rename(f"{spool_dir}/{name}", kept)  # noqa: PTH104
    return kept


def remove(path: str) -> int:
    """Forget a file whose events are safe elsewhere, or counted as lost; its size, 0 for one that
    is gone already."""
    try:
        size = os.stat(path, follow_symlinks=False).st_size  # noqa: PTH116
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return 0
    return size


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
            age = time.time() - os.stat(path, follow_symlinks=False).st_mtime  # noqa: PTH116
            if age > UNFINISHED_AGE:
                _unlink(path)
        except OSError:  # finished since, or none of ours
            continue


def follow(spool_dir: str) -> None:
    """Let this process's next file go behind all that waits, even after the clock was set back."""
    global _last_ns
    for name in names(spool_dir):
        if (ns := name[:20]).isdecimal():
            _last_ns = max(_last_ns, int(ns))


def _whole(lines: Sequence[bytes]) -> bytes:
    """A file's bytes: the records, and the end, which shows that none is missing."""
    return b"".join([as_record(line) for line in lines]) + as_record(b"=%d" % len(lines))


def as_record(line: bytes) -> bytes:
    """A line with its checksum."""
    # A raw line break inside JSON is white space, never part of a value.
    line = line.strip().replace(b"\r", b" ").replace(b"\n", b" ")
    return b"%08x %s\n" % (crc32(line), line)


def _next_name() -> str:
    """Names of one process always grow, even when the clock is set back."""
    global _written, _last_ns
    _written += 1
    _last_ns = max(time.time_ns(), _last_ns + 1)
    return f"{_last_ns:020d}-{os.getpid()}-{_written}{SUFFIX}"


def put(folder_path: str, name: str, data: bytes) -> str:
    """A whole file under this name, in place of one that is there; its path, once it is on disk."""
    folder = _open_folder(folder_path)
    try:
        return _put(folder, folder_path, name, data)
    finally:
        os.close(folder)


def _put(folder: int, folder_path: str, name: str, data: bytes) -> str:
    """A whole file under this name, on disk; nothing is left of it when that fails."""
    new, path = f"{folder_path}/.{name}", f"{folder_path}/{name}"
    try:
        _write_file(new, data)
        os.rename(new, path)  # noqa: PTH104 (pathlib costs start-up time)
    except BaseException:
        _unlink(new)
        raise
    os.fsync(folder)  # the name, too, has to survive a power cut
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
        sync_folder(parent)
    return os.open(path, flags)


def sync_folder(path: str) -> None:
    """What was made, renamed or removed in the folder is on disk when this returns."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unlink(path: str) -> None:
    try:  # noqa: SIM105 (contextlib costs start-up time)
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        pass
