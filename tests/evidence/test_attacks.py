"""Somebody who may write to the archive's folder, and what `verify` says of it.

The archive has three sealed segments of ten lines and an open one of five. The attacker knows all
of this code; what they have beside the folder is said by each attack.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from opsmesh.handlers.evidence import ed25519, keychain, keys, lines, seals, segments
from opsmesh.handlers.evidence.verify import verify
from tests.evidence import sealed
from tests.evidence.made import MORNING, archive, event, opened, resealed
from tests.evidence.sealed import change, found, here, made, put, raws, rechain, reseal, rewrite

#: A folder, the segments in it, and the attacker's own key.
Attack = Callable[[Path, list[segments.Segment], bytes], None]
Found = list[tuple[str, str, int]]


# Without any key: the lines.


def edit(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    change(of[1], lambda now: now.__setitem__(4, now[4].replace(b'"n":', b'"m":')))


def edit_with_hash(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    change(of[1], lambda now: now.__setitem__(4, resealed(now[4], b'"n":', b'"m":')))


def remove(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    change(of[1], lambda now: now.__delitem__(slice(4, 6)))


def insert(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    def forged(now: list[bytes]) -> None:
        before = lines.parse(now[3])
        assert before is not None
        now.insert(4, lines.of_event("EVENTS", 15, before.time, before.hash, event(99))[0])

    change(of[1], forged)


def swap_lines(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    def swapped(now: list[bytes]) -> None:
        now[4], now[5] = now[5], now[4]

    change(of[1], swapped)


def cut_end(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    change(of[1], lambda now: now.__delitem__(slice(7, 10)))


def cut_in_a_line(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    change(of[1], lambda now: now.__setitem__(slice(7, 10), [now[7][:50]]))


def add_at_end(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    last = lines.parse(raws(of[1])[-1])
    assert last is not None
    change(
        of[1], lambda now: now.append(lines.of_event("EVENTS", 21, last.time, last.hash, b"{}")[0])
    )


def rewrite_to_the_end(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    rewrite(folder, 2)


def rewrite_the_end_alone(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    change(of[1], lambda now: now.__setitem__(9, resealed(now[9], b'"n":', b'"m":')))


def replace_by_note(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    def noted(now: list[bytes]) -> None:
        before, line = lines.parse(now[3]), lines.parse(now[4])
        assert before is not None
        assert line is not None
        facts = {"kind": "missing", "from": 15, "to": 15}
        now[4] = lines.of_note("EVENTS", 15, line.time, before.hash, facts)[0]

    change(of[1], noted)
    rechain(of[1:], prev=manifest(of[1]).prev)


# Without any key: the files.


def remove_segment(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    of[1].compressed.unlink()


def remove_segment_and_seal(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    of[1].compressed.unlink()
    of[1].seal.unlink()


def exchange_segments(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    first, second = of[0].compressed.read_bytes(), of[1].compressed.read_bytes()
    of[0].compressed.write_bytes(second)
    of[1].compressed.write_bytes(first)


def add_segment(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    extra = of[1].path.with_name(of[1].path.name.replace("000000000011", "000000000012"))
    extra.write_bytes(b"".join(raws(of[1])))


def add_plain_copy(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    now = raws(of[1])
    now[4] = now[4].replace(b'"n":', b'"m":')
    of[1].path.write_bytes(b"".join(now))


def damage_file(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    data = bytearray(of[1].compressed.read_bytes())
    data[-3] ^= 1  # the checksum over everything
    of[1].compressed.write_bytes(data)


def cut_file(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    of[1].compressed.write_bytes(of[1].compressed.read_bytes()[:40])


def append_to_file(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    with of[1].compressed.open("ab") as file:
        file.write(of[0].compressed.read_bytes())


def roll_back(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    """Everything behind the second segment never happened."""
    for segment in of[2:]:
        segment.compressed.unlink(missing_ok=True)
        segment.path.unlink(missing_ok=True)
        segment.seal.unlink(missing_ok=True)
    last = manifest(of[1])
    head = segments.Head(number=2, size=last.bytes, seq=20, hash=last.last, closed=True)
    segments.write_head(folder, head)


def another_archive(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    """All of it is exchanged for an archive that another key sealed."""
    shutil.rmtree(folder)
    made(folder, folder.parent / "own-keys")


# Without any key: the seals.


def manifest(segment: segments.Segment) -> seals.Manifest:
    seal = seals.read(segment)
    assert seal is not None
    return seal.manifest


def remove_seal(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    of[1].seal.unlink()


def remove_newest_seal(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    of[2].seal.unlink()


def edit_seal(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    of[1].seal.write_bytes(of[1].seal.read_bytes().replace(b'"lines":10', b'"lines":11'))


def spoil_seal(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    of[1].seal.write_bytes(b"{}\n")


def exchange_seals(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    first, second = of[0].seal.read_bytes(), of[1].seal.read_bytes()
    of[0].seal.write_bytes(second)
    of[1].seal.write_bytes(first)


def remove_keys(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    (folder / keychain.NAME).unlink()


def edit_keys(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    chain = folder / keychain.NAME
    chain.write_bytes(chain.read_bytes().replace(b'"from_segment":1', b'"from_segment":2'))


# With a key of their own.


def reseal_under_own_key(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    changed = rewrite(folder, 2)
    reseal(changed[:2], own)


def reseal_in_the_old_name(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    changed = rewrite(folder, 2)
    reseal(changed[:2], own, key=manifest(of[1]).key)


def reseal_with_own_chain(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    changed = rewrite(folder, 1)
    (folder / keychain.NAME).unlink()
    statement = keys._begin(folder, own)[0].statement
    reseal(changed[:3], own)
    for segment in changed[:3]:
        put(segment, msgspec.structs.replace(manifest(segment), archive=statement.archive), own)


def claim_a_rotation(folder: Path, of: list[segments.Segment], own: bytes) -> None:
    """A statement that the own key came after the true one, which has not signed it."""
    entries = keychain.read(folder)
    last = entries[-1].statement
    public = ed25519.public_of(own)
    said = msgspec.structs.replace(
        last,
        number=2,
        key=ed25519.fingerprint(public),
        public=ed25519.text(public),
        from_segment=2,
        previous=entries[-1].hash,
    )
    keys._write(folder, entries, said, own, None)
    reseal(rewrite(folder, 2)[:2], own)


WITHOUT_KEY: list[tuple[Attack, Found]] = [
    (edit, [("edited", "2.jsonl", 5)]),
    (edit_with_hash, [("edited", "2.jsonl", 5)]),
    (remove, [("removed", "2.jsonl", 5)]),
    (insert, [("inserted", "2.jsonl", 5)]),
    (swap_lines, [("reordered", "2.jsonl", 6)]),
    (cut_end, [("truncated", "2.jsonl", 8)]),
    (cut_in_a_line, [("unreadable", "2.jsonl", 8), ("truncated", "2.jsonl", 9)]),
    (add_at_end, [("inserted", "2.jsonl", 11)]),
    (rewrite_to_the_end, [("edited", "2.jsonl", 10), ("edited", "3.jsonl", 10)]),
    (rewrite_the_end_alone, [("edited", "2.jsonl", 10)]),
    (replace_by_note, [("edited", "2.jsonl", 10), ("edited", "3.jsonl", 10)]),
    (remove_segment, [("missing segment", "2.jsonl", 1)]),
    (remove_segment_and_seal, [("missing segment", "3.jsonl", 1)]),
    (exchange_segments, [("swapped segment", "1.jsonl", 1), ("swapped segment", "2.jsonl", 1)]),
    (add_segment, [("extra segment", "2.jsonl", 1)]),
    (add_plain_copy, [("extra segment", "2.jsonl", 1)]),
    (damage_file, [("damaged", "2.jsonl", 1)]),
    (cut_file, [("damaged", "2.jsonl", 1)]),
    (append_to_file, [("damaged", "2.jsonl", 11)]),
    (roll_back, [("missing segment", "2.jsonl", 1)]),
    (
        another_archive,
        [
            ("wrong key", "keys.chain", 1),
            ("extra segment", "keys.chain", 1),
            ("wrong key", "1.seal.json", 1),
            ("wrong key", "2.seal.json", 1),
            ("wrong key", "3.seal.json", 1),
        ],
    ),
    (remove_seal, [("missing seal", "2.jsonl", 1)]),
    (remove_newest_seal, [("missing seal", "3.jsonl", 1)]),
    (edit_seal, [("bad seal", "2.seal.json", 1)]),
    (spoil_seal, [("bad seal", "2.seal.json", 1)]),
    (exchange_seals, [("bad seal", "1.seal.json", 1), ("bad seal", "2.seal.json", 1)]),
    (
        remove_keys,
        [
            ("broken keys", "keys.chain", 1),
            ("wrong key", "1.seal.json", 1),
            ("wrong key", "2.seal.json", 1),
            ("wrong key", "3.seal.json", 1),
        ],
    ),
    (
        edit_keys,
        [
            ("broken keys", "keys.chain", 1),
            ("wrong key", "1.seal.json", 1),
            ("wrong key", "2.seal.json", 1),
            ("wrong key", "3.seal.json", 1),
        ],
    ),
    (reseal_under_own_key, [("wrong key", "2.seal.json", 1), ("wrong key", "3.seal.json", 1)]),
    (reseal_in_the_old_name, [("bad seal", "2.seal.json", 1), ("bad seal", "3.seal.json", 1)]),
    (
        reseal_with_own_chain,
        [
            ("wrong key", "keys.chain", 1),
            ("extra segment", "keys.chain", 1),
            ("wrong key", "1.seal.json", 1),
            ("wrong key", "2.seal.json", 1),
            ("wrong key", "3.seal.json", 1),
        ],
    ),
    (claim_a_rotation, [("wrong key", "2.seal.json", 1), ("wrong key", "3.seal.json", 1)]),
]


@pytest.mark.parametrize(
    ("attack", "expected"), WITHOUT_KEY, ids=[attack.__name__ for attack, _ in WITHOUT_KEY]
)
def test_an_attack_is_named_with_file_and_line(
    tmp_path: Path, attack: Attack, expected: Found
) -> None:
    """What was done to a sealed archive is told, and where, on the machine that sealed it."""
    folder, own_keys = tmp_path / "evidence", tmp_path / "keys"
    of = made(folder, own_keys)
    assert found(here(folder, own_keys)) == []
    attack(folder, of, ed25519.generate())
    assert found(here(folder, own_keys)) == expected


#: What a stranger, who has the public key and no memory of the archive, cannot see: it may have
#: ended there.
ONLY_REMEMBERED = {roll_back, remove_newest_seal}


@pytest.mark.parametrize("attack", [a for a, _ in WITHOUT_KEY], ids=lambda attack: attack.__name__)
def test_a_stranger_with_the_public_key_sees_it_too(tmp_path: Path, attack: Attack) -> None:
    """The public key alone shows every attack but the removal of the end; for that there is the
    stream."""
    folder, own_keys = tmp_path / "evidence", tmp_path / "keys"
    of = made(folder, own_keys)
    public = keys.public(own_keys)
    assert public is not None
    attack(folder, of, ed25519.generate())
    report = verify(folder, key=ed25519.fingerprint(public))
    assert report.intact == (attack in ONLY_REMEMBERED)


# With a key that was given up, or with the one in force.


@pytest.fixture
def rotated(tmp_path: Path) -> tuple[Path, Path, bytes, list[segments.Segment]]:
    """Two segments under a first key, which was stolen, and two under a second."""
    folder, own_keys = tmp_path / "evidence", tmp_path / "keys"
    made(folder, own_keys, 20)
    stolen = (own_keys / keys.PRIVATE).read_bytes()
    with keys.locked(folder):
        keys.rotate(folder, own_keys)
    return folder, own_keys, stolen, made(folder, own_keys, 25)


def test_rotation_keeps_everything(
    rotated: tuple[Path, Path, bytes, list[segments.Segment]],
) -> None:
    """After a rotation old seals hold under the old key and new ones under the new; whoever pinned
    either of them accepts all."""
    folder, own_keys, stolen, of = rotated
    assert found(here(folder, own_keys)) == []
    assert len({manifest(segment).key for segment in of[:4]}) == 2
    old = ed25519.fingerprint(ed25519.public_of(stolen))
    report = verify(folder, key=old)
    assert (report.intact, report.sealed) == (True, 4)


def test_old_key_seals_nothing_new(
    rotated: tuple[Path, Path, bytes, list[segments.Segment]],
) -> None:
    """A seal by a key that was given up is not accepted for a segment after it."""
    folder, own_keys, stolen, _ = rotated
    reseal(rewrite(folder, 3)[:2], stolen)
    assert [f[:2] for f in found(here(folder, own_keys))] == [
        ("wrong key", "3.seal.json"),
        ("wrong key", "4.seal.json"),
    ]


def test_old_key_cannot_seal_its_own_time_again(
    rotated: tuple[Path, Path, bytes, list[segments.Segment]],
) -> None:
    """What the old key sealed is fixed by the new one's statement and by the next seal."""
    folder, own_keys, stolen, of = rotated
    change(of[1], lambda now: now.__setitem__(9, resealed(now[9], b'"n":', b'"m":')))
    reseal(of[1:2], stolen)
    kinds = found(here(folder, own_keys))
    assert ("resealed", "2.seal.json", 1) in kinds
    assert {kind for kind, *_ in kinds} <= {"resealed", "edited"}


def test_new_key_seals_nothing_old(
    rotated: tuple[Path, Path, bytes, list[segments.Segment]],
) -> None:
    """A seal by today's key is not accepted for a segment before it (as in CVE-2023-31439)."""
    folder, own_keys, _, of = rotated
    reseal(of[1:2], (own_keys / keys.PRIVATE).read_bytes())
    assert ("wrong key", "2.seal.json", 1) in found(here(folder, own_keys))


def test_old_key_cannot_come_back(
    rotated: tuple[Path, Path, bytes, list[segments.Segment]],
) -> None:
    """A statement that a key of an earlier time is in force again breaks the chain."""
    folder, own_keys, stolen, _ = rotated
    entries = keychain.read(folder)
    public = ed25519.public_of(stolen)
    said = msgspec.structs.replace(
        entries[-1].statement,
        number=3,
        key=ed25519.fingerprint(public),
        public=ed25519.text(public),
        from_segment=4,
        previous=entries[-1].hash,
    )
    signed = keychain.to_sign(said)
    forged = keychain.line(said, ed25519.sign(ed25519.private(stolen), signed))
    with (folder / keychain.NAME).open("ab") as chain:
        chain.write(forged)
    reseal(rewrite(folder, 4)[:1], stolen)
    assert found(here(folder, own_keys))[:2] == [
        ("broken keys", "keys.chain", 3),
        ("wrong key", "4.seal.json", 1),
    ]


def test_old_key_cannot_branch_off_for_who_holds_the_new(
    rotated: tuple[Path, Path, bytes, list[segments.Segment]],
) -> None:
    """Another successor than the true one, signed by the stolen key, is not the one that is
    trusted."""
    folder, own_keys, stolen, _ = rotated
    entries = keychain.read(folder)
    thief = ed25519.generate()
    public = ed25519.public_of(thief)
    said = msgspec.structs.replace(
        entries[-1].statement, key=ed25519.fingerprint(public), public=ed25519.text(public)
    )
    keys._write(folder, entries[:1], said, thief, ed25519.private(stolen))
    reseal(rewrite(folder, 3)[:2], thief)
    assert found(here(folder, own_keys))[0] == ("wrong key", "keys.chain", 2)


def test_keys_cut_back(rotated: tuple[Path, Path, bytes, list[segments.Segment]]) -> None:
    """Without the newest key's statement, its seals and the trust in it have nothing to hold on
    to."""
    folder, own_keys, stolen, _ = rotated
    chain = folder / keychain.NAME
    chain.write_bytes(chain.read_bytes().splitlines(keepends=True)[0])
    reseal(rewrite(folder, 3)[:2], stolen)
    assert found(here(folder, own_keys))[0] == ("wrong key", "keys.chain", 1)


def test_key_in_force_seals_again(tmp_path: Path) -> None:
    """Even with today's key, an older seal cannot be exchanged: the next one, and this machine,
    remember it."""
    folder, own_keys = tmp_path / "evidence", tmp_path / "keys"
    of = made(folder, own_keys)
    private = (own_keys / keys.PRIVATE).read_bytes()
    put(of[1], msgspec.structs.replace(manifest(of[1]), sealed_at="2026-11-24T00:00:00Z"), private)
    assert found(here(folder, own_keys)) == [("resealed", "2.seal.json", 1)]
    reseal(of[1:3], private)  # and the next one as well
    assert ("resealed", "3.seal.json", 1) in found(here(folder, own_keys))


def test_segment_of_another_archive_under_the_same_key(tmp_path: Path) -> None:
    """A file and its seal from another archive of the same machine are not accepted."""
    folder, other, own_keys = tmp_path / "evidence", tmp_path / "other", tmp_path / "keys"
    of = made(folder, own_keys)
    with opened(other) as writer:
        for seq in range(1, 36):
            writer.event(seq, MORNING + seq * 1000, event(seq, "b.b"))
            if seq % 10 == 0:
                writer.commit()
                writer.end_segment()
        writer.commit()
    sealed.seal(other, own_keys)
    theirs = segments.listing(other)
    for mine, there in zip(of[:3], theirs[:3], strict=True):
        mine.compressed.write_bytes(there.compressed.read_bytes())
        mine.seal.write_bytes(there.seal.read_bytes())
    assert [f for f in found(here(folder, own_keys)) if f[0] == "bad seal"] == [
        ("bad seal", f"{number}.seal.json", 1) for number in (1, 2, 3)
    ]


def test_any_single_changed_byte_of_a_compressed_file_is_found(tmp_path: Path) -> None:
    """Whichever byte of a compressed file is changed, its file is named."""
    folder, own_keys = tmp_path / "evidence", tmp_path / "keys"
    [segment] = made(folder, own_keys, 10)
    data = segment.compressed.read_bytes()
    for at in range(len(data)):
        segment.compressed.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        report = here(folder, own_keys)
        assert {Path(p.file).name for p in report.problems} & {
            segment.compressed.name,
            segment.path.name,
        }, at
    segment.compressed.write_bytes(data)
    assert here(folder, own_keys).intact


@pytest.mark.parametrize("name", ["seal", "keys"])
def test_any_single_changed_byte_of_what_is_signed_is_found(tmp_path: Path, name: str) -> None:
    """Whichever byte of a seal or of the chain of keys is changed, verify says so."""
    folder, own_keys = tmp_path / "evidence", tmp_path / "keys"
    [segment] = made(folder, own_keys, 10)
    path = segment.seal if name == "seal" else folder / keychain.NAME
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert not here(folder, own_keys).intact, at


def test_torn_end_of_the_open_segment_is_no_tampering(tmp_path: Path) -> None:
    """Behind sealed segments, too, a last line without its end is told, and no problem."""
    folder, own_keys = tmp_path / "evidence", tmp_path / "keys"
    of = made(folder, own_keys)
    with of[-1].path.open("ab") as file:
        file.write(b'{"stream":"EVENTS","seq":36')
    report = here(folder, own_keys)
    assert report.intact
    assert report.torn is not None
    archive(folder, 2)
    assert here(folder, own_keys).intact
