"""One marked line in a file of the user's: put in, found again, taken out. Bytes in, bytes out.

The mark at the line's end says whose it is; the rest of the file stays byte for byte, whatever its
encoding and its line ends are. A line ends with "\\n" and with nothing else: so do shells read it.
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
    ours = (line for line in data.split(b"\n") if _is_ours(line, marked))
    return next((line.removesuffix(b"\r") for line in ours), None)


def put(data: bytes, tool: str, piece: SourceLine) -> tuple[bytes, bool]:
    """The file with our line, exactly once; and whether the file's last line had to be ended for
    it. A line of ours that is there is replaced where it stands, copies of it go."""
    line, marked = text(tool, piece), mark(tool, piece.comment)
    if find(data, marked) is not None:
        made, there = [], False
        for old in _lines(data):
            if not _is_ours(old, marked):
                made.append(old)
            elif not there:
                made.append(line + old[len(old.rstrip(b"\r\n")) :])
                there = True
        return b"".join(made), False
    end = b"\r\n" if b"\r\n" in data else b"\n"
    if piece.at == "start":
        return line + end + data, False
    unended = bool(data) and not data.endswith(b"\n")
    return data + (end if unended else b"") + line + end, unended


def take(data: bytes, marked: bytes, *, unended: bool) -> bytes:
    """The file without our line and its copies; `unended`: the line before was ended for it, which
    is undone when ours is still the last."""
    lines = _lines(data)
    kept = b"".join(line for line in lines if not _is_ours(line, marked))
    if unended and lines and _is_ours(lines[-1], marked):
        end = b"\r\n" if lines[-1].endswith(b"\r\n") and kept.endswith(b"\r\n") else b"\n"
        kept = kept.removesuffix(end)
    return kept


def _lines(data: bytes) -> list[bytes]:
    """The lines with their ends."""
    made = [line + b"\n" for line in data.split(b"\n")]
    made[-1] = made[-1][:-1]  # behind the last end there is nothing, or a line without one
    return made if made[-1] else made[:-1]


def _is_ours(line: bytes, marked: bytes) -> bool:
    """A mark with nothing before it is somebody's comment about the command."""
    line, comment = line.rstrip(), marked.partition(b" ")[0]
    return line.endswith(marked) and bool(line.removesuffix(marked).strip(b" \t" + comment))
