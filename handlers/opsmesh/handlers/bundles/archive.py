"""A bundle as one file: a tar in a zstd frame. The same bundle always gives the same tar.

Reading trusts nothing: an archive may come from another host of the mesh, or from a stranger. Only
plain files are taken, only those that the manifest names, each once and with the size and hash that
stand there; the manifest's own hash is the bundle's id. Nothing is written outside of the folder
that is given, and no more than `MAX_BUNDLE` bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from opsmesh.handlers.bundles.folders import MANIFEST, MAX_MANIFEST
from opsmesh.handlers.bundles.write import write_file
from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.evidence import zst
from opsmesh.handlers.evidence.disk import sync_folder
from opsmesh.schemas import times

#: Bytes that an archive may become, and files that it may hold.
MAX_BUNDLE: Final = 1024 * 2**20
MAX_FILES: Final = 1000
#: Bytes of a tar's record, and of what is read at once.
RECORD: Final = 512
BLOCK: Final = 128 * 1024
#: A window of 128 MiB is zstd's own limit without further options; we need 8 MiB.
WINDOW_LOG: Final = 27

_PREFIX = re.compile(r"opsmesh-[0-9a-f]{16}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")


class BadBundle(HandlersError):
    """A bundle is not what its manifest, or its id, says; the text says where."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file as a manifest has it."""

    name: str
    sha256: str
    size: int


def listed(manifest: Any) -> dict[str, Listed]:
    """The files of a manifest that have bytes, by name; BadBundle where it makes no sense."""
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_FILES:
        raise BadBundle(f"{MANIFEST}: is no list of at most {MAX_FILES} files")
    found: dict[str, Listed] = {}
    total = 0
    for entry in entries:
        if not isinstance(entry, dict):
            raise BadBundle(f"{MANIFEST}: an entry is no object")
        name, digest, size = entry.get("name"), entry.get("sha256"), entry.get("size")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == MANIFEST:
            raise BadBundle(f"{MANIFEST}: {str(name)[:80]!r} is not the name of a file of a bundle")
        if digest is None:
            continue
        if not isinstance(digest, str) or not isinstance(size, int) or not 0 <= size <= MAX_BUNDLE:
            raise BadBundle(f"{MANIFEST}: {name} has no hash, or no size")
        if name in found:
            raise BadBundle(f"{MANIFEST}: {name} is named twice")
        found[name] = Listed(name=name, sha256=digest, size=size)
        total += size
    if total > MAX_BUNDLE:
        raise BadBundle(f"{MANIFEST}: {total} bytes are more than {MAX_BUNDLE}")
    return found


def prefix(bundle_id: str) -> str:
    """The folder that an archive unpacks to."""
    return f"opsmesh-{bundle_id[:16]}"


def pack(folder: Path, target: BinaryIO) -> str:
    """Write the bundle as tar.zst; its id. Files that the manifest does not name are left out."""
    with tempfile.TemporaryFile(dir=folder.parent) as plain:
        bundle_id = _tar(folder, plain)
        size = plain.tell()
        plain.seek(0)
        zst.compress(plain, size, target)
    return bundle_id


def pack_zip(folder: Path, target: BinaryIO) -> str:
    """Write the bundle as zip, for those who have no zstd; its id."""
    raw, files, _ = _opened(folder)
    bundle_id = hashlib.sha256(raw).hexdigest()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _members(folder, raw, files):
            info = zipfile.ZipInfo(f"{prefix(bundle_id)}/{name}")  # 1980: the same bytes each time
            info.external_attr = 0o600 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return bundle_id


def unpack(source: BinaryIO, folder: Path, *, expect: str | None = None) -> str:
    """Write the bundle of a tar.zst into a new folder, checked; its id. BadBundle, and no folder,
    when it is not what it says, or not the one that is expected."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700, parents=True)
    try:
        bundle_id = _unpack(source, temporary, expect)
        sync_folder(temporary)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    return bundle_id


def _tar(folder: Path, target: BinaryIO) -> str:
    raw, files, seconds = _opened(folder)
    bundle_id = hashlib.sha256(raw).hexdigest()
    # ustar holds names of 100 characters without extensions, which our reader does not know
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in _members(folder, raw, files):
            info = tarfile.TarInfo(f"{prefix(bundle_id)}/{name}")
            info.size, info.mode, info.mtime = len(data), 0o600, seconds
            archive.addfile(info, io.BytesIO(data))
    return bundle_id


def _opened(folder: Path) -> tuple[bytes, dict[str, Listed], int]:
    """The manifest's bytes, its files, and the time that all of them have in an archive."""
    raw = (folder / MANIFEST).read_bytes()
    try:
        manifest = json.loads(raw)
    except ValueError as error:
        raise BadBundle(f"{folder / MANIFEST}: {error}") from None
    try:
        seconds = times.parse_us(str(manifest.get("created_utc"))) // 1_000_000
    except ValueError:
        seconds = 0
    return raw, listed(manifest), seconds


def _members(folder: Path, raw: bytes, files: Mapping[str, Listed]) -> Iterator[tuple[str, bytes]]:
    """The manifest, then the files in its order, each checked against it."""
    yield MANIFEST, raw
    for file in files.values():
        data = (folder / file.name).read_bytes()
        if len(data) != file.size or hashlib.sha256(data).hexdigest() != file.sha256:
            raise BadBundle(f"{folder / file.name}: is not what the manifest says")
        yield file.name, data


def _unpack(source: BinaryIO, folder: Path, expect: str | None) -> str:
    reader = _Reader(_decompressed(source))
    members = reader.members()
    first = next(members, None)
    if first is None:
        raise BadBundle("the archive is empty")
    top, name, size = first
    if name != MANIFEST or size > MAX_MANIFEST:
        raise BadBundle(f"the archive does not begin with a {MANIFEST}")
    raw = reader.read(size)
    bundle_id = hashlib.sha256(raw).hexdigest()
    if expect is not None and bundle_id != expect:
        raise BadBundle(f"its manifest has the hash {bundle_id}, and not {expect}")
    if not _PREFIX.fullmatch(top) or top != prefix(bundle_id):
        raise BadBundle(f"its files lie in {top[:80]!r}, and not in {prefix(bundle_id)}")
    try:
        missing = listed(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise BadBundle(f"{MANIFEST}: {error}") from None
    for here, name, size in members:
        file = missing.pop(name, None)
        if here != top or file is None:
            raise BadBundle(f"the archive holds {name[:80]!r}, which its manifest does not name")
        if size != file.size:
            raise BadBundle(f"{name}: {size} bytes, and not {file.size}")
        data = reader.read(size)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise BadBundle(f"{name}: is not what the manifest says")
        write_file(folder / name, data)
    if missing:
        raise BadBundle(f"the archive lacks {', '.join(sorted(missing))[:200]}")
    write_file(folder / MANIFEST, raw)
    return bundle_id


class _Reader:
    """A tar of plain files with short names, read once from its beginning to its end.

    The library's reader takes extended headers of any size into memory, and links, devices and
    sparse files at their word: what a bundle never has is refused here before it is looked at.
    """

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._buffer = bytearray()
        self._total = 0
        self._padding = 0

    def members(self) -> Iterator[tuple[str, str, int]]:
        """Folder, name and size of each file; its bytes are to be read before the next one."""
        for _ in range(MAX_FILES + 1):
            self.read(self._padding)
            self._padding = 0
            header = self.read(RECORD)
            if not header.strip(b"\0"):  # two empty records end it; the first is enough
                return
            yield self._member(header)
        raise BadBundle(f"the archive holds more than {MAX_FILES} files")

    def _member(self, header: bytes) -> tuple[str, str, int]:
        checked = header[:148] + b" " * 8 + header[156:]
        if sum(checked) != _octal(header[148:156]):
            raise BadBundle("the archive is damaged: a header's sum is wrong")
        if header[156:157] not in (b"0", b"\0"):
            raise BadBundle(f"the archive holds something else than files ({header[156:157]!r})")
        if header[345:500].strip(b"\0"):
            raise BadBundle("the archive holds a name that is too long")
        path = header[:100].rstrip(b"\0").decode(errors="replace")
        top, slash, name = path.partition("/")
        if not slash or not _NAME.fullmatch(name):
            raise BadBundle(f"the archive holds {path[:80]!r}, which is no file of a bundle")
        size = _octal(header[124:136])
        self._padding = -size % RECORD
        return top, name, size

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        self._total += size
        if self._total > MAX_BUNDLE:
            raise BadBundle(f"the archive becomes more than {MAX_BUNDLE} bytes")
        while len(self._buffer) < size:
            block = next(self._blocks, None)
            if block is None:
                raise BadBundle("the archive ends early")
            self._buffer += block
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


def _octal(field: bytes) -> int:
    text = field.strip(b"\0 ")
    if not text or not all(0x30 <= byte <= 0x37 for byte in text):
        raise BadBundle("the archive is damaged: a number in a header is none")
    return int(text, 8)


def _decompressed(source: BinaryIO) -> Iterator[bytes]:
    """Blocks of at most `BLOCK` bytes, however far a piece of the archive would unfold."""
    zstd = zst.library()
    options = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    unpacker = zstd.ZstdDecompressor(options=options)
    try:
        while not unpacker.eof:
            piece = b""
            if unpacker.needs_input:
                piece = source.read(BLOCK)
                if not piece:
                    return
            if block := unpacker.decompress(piece, BLOCK):
                yield block
    except zstd.ZstdError as error:
        raise BadBundle(f"the archive is damaged: {error}") from None
