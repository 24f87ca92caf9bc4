"""A proof for one event: enough for a third party who has the public key and nothing else.

It holds the event's line, the path from that line to the root that was sealed, the seal, and the
chain of keys. Whoever checks it reads no archive, and learns of no other event.
"""

from __future__ import annotations

from typing import Final

import msgspec

from opsmesh.handlers.evidence import keychain, lines, locate, merkle, reader, seals, segments
from opsmesh.handlers.evidence.authority import Authority
from opsmesh.handlers.evidence.keychain import BrokenChain
from opsmesh.handlers.evidence.locate import Place
from opsmesh.handlers.evidence.reader import Archived
from opsmesh.handlers.evidence.seals import Manifest

FORMAT: Final = "opsmesh-proof/1"


class ProofError(ValueError):
    """The proof proves nothing; the text says why."""


class Unsealed(ProofError):
    """The event's segment is not sealed yet."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The file. `line` is the archive's line without its newline, `index` its place among the
    segment's lines from 0, `path` the hashes beside it from the bottom up, `seal` and `keys` are
    lines of the archive."""

    format: str
    id: str
    line: str
    index: int
    path: list[str]
    seal: str
    keys: list[str]


class Proved(msgspec.Struct, frozen=True, kw_only=True):
    """What a proof shows: this message was in this archive when it was sealed."""

    item: Archived
    manifest: Manifest


def make(place: Place) -> Proof:
    """The proof for the event in this line; Unsealed, or ProofError when the segment is not what
    was sealed."""
    segment = place.segment
    try:
        seal = seals.read(segment)
        entries = keychain.read(segment.folder)
    except ValueError as error:
        raise ProofError(f"{error}; see opsmesh evidence verify") from error
    if seal is None:
        raise Unsealed(f"{segment.name} is not sealed yet")
    with segments.opened(segment) as file:
        leaves = [merkle.leaf(raw[:-1]) for raw in file]
    if merkle.root(leaves).hex() != seal.manifest.root:
        raise ProofError(f"{segment.name} is not what was sealed; see opsmesh evidence verify")
    event = locate.event_of(place.item)
    return Proof(
        format=FORMAT,
        id=event.id if event is not None else "",
        line=place.raw.decode().rstrip("\n"),
        index=place.line - 1,
        path=[beside.hex() for beside in merkle.path(leaves, place.line - 1)],
        seal=seal.raw.decode().rstrip("\n"),
        keys=[entry.raw.decode().rstrip("\n") for entry in entries],
    )


def check(data: bytes, key: str) -> Proved:
    """What the proof in `data` shows to whoever trusts the key with this fingerprint; or
    ProofError."""
    try:
        proof = msgspec.json.decode(data, type=Proof)
        path = [bytes.fromhex(beside) for beside in proof.path]
    except (ValueError, msgspec.DecodeError) as error:
        raise ProofError(f"this is no proof: {error}") from error
    if proof.format != FORMAT:
        raise ProofError(f"its format is {proof.format!r}, and this version knows {FORMAT!r}")
    raw = proof.line.encode() + b"\n"
    line = lines.parse(raw)
    if line is None or lines.digest(raw) != line.hash:
        raise ProofError("the line is not what was written: it does not fit its hash")
    item = reader.entry(raw)
    event = locate.event_of(item) if item is not None else None
    if item is None or event is None or event.id != proof.id:
        raise ProofError(f"the line does not hold event {proof.id}")
    try:
        seal = seals.parse(proof.seal.encode() + b"\n")
        entries = keychain.check([entry.encode() + b"\n" for entry in proof.keys])
    except BrokenChain as error:
        raise ProofError(f"key {error.line} of its keys: {error.reason}") from error
    except ValueError as error:
        raise ProofError(f"its seal: {error}") from error
    fault = Authority(entries, key).fault(seal)
    if fault is not None:
        raise ProofError(f"its seal is not accepted: {fault[1]}")
    manifest = seal.manifest
    root = merkle.root_from(merkle.leaf(raw[:-1]), proof.index, manifest.lines, path)
    if root is None or root.hex() != manifest.root:
        raise ProofError("the line is not among those that were sealed")
    return Proved(item=item, manifest=manifest)
