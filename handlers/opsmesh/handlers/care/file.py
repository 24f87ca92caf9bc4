"""A backup as one file: a plain tar whose last member, `manifest.json`, names every other one.

The one rule: a file under its own name is whole. It is written under a name that begins with a dot,
synced, and renamed; without the manifest at its end it is none. Its owner alone can read it.

    config/…  state/…  evidence/…  bundles/…    files, as they lay in their folders
    streams/NAME                                a stream as the broker gives it (`router.snapshot`)
    manifest.json                               who made it, when, and a SHA-256 for each member
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import msgspec

from opsmesh.handlers.errors import HandlersError

MANIFEST: Final = "manifest.json"
KIND: Final = "opsmesh-backup"
#: The version of this layout that is written, and the newest that is read.
VERSION: Final = 1
#: Bytes that are moved at once.
BLOCK: Final = 1024 * 1024
#: Zero bytes with which a tar ends.
END: Final = 2 * tarfile.BLOCKSIZE
#: Bytes that a manifest may have: a name and a hash for each of some hundred thousand files.
MAX_MANIFEST: Final = 256 * 2**20


class BadBackup(HandlersError):
    """A file is no backup, or not the one that was written: `path`, and `reason`."""

    def __init__(self, path: Path, reason: str, *, hint: str = "") -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.hint = hint


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One member; `mode` are a file's permission bits."""

    name: str
    size: int
    sha256: str
    mode: int = 0o600


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream: the broker's words about it, which it wants back."""

    name: str
    messages: int
    last_seq: int
    config: dict[str, Any]
    state: dict[str, Any]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds. `state_format` is that of what it holds (`router.state_format`); `keys`:
    secrets are in it."""

    kind: str = KIND
    version: int = VERSION
    opsmesh: str
    state_format: int
    host: str
    made_utc: str
    keys: bool
    streams: tuple[Stream, ...]
    members: tuple[Member, ...]

    @property
    def bytes(self) -> int:
        """What all members have."""
        return sum(member.size for member in self.members)


class Writer:
    """A file that is being written; what is not `finish`ed leaves nothing behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # one of each process: another backup to the same place is under way perhaps
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._members: list[Member] = []
        self._partial.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(self._partial, flags, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "w+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def member(self, name: str, *, mode: int = 0o600) -> Iterator[Callable[[bytes], object]]:
        """A member whose size is known when it ends: what is given takes its bytes."""
        start, digest, size = self._file.tell(), hashlib.sha256(), 0
        self._file.write(_header(name, 0, mode))

        def write(data: bytes) -> None:
            nonlocal size
            self._file.write(data)
            digest.update(data)
            size += len(data)

        yield write
        self._file.write(b"\0" * (-size % tarfile.BLOCKSIZE))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_header(name, size, mode))
        self._file.seek(end)
        self._members.append(Member(name=name, size=size, sha256=digest.hexdigest(), mode=mode))

    def add(self, name: str, source: Path) -> bool:
        """A file as it is now, to the length that it has now; False when it is gone."""
        try:
            file = source.open("rb")
        except FileNotFoundError:
            return False
        with file:
            stat = os.fstat(file.fileno())
            left = stat.st_size
            with self.member(name, mode=stat.st_mode & 0o777) as write:
                while left and (data := file.read(min(left, BLOCK))):
                    write(data)
                    left -= len(data)
        return True

    @property
    def members(self) -> tuple[Member, ...]:
        """What has been written."""
        return tuple(self._members)

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, and give the file its name once all of it is on disk."""
        with self.member(MANIFEST) as write:
            write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        self._file.write(b"\0" * END)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._partial.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Reader:
    """A backup that is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 (closed by __exit__)
        except (tarfile.TarError, EOFError) as error:
            raise BadBackup(path, f"is no backup: {error}") from error
        try:
            self.manifest = self._manifest()
        except BaseException:
            self._tar.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def _manifest(self) -> Manifest:
        try:
            self._infos = {info.name: info for info in self._tar}
        except (tarfile.TarError, EOFError, OSError) as error:
            raise BadBackup(self.path, f"is cut or damaged: {error}") from error
        info = self._infos.pop(MANIFEST, None)
        if info is None or not info.isreg() or info.size > MAX_MANIFEST:
            raise BadBackup(self.path, "is no whole backup: it has no manifest at its end")
        end = info.offset_data + info.size + -info.size % tarfile.BLOCKSIZE + END
        if self.path.stat().st_size != end:
            raise BadBackup(self.path, "is cut, or has something behind its end")
        try:
            data = b"".join(self._blocks(info))
            kind = msgspec.json.decode(data, type=_Kind)
            if kind.kind != KIND:
                raise BadBackup(self.path, "is no backup of opsmesh")
            if kind.version > VERSION:
                raise BadBackup(
                    self.path,
                    f"was made by opsmesh {kind.opsmesh} in layout {kind.version}; this version "
                    f"reads up to layout {VERSION}",
                    hint=f"restore it with opsmesh {kind.opsmesh} or newer",
                )
            manifest = msgspec.json.decode(data, type=Manifest)
        except (msgspec.DecodeError, OSError) as error:
            raise BadBackup(self.path, f"its manifest cannot be read: {error}") from error
        for member in manifest.members:
            place = PurePosixPath(member.name)
            if place.is_absolute() or ".." in place.parts or len(place.parts) < 2:
                raise BadBackup(self.path, f"{member.name!r} is no place for a file")
        return manifest

    def blocks(self, name: str) -> Iterator[bytes]:
        """A member's bytes, piece by piece."""
        return self._blocks(self._infos[name])

    def _blocks(self, info: tarfile.TarInfo) -> Iterator[bytes]:
        file = self._tar.extractfile(info)
        if file is None:
            raise BadBackup(self.path, f"{info.name} is no plain file")
        with file:
            while data := file.read(BLOCK):
                yield data

    def problems(self, progress: Callable[[int], None] = lambda _: None) -> list[str]:
        """What is not as the manifest says, one text each; `progress` hears of the bytes read."""
        found = []
        for member in self.manifest.members:
            info = self._infos.get(member.name)
            if info is None or not info.isreg():
                found.append(f"{member.name} is missing")
                continue
            digest = hashlib.sha256()
            try:
                for data in self._blocks(info):
                    digest.update(data)
                    progress(len(data))
            except (tarfile.TarError, OSError) as error:
                found.append(f"{member.name} cannot be read: {error}")
                continue
            if info.size != member.size or digest.hexdigest() != member.sha256:
                found.append(f"{member.name} is not what was written")
        known = {member.name for member in self.manifest.members}
        found += [f"{name} is in no manifest" for name in self._infos if name not in known]
        return found


class _Kind(msgspec.Struct):
    kind: str = ""
    version: int = 0
    opsmesh: str = "?"


def _header(name: str, size: int, mode: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, int(time.time())
    # not ustar: its sizes end at 8 GiB
    return info.tobuf(format=tarfile.GNU_FORMAT)
