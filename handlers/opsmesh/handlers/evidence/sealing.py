"""Sealing: what becomes of a segment that no line will be added to. A short-lived process.

The one rule: each step leaves the folder in a state that the same steps, begun again, finish; the
plain file goes last, when what replaces it was read back from disk and is what was sealed.

    plain → plain, seal → plain, seal, compressed → seal, compressed
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from opsmesh.handlers.errors import HandlersError, SealError, SegmentDamaged
from opsmesh.handlers.evidence import disk, ed25519, keychain, keys, lines, seals, segments, zst
from opsmesh.handlers.evidence.authority import Authority
from opsmesh.handlers.evidence.keys import Signer
from opsmesh.handlers.evidence.scan import Scan, scan
from opsmesh.handlers.evidence.seals import Manifest, Seal
from opsmesh.handlers.evidence.segments import Segment
from opsmesh.schemas import times

#: Exit code: something is not whole, and will not be by itself; 1 is worth another attempt.
REFUSED: Final = 2
#: How much less urgent it is than the sink (nice).
NICE: Final = 10

log = structlog.get_logger()


class Refused(HandlersError):
    """This segment is not sealed: it is not whole, or another one says something else."""


class Outcome(msgspec.Struct, kw_only=True):
    """What became of the closed segments: sealed now, and refused, a reason for each file."""

    sealed: list[Seal] = []
    refused: dict[str, str] = {}


class Work(msgspec.Struct):
    """One segment on its way through the steps."""

    segment: Segment
    keys: Path
    signer: Signer
    found: Scan | None = None
    seal: Seal | None = None


def _measure(work: Work) -> None:
    """Read every line: a seal is put on nothing that is not whole."""
    segment = work.segment
    with segment.path.open("rb") as file:
        found = scan(file)
    if found is None or not found.lines:
        raise Refused("its lines are not what was written")
    siblings = segments.listing(segment.folder)
    if sum(other.number == segment.number for other in siblings) > 1:
        raise Refused("another file has its number")
    before = next((s for s in siblings if s.number == segment.number - 1), None)
    if before is not None and _last_hash(before) not in (None, found.prev):
        raise Refused("its first line does not follow the segment before it")
    work.found = found


def _sign(work: Work) -> None:
    segment, signer, found = work.segment, work.signer, work.found
    assert found is not None  # noqa: S101 (the steps are in order)
    try:
        seal = seals.read(segment)
    except ValueError as error:
        raise Refused(f"its seal cannot be read: {error}") from error
    sealed = segments.sealed(segment.folder)
    if seal is None and sealed and sealed[-1].number > segment.number:
        raise Refused("a later segment is sealed already")
    before = [other for other in sealed if other.number < segment.number]
    manifest = Manifest(
        format=seals.FORMAT,
        archive=signer.archive,
        segment=segment.number,
        file=segment.name,
        stream=segment.stream,
        first_seq=found.first_seq,
        last_seq=found.last_seq,
        lines=found.lines,
        bytes=found.size,
        prev=found.prev,
        last=found.last,
        root=found.root,
        previous=seals.hash_of(before[-1]) if before else keychain.NONE,
        sealed_at=times.format_us(times.now_us()),
        key=signer.key,
    )
    if seal is None:
        signature = ed25519.sign(signer.private, seals.to_sign(manifest))
        work.seal = Seal.of(manifest, signature)
        disk.replace(segment.seal, work.seal.raw)
        return
    fault = Authority(signer.entries).fault(seal, segment)
    if fault is not None:
        raise Refused(f"its seal is not accepted: {fault[1]}")
    if seals.content(seal.manifest) != seals.content(manifest):
        raise Refused("its lines are not those that were sealed")
    work.seal = seal


def _pin(work: Work) -> None:
    """Remember the seal outside of the archive."""
    folder, seal = work.segment.folder, work.seal
    assert seal is not None  # noqa: S101 (the steps are in order)
    known = keys.pinned(folder, work.keys)
    manifest = seal.manifest
    if known is None or known.archive != manifest.archive or known.segment < manifest.segment:
        pin = keys.Pin(archive=manifest.archive, segment=manifest.segment, seal=seal.hash)
        keys.pin(folder, work.keys, pin)


def _compress(work: Work) -> None:
    """Write the compressed file under a name that nobody reads."""
    segment, seal = work.segment, work.seal
    assert seal is not None  # noqa: S101 (the steps are in order)
    new = _new(segment)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with segment.path.open("rb") as source, os.fdopen(descriptor, "wb") as target:
            zst.compress(source, seal.manifest.bytes, target)
            target.flush()
            os.fsync(target.fileno())
    except OSError:
        new.unlink(missing_ok=True)  # a full disk gets its room back
        raise


def _check(work: Work) -> None:
    """Read it back: it will be the only copy."""
    seal, new = work.seal, _new(work.segment)
    assert seal is not None  # noqa: S101 (the steps are in order)
    try:
        with zst.opened(new) as file:
            found = scan(file)
    except SegmentDamaged as error:
        raise SealError(f"{new} was not written as it should be: {error.reason}") from error
    if found is None or found.root != seal.manifest.root:
        raise SealError(f"{new} does not hold what was compressed into it")


def _name(work: Work) -> None:
    _new(work.segment).replace(work.segment.compressed)
    disk.sync_folder(work.segment.compressed.parent)


def _discard(work: Work) -> None:
    disk.remove(work.segment.path)


#: In this order; begun again after any of them, they come to the same end.
STEPS: Final[tuple[Callable[[Work], None], ...]] = (
    _measure,
    _sign,
    _pin,
    _compress,
    _check,
    _name,
    _discard,
)


def seal_closed(folder: Path, keys_folder: Path) -> Outcome:
    """Seal what is closed, oldest first, and finish what was begun; the key is made if need be.

    SealError when nothing can be sealed, OSError when the disk says so.
    """
    outcome = Outcome()
    while True:
        # for each anew: a sink that starts meanwhile waits for nobody
        with keys.locked(folder):
            signer = keys.signer(folder, keys_folder)
            todo = [s for s in due(folder) if s.name not in outcome.refused]
            if not todo:
                return outcome
            work = Work(todo[0], keys_folder, signer)
            try:
                for step in STEPS:
                    step(work)
            except Refused as error:
                outcome.refused[work.segment.name] = str(error)
                continue
            if work.seal is not None:
                outcome.sealed.append(work.seal)


def due(folder: Path) -> list[Segment]:
    """Closed segments that are still plain text, in order."""
    return [segment for segment in segments.closed(folder) if segment.path.exists()]


def _new(segment: Segment) -> Path:
    return segment.compressed.with_name(f".{segment.compressed.name}.new")


def _last_hash(segment: Segment) -> str | None:
    """The hash of its last line; None where that cannot be known."""
    try:
        seal = seals.read(segment)
        if seal is not None:
            return seal.manifest.last
        line = segments.tail(segment).line
    except (ValueError, HandlersError):
        return None
    return line.hash if line is not None else lines.NO_HASH


def main(arguments: list[str]) -> int:
    """Seal what is closed in FOLDER with the keys in KEYS; the exit code."""
    from opsmesh.router import logs

    os.nice(NICE)
    logs.configure("sink")
    folder, keys_folder = map(Path, arguments)
    try:
        outcome = seal_closed(folder, keys_folder)
    except (HandlersError, OSError) as error:
        log.error("evidence.not_sealed", reason=str(error))  # noqa: TRY400 (a fact, not a bug)
        return 1
    for seal in outcome.sealed:
        log.info("evidence.sealed", file=seal.manifest.file, lines=seal.manifest.lines)
    for file, reason in outcome.refused.items():
        log.error("evidence.not_sealed", file=file, reason=reason)
    return REFUSED if outcome.refused else 0


if __name__ == "__main__":
    gc.freeze()  # what was imported stays: it is never looked through for rubbish again
    raise SystemExit(main(sys.argv[1:]))
