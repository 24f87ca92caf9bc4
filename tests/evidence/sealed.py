"""Sealed archives made without a broker, and what an attacker with write access does to them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import msgspec

from opsmesh.handlers.evidence import (
    ed25519,
    keychain,
    keys,
    lines,
    merkle,
    sealing,
    seals,
    segments,
    zst,
)
from opsmesh.handlers.evidence.report import Report
from opsmesh.handlers.evidence.seals import Manifest, Seal
from opsmesh.handlers.evidence.segments import Segment
from opsmesh.handlers.evidence.verify import verify
from tests.evidence.made import archive, opened

#: Lines in each segment of `made`.
EACH = 10


def made(folder: Path, keys_folder: Path, count: int = 35) -> list[Segment]:
    """An archive of `count` events, ten a segment, of which all but the last are sealed."""
    for _ in range(count // EACH):
        archive(folder, EACH)
        with opened(folder) as writer:
            writer.end_segment()
    if count % EACH:
        archive(folder, count % EACH)
    seal(folder, keys_folder)
    return segments.listing(folder)


def seal(folder: Path, keys_folder: Path) -> None:
    """Seal what is closed; nothing may be refused."""
    assert sealing.seal_closed(folder, keys_folder).refused == {}


def here(folder: Path, keys_folder: Path) -> Report:
    """What `verify` says on the machine that sealed."""
    public = keys.public(keys_folder)
    assert public is not None
    pin = keys.pinned(folder, keys_folder)
    return verify(folder, key=ed25519.fingerprint(public), pin=pin)


def found(report: Report) -> list[tuple[str, str, int]]:
    """Each problem's kind, the number and ending of its file, and its line."""
    return [(p.kind, short(p.file), p.line) for p in report.problems]


def short(file: str) -> str:
    """`3.jsonl` for the third segment, `3.seal.json` for its seal."""
    name = Path(file).name
    if "-EVENTS-" not in name:
        return name
    return f"{int(name.split('-')[1])}.{name.partition('.')[2].removesuffix('.zst')}"


def raws(segment: Segment) -> list[bytes]:
    """The segment's lines."""
    with segments.opened(segment) as file:
        return list(file)


def write(segment: Segment, changed: list[bytes]) -> None:
    """Exchange the segment's lines, compressed if they were."""
    data = b"".join(changed)
    if segment.compressed.exists():
        with segment.compressed.open("wb") as file:
            zst.compress(io.BytesIO(data), len(data), file)
    else:
        segment.path.write_bytes(data)


def change(segment: Segment, how: Callable[[list[bytes]], None]) -> None:
    """Change the segment's lines."""
    changed = raws(segment)
    how(changed)
    write(segment, changed)


def rechain(chain: list[Segment], *, prev: str) -> None:
    """Give every line of these segments the hashes that fit, and `head.json` the last of them."""
    size = seq = 0
    for segment in chain:
        changed = []
        for raw in raws(segment):
            line = lines.parse(raw)
            assert line is not None
            value = b'"%s":%s' % (line.kind.encode(), line.value)
            new, prev = lines._seal(line.stream, line.seq, line.time, prev, value)
            changed.append(new)
            seq = line.seq
        write(segment, changed)
        size = sum(map(len, changed))
    end = segments.Head(number=chain[-1].number, size=size, seq=seq, hash=prev)
    segments.write_head(chain[-1].folder, end)


def reseal(chain: list[Segment], private: bytes, *, key: str | None = None) -> None:
    """Seal these segments again as they are now, with a key of the attacker's choice."""
    public = ed25519.public_of(private)
    for segment in chain:
        old = seals.read(segment)
        assert old is not None
        now = raws(segment)
        first, last = lines.parse(now[0]), lines.parse(now[-1])
        assert first is not None
        assert last is not None
        before = [s for s in segments.sealed(segment.folder) if s.number < segment.number]
        manifest = msgspec.structs.replace(
            old.manifest,
            lines=len(now),
            bytes=sum(map(len, now)),
            first_seq=first.seq,
            last_seq=last.seq,
            prev=first.prev,
            last=last.hash,
            root=merkle.root([merkle.leaf(raw[:-1]) for raw in now]).hex(),
            previous=seals.hash_of(before[-1]) if before else keychain.NONE,
            key=key or ed25519.fingerprint(public),
        )
        put(segment, manifest, private)


def put(segment: Segment, manifest: Manifest, private: bytes) -> None:
    """Write a seal that says this, signed with this key."""
    signature = ed25519.sign(ed25519.private(private), seals.to_sign(manifest))
    segment.seal.write_bytes(Seal.of(manifest, signature).raw)


def rewrite(folder: Path, number: int) -> list[Segment]:
    """Change an event in the middle of a segment, and every hash from there to the archive's end;
    the segments that changed."""
    everything = segments.listing(folder)
    at = next(i for i, segment in enumerate(everything) if segment.number == number)
    chain = everything[at:]

    def edit(changed: list[bytes]) -> None:
        changed[4] = changed[4].replace(b'"n":', b'"m":')

    change(chain[0], edit)
    first = lines.parse(raws(chain[0])[0])
    assert first is not None
    rechain(chain, prev=first.prev)
    return chain
