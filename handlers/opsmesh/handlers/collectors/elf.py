"""What a binary needs, read from its own bytes.

Nothing is executed: `ldd` lets the binary's own loader run, which a hostile file names itself. The
format is elf(5) and the System V ABI; numbers that lead out of the file end the reading.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

#: Entries of a table that are read, and bytes of its strings: more is no honest file.
MAX_ENTRIES: Final = 4096
MAX_STRINGS: Final = 8 * 2**20

_MAGIC: Final = b"\x7fELF"
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRTAB, _STRSZ, _RPATH, _RUNPATH = 1, 5, 10, 15, 29


@dataclass(frozen=True, kw_only=True)
class Elf:
    """The dynamic part of a file."""

    bits: int
    machine: int
    needed: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()


def read(path: Path) -> Elf | None:
    """What the file needs; None for what is no ELF file, or a damaged one."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            if (
                head[:4] != _MAGIC
                or len(head) < 52
                or head[4] not in (1, 2)
                or head[5] not in (1, 2)
            ):
                return None
            return _read(file, head)
    except (OSError, ValueError, struct.error):
        return None


def _read(file: BinaryIO, head: bytes) -> Elf:
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    machine = struct.unpack_from(order + "H", head, 18)[0]
    word = "Q" if wide else "I"
    offset = struct.unpack_from(order + word, head, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    bits = 64 if wide else 32
    loads, dynamic = [], None
    for number in range(min(count, MAX_ENTRIES)):
        raw = _at(file, offset + number * size, 56 if wide else 32)
        kind = struct.unpack_from(order + "I", raw)[0]
        if wide:
            start, address, _, length = struct.unpack_from(order + "QQQQ", raw, 8)
        else:
            start, address, _, length = struct.unpack_from(order + "IIII", raw, 4)
        if kind == _LOAD:
            loads.append((address, length, start))
        elif kind == _DYNAMIC:
            dynamic = (start, length)
    if dynamic is None:
        return Elf(bits=bits, machine=machine)
    step = 16 if wide else 8
    entries = []
    raw = _at(file, dynamic[0], min(dynamic[1], MAX_ENTRIES * step))
    for place in range(0, len(raw) - step + 1, step):
        tag, value = struct.unpack_from(order + word * 2, raw, place)
        if tag == 0:
            break
        entries.append((tag, value))
    known = dict(entries)
    names_at, length = known.get(_STRTAB, 0), min(known.get(_STRSZ, 0), MAX_STRINGS)
    found = (s + names_at - a for a, n, s in loads if a <= names_at < a + n)
    start = next(found, None)
    strings = b"" if start is None else _at(file, start, length)

    def texts(*tags: int) -> tuple[str, ...]:
        return tuple(_string(strings, value) for tag, value in entries if tag in tags)

    paths = texts(_RUNPATH) or texts(_RPATH)
    return Elf(
        bits=bits,
        machine=machine,
        needed=texts(_NEEDED),
        runpath=tuple(part for text in paths for part in text.split(":") if part),
    )


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return bytes(file.read(length))


def _string(strings: bytes, start: int) -> str:
    if start >= len(strings):
        raise ValueError("a name lies outside of the names")
    return strings[start : strings.index(b"\0", start)].decode(errors="replace")
