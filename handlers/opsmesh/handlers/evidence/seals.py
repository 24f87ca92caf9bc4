"""What a seal says of a segment, and how it is written: one line of JSON, signed.

    {"format":"opsmesh-seal/1","archive":…,"segment":12,…,"key":…,"signature":"<base64>"}

The signature is Ed25519 over the line's bytes before `,"signature":`. `previous` is SHA-256 of the
file of the seal before: a seal cannot be exchanged without every later one saying so.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final, Self

import msgspec

from opsmesh.handlers.evidence import segments
from opsmesh.handlers.evidence.segments import Segment

#: The first words of a seal, which no other signed text of ours begins with.
FORMAT: Final = "opsmesh-seal/1"
#: Bytes of `,"signature":"<88>"}` and the newline.
SIGNATURE_PART: Final = 14 + 88 + 3
#: The topic that tells of a seal. Its event never begins a segment: that would make another seal.
TOPIC: Final = "evidence.segment.sealed"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sealed: `prev` is the hash before the first line, `last` that of the last one, `root`
    the Merkle root over the lines, `bytes` their length before compression."""

    format: str
    archive: str
    segment: int
    file: str
    stream: str
    first_seq: int
    last_seq: int
    lines: int
    bytes: int
    prev: str
    last: str
    root: str
    previous: str
    sealed_at: str
    key: str


class Seal(msgspec.Struct, frozen=True):
    """A manifest with its signature; `raw` is the whole line with its newline."""

    manifest: Manifest
    raw: bytes
    signature: bytes

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is over."""
        return self.raw[:-SIGNATURE_PART]

    @property
    def hash(self) -> str:
        """How the next seal names this one: `sha256sum` of its file."""
        return hashlib.sha256(self.raw).hexdigest()

    @classmethod
    def of(cls, manifest: Manifest, signature: bytes) -> Self:
        """The seal that says this."""
        return cls(manifest, to_sign(manifest) + _ending(signature), signature)


def to_sign(manifest: Manifest) -> bytes:
    """The bytes of a manifest that are signed."""
    return msgspec.json.encode(manifest)[:-1]


def parse(raw: bytes) -> Seal:
    """The seal in a line; ValueError says why it is none. The signature is not checked here."""
    signed, end = raw[:-SIGNATURE_PART], raw[-SIGNATURE_PART:]
    try:
        signature = base64.b64decode(end[14:-3], validate=True)
        manifest = msgspec.json.decode(signed + b"}", type=Manifest)
    except (ValueError, msgspec.DecodeError) as error:
        raise ValueError(f"it is no seal: {error}") from error
    if manifest.format != FORMAT:
        raise ValueError(f"its format is {manifest.format!r}, and this version knows {FORMAT!r}")
    seal = Seal.of(manifest, signature)
    if seal.raw != raw:
        raise ValueError("it is not written as a seal is written")
    return seal


def read(segment: Segment) -> Seal | None:
    """The segment's seal, unchecked; None when it has none, ValueError when it cannot be read."""
    try:
        return parse(segment.seal.read_bytes())
    except FileNotFoundError:
        return None


def hash_of(segment: Segment) -> str:
    """How a later seal names this segment's, whatever it says."""
    return hashlib.sha256(segment.seal.read_bytes()).hexdigest()


def content(manifest: Manifest) -> tuple[object, ...]:
    """What the manifest says of the lines."""
    return (
        manifest.first_seq,
        manifest.last_seq,
        manifest.lines,
        manifest.bytes,
        manifest.prev,
        manifest.last,
        manifest.root,
    )


def newest(folder: Path) -> Seal | None:
    """The last seal of an archive that can be read, unchecked."""
    for segment in reversed(segments.sealed(folder)):
        try:
            return read(segment)
        except ValueError:
            continue
    return None


def _ending(signature: bytes) -> bytes:
    return b',"signature":"' + base64.b64encode(signature) + b'"}\n'
