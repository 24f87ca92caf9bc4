"""The keys that seals of an archive may be signed with: a chain of statements in `keys.chain`.

    {"format":"opsmesh-key/1",…,"from_segment":1,…,"own":"<base64>","old":"<base64>"}

A line for each key, signed by the key itself (`own`) and by the one before (`old`). A key is in
force from `from_segment` to the segment before the next key's: a seal under any other key is not
accepted, an older one neither than a newer one.

Whoever trusts a key trusts those after it as far as each was signed by the one before, and those
before it: each key states, signed by itself, which line comes before its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from opsmesh.handlers.evidence import ed25519

#: The file, in the archive's folder.
NAME: Final = "keys.chain"
FORMAT: Final = "opsmesh-key/1"
#: `previous` of the first key.
NONE: Final = "0" * 64

_OWN: Final = b',"own":"'
_OLD: Final = b'","old":"'


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key. `after` is the hash of the newest seal before it, `previous` SHA-256 of the line
    before; both are zeros where there is none."""

    format: str
    archive: str
    number: int
    key: str
    public: str
    from_segment: int
    after: str
    previous: str
    made_at: str

    @property
    def public_bytes(self) -> bytes:
        """The public key."""
        return base64.b64decode(self.public, validate=True)


class Entry(msgspec.Struct, frozen=True):
    """A statement as it is written; `vouched`: the key before has signed it."""

    statement: Statement
    raw: bytes
    vouched: bool

    @property
    def hash(self) -> str:
        """How the next line names this one."""
        return hashlib.sha256(self.raw).hexdigest()


class BrokenChain(ValueError):
    """`line` of the file, from 1, is not what was written."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


def to_sign(statement: Statement) -> bytes:
    """The bytes of a statement that are signed."""
    return msgspec.json.encode(statement)[:-1]


def line(statement: Statement, own: bytes, old: bytes = b"") -> bytes:
    """The statement's line."""
    ends = base64.b64encode(own), base64.b64encode(old)
    return to_sign(statement) + _OWN + ends[0] + _OLD + ends[1] + b'"}\n'


def read(folder: Path) -> list[Entry]:
    """The checked chain of an archive; none when there is no file; or BrokenChain."""
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return []
    return check(data.splitlines(keepends=True))


def check(raws: Sequence[bytes]) -> list[Entry]:
    """The entries of a chain, each checked against the one before; BrokenChain names the first that
    does not hold."""
    entries: list[Entry] = []
    for number, raw in enumerate(raws, 1):
        try:
            entry = _entry(raw, entries[-1] if entries else None)
        except ValueError as error:
            raise BrokenChain(number, str(error)) from error
        # a key that came back would be in force twice
        if entry.statement.key in {known.statement.key for known in entries}:
            raise BrokenChain(number, "its key stands in an earlier line")
        entries.append(entry)
    return entries


def _entry(raw: bytes, before: Entry | None) -> Entry:
    signed, _, ends = raw.rpartition(_OWN)
    own_text, _, old_text = ends.removesuffix(b'"}\n').partition(_OLD)
    try:
        statement = msgspec.json.decode(signed + b"}", type=Statement)
        own = base64.b64decode(own_text, validate=True)
        old = base64.b64decode(old_text, validate=True)
        public = statement.public_bytes
    except (ValueError, msgspec.DecodeError) as error:
        raise ValueError(f"it is no statement of a key: {error}") from error
    if statement.format != FORMAT:
        raise ValueError(f"its format is {statement.format!r}, and this version knows {FORMAT!r}")
    if line(statement, own, old) != raw:
        raise ValueError("it is not written as a statement is written")
    if statement.key != ed25519.fingerprint(public):
        raise ValueError("its fingerprint is not that of its key")
    if not ed25519.fits(public, own, signed):
        raise ValueError("it is not signed by its own key")
    if before is None:
        if (statement.number, statement.previous) != (1, NONE) or old:
            raise ValueError("the keys before it are missing")
        return Entry(statement, raw, vouched=False)
    last = before.statement
    if statement.number != last.number + 1 or statement.previous != before.hash:
        raise ValueError("it does not follow the line before it")
    if statement.archive != last.archive or statement.from_segment < last.from_segment:
        raise ValueError("its archive or its first segment contradicts the line before it")
    if old and not ed25519.fits(last.public_bytes, old, signed):
        raise ValueError("the key before has not signed it")
    return Entry(statement, raw, vouched=bool(old))


def in_force(entries: Sequence[Entry], segment: int) -> Entry | None:
    """The key that the segment must be sealed with."""
    found = [entry for entry in entries if entry.statement.from_segment <= segment]
    return found[-1] if found else None


def trusted(entries: Sequence[Entry], key: str) -> range:
    """The numbers of the statements that whoever trusts `key` trusts; none when it is in no one."""
    numbers = [entry.statement.number for entry in entries if entry.statement.key == key]
    if not numbers:
        return range(0)
    last = numbers[0]
    for entry in entries[last:]:
        if not entry.vouched:
            break
        last = entry.statement.number
    return range(1, last + 1)
