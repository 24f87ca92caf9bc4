"""One line of the archive: how it is written, and how its parts and its hash are read.

    {"stream":…,"seq":…,"time":…,"prev":…,"event":<the stored bytes>,"hash":…}

The hash is SHA-256 over the line's bytes before `,"hash":`. `prev`, the hash of the line before, is
among them: a line cannot change without changing every hash after it. `seq` is the position in the
stream after this line, so the next event's is one more, also after a note. A note `duplicate`
stands in the place of a message, and counts like one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, Final, Literal

import msgspec

#: `prev` of the first line of an archive.
NO_HASH: Final = "0" * 64
#: Messages that the stream no longer had when the sink came to read them: `from`, `to`.
MISSING: Final = "missing"
#: The stream went back, or is another one of the same name: the sequence starts again.
REGRESSED: Final = "regressed"
#: The message at this sequence is stored in line `of` already, byte for byte.
DUPLICATE: Final = "duplicate"
#: The event in the next line has the id of another one, in line `of`, that says something else.
REUSED: Final = "id_reused"
#: The archive itself was shorter than `head.json` says: lines were removed from its end.
TRUNCATED: Final = "truncated"

Kind = Literal["event", "base64", "note"]

#: Bytes of `,"hash":"<64 hex>"}` and the newline.
HASH_PART: Final = 9 + 64 + 3
#: A whole line; its groups are stream, seq, time, prev, kind, value and hash.
LINE: Final = re.compile(
    rb'\{"stream":"([^"\\]+)","seq":(0|[1-9]\d*),"time":"([^"\\]+)","prev":"([0-9a-f]{64})",'
    rb'"(event|base64|note)":(.+),"hash":"([0-9a-f]{64})"\}\n'
)
_decode: Final = msgspec.json.Decoder().decode


class Line(msgspec.Struct, frozen=True):
    """The parts of one line; `value` is the bytes between its key and `,"hash":`."""

    stream: str
    seq: int
    time: str
    prev: str
    kind: Kind
    value: bytes
    hash: str

    @property
    def data(self) -> bytes:
        """The message as it was stored."""
        return base64.b64decode(self.value[1:-1]) if self.kind == "base64" else self.value

    @property
    def note(self) -> dict[str, Any]:
        """The facts of a note; empty for an event."""
        try:
            facts = _decode(self.value) if self.kind == "note" else {}
        except msgspec.DecodeError:
            return {}
        return facts if isinstance(facts, dict) else {}

    @property
    def follows(self) -> int | None:
        """The sequence that the line before must have; None when any will do."""
        if self.kind != "note":
            return self.seq - 1
        match self.note:
            case {"kind": "missing", "from": int(first), "to": self.seq}:
                return first - 1
            case {"kind": "duplicate"}:  # stands for a message of the stream, as an event does
                return self.seq - 1
            case {"kind": "regressed"}:
                return None
        return self.seq


def of_event(
    stream: str, seq: int, time: str, prev: str, data: bytes, *, is_object: bool = False
) -> tuple[bytes, str]:
    """The line for a stored message, and its hash; what is no JSON object on one line is kept as
    base64, so that every byte survives. `is_object`: it is known to be one, in UTF-8."""
    if (is_object and b"\n" not in data and b"\r" not in data) or _is_one_line_object(data):
        return _seal(stream, seq, time, prev, b'"event":' + data)
    return _seal(stream, seq, time, prev, b'"base64":"' + base64.b64encode(data) + b'"')


def of_note(
    stream: str, seq: int, time: str, prev: str, facts: dict[str, Any]
) -> tuple[bytes, str]:
    """The line for something that the archive has to say about itself, and its hash."""
    return _seal(stream, seq, time, prev, b'"note":' + msgspec.json.encode(facts))


def parse(raw: bytes) -> Line | None:
    """The parts of a whole line with its newline; None when it is none."""
    found = LINE.fullmatch(raw)
    if found is None:
        return None
    stream, seq, time, prev, kind, value, digest = found.groups()
    try:
        texts = [part.decode() for part in (stream, time, prev, kind, digest)]
    except UnicodeDecodeError:
        return None
    return Line(texts[0], int(seq), texts[1], texts[2], texts[3], value, texts[4])  # type: ignore[arg-type]


def digest(raw: bytes) -> str:
    """The hash that a line with this content must have."""
    return hashlib.sha256(raw[:-HASH_PART]).hexdigest()


def _seal(stream: str, seq: int, time: str, prev: str, value: bytes) -> tuple[bytes, str]:
    head = f'{{"stream":"{stream}","seq":{seq},"time":"{time}","prev":"{prev}",'.encode() + value
    made = hashlib.sha256(head).hexdigest()
    return head + b',"hash":"' + made.encode() + b'"}\n', made


def _is_one_line_object(data: bytes) -> bool:
    if b"\n" in data or b"\r" in data:
        return False
    try:
        return isinstance(_decode(data), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
