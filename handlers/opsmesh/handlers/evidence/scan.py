"""One segment read once, fast: whether its chain holds in itself, and what its seal has to say.

What lies before it is for the caller to compare: `prev` and `follows` say what it must be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import msgspec

from opsmesh.handlers.evidence import lines, merkle
from opsmesh.handlers.evidence.lines import Line

#: A line up to its value; with the fixed form of its end it is all that `lines.LINE` asks for.
_HEAD: Final = re.compile(
    rb'\{"stream":"[^"\\]+","seq":(0|[1-9]\d*),"time":"[^"\\]+","prev":"([0-9a-f]{64})",'
    rb'"(event|base64|note)":'
)
_HASH_KEY: Final = b',"hash":"'


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """A segment of `size` bytes whose chain holds. `follows` is the sequence that the line before
    must have, `root` the Merkle root over the lines, `torn` a last line without its end; `holds` is
    whether the line that was asked for is among them."""

    lines: int
    size: int
    prev: str
    follows: int | None
    first_seq: int
    last_seq: int
    last: str
    root: str
    notes: tuple[tuple[int, Line], ...]
    torn: bytes = b""
    holds: bool = False

    @property
    def content(self) -> tuple[object, ...]:
        """What a seal would say of it (`seals.content`)."""
        return (
            self.first_seq,
            self.last_seq,
            self.lines,
            self.size,
            self.prev,
            self.last,
            self.root,
        )


#: A segment of no lines.
EMPTY: Final = Scan(
    lines=0, size=0, prev="", follows=None, first_seq=0, last_seq=0, last="", root="", notes=()
)


def scan(
    raws: Iterable[bytes], *, may_be_torn: bool = False, root: bool = True, asked: bytes = b""
) -> Scan | None:
    """What the lines say; None when they are no chain, or end in the middle of a line.

    The root costs a third of the time: without `root` it is empty. `asked` is a hash in
    hexadecimal.
    """
    tree = merkle.Tree()
    leaves: list[bytes] = []
    add = leaves.append
    notes: list[tuple[int, Line]] = []
    first: tuple[str, int | None, int] | None = None
    prev, seq, size, number, torn, holds = b"", 0, 0, 0, b"", False
    for number, raw in enumerate(raws, 1):
        found = _HEAD.match(raw)
        stated = raw[-67:-3]
        if (
            found is None
            or raw[-76:-67] != _HASH_KEY
            or raw[-3:] != b'"}\n'
            or found.end() > len(raw) - 77
            or sha256(raw[:-76]).hexdigest().encode() != stated
        ):
            if may_be_torn and not raw.endswith(b"\n"):
                torn, number = raw, number - 1
                break
            return None
        now = int(found[1])
        follows: int | None = now - 1
        if found[3] == b"note":
            line = lines.parse(raw)
            if line is None:
                return None
            follows = line.follows
            notes.append((number, line))
        if first is None:
            first = found[2].decode(), follows, now
        elif found[2] != prev or (follows is not None and follows != seq):
            return None
        prev, seq = stated, now
        size += len(raw)
        holds = holds or stated == asked
        if root:
            add(sha256(b"\0" + raw[:-1]).digest())
            if len(leaves) == merkle.RUN:
                tree.add(leaves)
                leaves.clear()
    if first is None:
        return msgspec.structs.replace(EMPTY, torn=torn)
    tree.add(leaves)
    return Scan(
        lines=number,
        size=size,
        prev=first[0],
        follows=first[1],
        first_seq=first[2],
        last_seq=seq,
        last=prev.decode(),
        root=tree.root().hex() if root else "",
        notes=tuple(notes),
        torn=torn,
        holds=holds,
    )
