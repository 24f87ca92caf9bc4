"""Compressed segments: one zstd frame a file, with a checksum and its length, no byte more.

So `zstd -dc` reads it, and no byte of it can change unseen. The library is imported when it is
needed: the sink writes plain files and never carries it.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from opsmesh.handlers.errors import SegmentDamaged

#: Bytes that are read at once.
BLOCK: Final = 128 * 1024
#: Compressed bytes that are unpacked at once: where they are damaged, so many are lost before.
PIECE: Final = 4096
#: Of level 3, 64 MiB of events take 0.2 s of CPU and become a seventh; 9 takes four times as long
#: for nothing.
LEVEL: Final = 3


def library() -> Any:
    """The zstd module: the standard library's own from Python 3.14 on, and before its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def compress(source: BinaryIO, size: int, target: BinaryIO) -> None:
    """Write `size` bytes of `source` as one frame; ValueError when it holds another number."""
    zstd = library()
    parameters = zstd.CompressionParameter
    options = {parameters.compression_level: LEVEL, parameters.checksum_flag: 1}
    packer = zstd.ZstdCompressor(options=options)
    packer.set_pledged_input_size(size)
    read = 0
    while block := source.read(8 * BLOCK):
        read += len(block)
        target.write(packer.compress(block))
    if read != size:
        raise ValueError(f"expected {size} bytes, read {read}")
    target.write(packer.flush(packer.FLUSH_FRAME))


def size(path: Path) -> int:
    """The length of what is compressed, from the file's header; SegmentDamaged if it has none."""
    zstd = library()
    with path.open("rb") as file:
        head = file.read(18)
    try:
        found = zstd.get_frame_info(head).decompressed_size
    except zstd.ZstdError as error:
        raise SegmentDamaged(path.name, str(error)) from error
    if found is None:
        raise SegmentDamaged(path.name, "its header does not say how long it is")
    return int(found)


def opened(path: Path) -> BinaryIO:
    """What is compressed, as a file to read; SegmentDamaged where it cannot be read on."""
    return cast(BinaryIO, io.BufferedReader(_Frame(path), BLOCK))


def skip(file: BinaryIO, count: int) -> None:
    """Read `count` bytes, or to the end, and forget them."""
    while count > 0 and (block := file.read(min(count, 8 * BLOCK))):
        count -= len(block)


class _Frame(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        zstd = library()
        self._name = path.name
        self._error = zstd.ZstdError
        self._file = path.open("rb", buffering=0)
        self._unpacker = zstd.ZstdDecompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as view:
            data = self._next(len(view))
            view[: len(data)] = data
            return len(data)

    def _next(self, limit: int) -> bytes:
        unpacker = self._unpacker
        while not unpacker.eof:
            block = b""
            if unpacker.needs_input:
                block = self._file.read(PIECE) or b""
                if not block:
                    raise SegmentDamaged(self._name, "it ends early")
            try:
                data = unpacker.decompress(block, limit)
            except self._error as error:
                raise SegmentDamaged(self._name, str(error)) from error
            if data:
                return bytes(data)
        if unpacker.unused_data or self._file.read(1):
            raise SegmentDamaged(self._name, "bytes follow its end")
        return b""

    def close(self) -> None:
        self._file.close()
        super().close()
