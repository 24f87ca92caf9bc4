"""Which seal is accepted for which segment: the one rule that an attacker with a key must break.

A seal counts under the key that was in force for its segment, and under no other: a key that was
given up seals nothing new, and a new key nothing old (CVE-2023-31439 was a verifier that took old
entries under newer keys). A seal is of one archive, one segment, one file.
"""

from __future__ import annotations

from collections.abc import Sequence

from opsmesh.handlers.evidence import ed25519, keychain
from opsmesh.handlers.evidence.keychain import Entry
from opsmesh.handlers.evidence.report import ProblemKind
from opsmesh.handlers.evidence.seals import Seal
from opsmesh.handlers.evidence.segments import Segment


class Authority:
    """Judges seals by a chain of keys. With `pinned`, a fingerprint, only keys count that follow
    from it; without, the chain is believed."""

    def __init__(self, entries: Sequence[Entry], pinned: str | None = None) -> None:
        self.entries = entries
        self.pinned = pinned
        everyone = range(1, len(entries) + 1)
        self.trusted = everyone if pinned is None else keychain.trusted(entries, pinned)

    def fault(self, seal: Seal, segment: Segment | None = None) -> tuple[ProblemKind, str] | None:
        """Why the seal is not accepted, as the seal of this segment if one is given; None when it
        is."""
        manifest = seal.manifest
        if segment is not None and (manifest.segment, manifest.file, manifest.stream) != (
            segment.number,
            segment.name,
            segment.stream,
        ):
            return "bad seal", f"it is the seal of {manifest.file}"
        entry = keychain.in_force(self.entries, manifest.segment)
        if entry is None:
            return "wrong key", f"no key was in force for segment {manifest.segment}"
        statement = entry.statement
        if manifest.key != statement.key:
            return "wrong key", (
                f"sealed under key {manifest.key[:16]}…, but {statement.key[:16]}… was in force "
                f"for segment {manifest.segment}"
            )
        if not ed25519.fits(statement.public_bytes, seal.signature, seal.signed):
            return "bad seal", "the signature does not fit: the seal was edited, or is forged"
        if manifest.archive != statement.archive:
            return "bad seal", f"it is a seal of another archive, {manifest.archive}"
        if statement.number not in self.trusted:
            return "wrong key", (
                f"the key {statement.key[:16]}… does not follow from the trusted key "
                f"{(self.pinned or '')[:16]}…"
            )
        return None
