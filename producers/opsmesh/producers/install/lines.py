"""One marked line in a file of the user's: put in, found again, taken out. Bytes in, bytes out.

The mark at the line's end says whose it is; the rest of the file stays byte for byte, whatever its
encoding and its line ends are.
"""

from __future__ import annotations

from opsmesh.producers.wiring import SourceLine


def mark(tool: str, comment: str) -> bytes:
    """What a line of ours ends with."""
    return f"{comment} opsmesh install {tool}".encode()


def text(tool: str, piece: SourceLine) -> bytes:
    """The line, without its end."""
    return piece.line.encode() + b"  " + mark(tool, piece.comment)


def find(data: bytes, marked: bytes) -> bytes | None:
    """Our line as it stands in the file, without its end; None when it is not there."""
    for line in data.splitlines():
        if line.rstrip().endswith(marked):
            return line
    return None


def put(data: bytes, tool: str, piece: SourceLine) -> tuple[bytes, bool]:
    """The file with our line, exactly once; and whether the file's last line had to be ended for
    it. A line of ours that is there is replaced where it stands."""
    line = text(tool, piece)
    if (old := find(data, mark(tool, piece.comment))) is not None:
        return data.replace(old, line, 1), False
    end = b"\r\n" if b"\r\n" in data else b"\n"
    if piece.at == "start":
        return line + end + data, False
    unended = bool(data) and not data.endswith((b"\n", b"\r"))
    return data + (end if unended else b"") + line + end, unended


def take(data: bytes, marked: bytes, *, unended: bool) -> bytes:
    """The file without our line; `unended`: the line before was ended for it, which is undone when
    ours is still the last."""
    lines = data.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.rstrip().endswith(marked):
            last = number == len(lines) - 1
            before = b"".join(lines[:number])
            if unended and last:
                before = before.removesuffix(b"\n").removesuffix(b"\r")
            return before + b"".join(lines[number + 1 :])
    return data
