"""Proofs: for an event that was sealed, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from opsmesh.handlers.evidence import ed25519, keys, prove, segments
from opsmesh.handlers.evidence.locate import Place, locate
from opsmesh.handlers.evidence.prove import Proof, ProofError, Unsealed
from tests.evidence.made import MORNING, opened
from tests.evidence.sealed import change, made, seal

BARE = (
    b'{"topic":"a.b","ts_utc":"2026-11-23T09:00:00Z","source":"s","component":"c",'
    b'"severity":"info","correlation_id":"x","host":"h","session_id":"","workspace":"",'
    b'"payload":{"n":%d},"id":"event-%d"}'
)


def events(folder: Path, own_keys: Path, count: int, *, first: int = 1) -> None:
    """`count` events in a segment of their own, sealed."""
    with opened(folder) as writer:
        for seq in range(first, first + count):
            writer.event(seq, MORNING + seq, BARE % (seq, seq))
        writer.commit()
        writer.end_segment()
    seal(folder, own_keys)


def fingerprint(own_keys: Path) -> str:
    public = keys.public(own_keys)
    assert public is not None
    return ed25519.fingerprint(public)


def proof_of(folder: Path, event_id: str) -> Proof:
    place = locate(folder, event_id)
    assert place is not None
    return prove.make(place)


@pytest.fixture
def own_keys(tmp_path: Path) -> Path:
    """Where the keys lie."""
    return tmp_path / "keys"


@pytest.fixture
def folder(tmp_path: Path, own_keys: Path) -> Path:
    """Thirteen sealed events."""
    events(tmp_path / "evidence", own_keys, 13)
    return tmp_path / "evidence"


def test_every_event_can_be_proved_to_who_has_the_key(folder: Path, own_keys: Path) -> None:
    """Each event's proof holds by itself, and shows the stored bytes."""
    for n in range(1, 14):
        data = msgspec.json.encode(proof_of(folder, f"event-{n}"))
        proved = prove.check(data, fingerprint(own_keys))
        assert (proved.item.seq, proved.item.data) == (n, BARE % (n, n))
        assert len(data) < 4000


def test_proof_outlives_its_key(folder: Path, own_keys: Path) -> None:
    """After a rotation, who holds the old key or the new one accepts proofs of both times."""
    old = fingerprint(own_keys)
    with keys.locked(folder):
        keys.rotate(folder, own_keys)
    events(folder, own_keys, 5, first=14)
    for event_id in ("event-3", "event-16"):
        data = msgspec.json.encode(proof_of(folder, event_id))
        for key in (old, fingerprint(own_keys)):
            assert prove.check(data, key).manifest.key in (old, fingerprint(own_keys))


def test_event_that_is_not_sealed_yet(folder: Path) -> None:
    """An event of the open segment has no proof."""
    with opened(folder) as writer:
        writer.event(14, MORNING, BARE % (14, 14))
        writer.commit()
    with pytest.raises(Unsealed, match=r"000002-EVENTS-000000000014\.jsonl is not sealed yet"):
        proof_of(folder, "event-14")


def test_segment_that_is_not_what_was_sealed_proves_nothing(folder: Path) -> None:
    """From a changed segment no proof is made, of none of its lines."""
    [segment] = segments.listing(folder)
    change(segment, lambda now: now.__setitem__(4, now[4].replace(b'"n":5', b'"n":6')))
    with pytest.raises(ProofError, match="is not what was sealed"):
        proof_of(folder, "event-9")


def edited(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, line=proof.line.replace('"n":4', '"n":5'))


def edited_with_hash(proof: Proof) -> Proof:
    from tests.evidence.made import resealed

    line = resealed(proof.line.encode() + b"\n", b'"n":4', b'"n":5').decode().rstrip("\n")
    return msgspec.structs.replace(proof, line=line)


def renamed(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, id="event-5")


def moved(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, index=proof.index + 1)


def cut_path(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, path=proof.path[:-1])


def other_path(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, path=proof.path[::-1])


def other_root(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, seal=proof.seal.replace('"root":"', '"root":"0')[:-1])


def other_count(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, seal=proof.seal.replace('"lines":13', '"lines":14'))


def no_keys(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, keys=[])


def other_keys(proof: Proof) -> Proof:
    changed = proof.keys[0].replace('"from_segment":1', '"from_segment":0')
    return msgspec.structs.replace(proof, keys=[changed])


FORGERIES = [
    (edited, "does not fit its hash"),
    (edited_with_hash, "not among those that were sealed"),
    (renamed, "does not hold event event-5"),
    (moved, "not among those that were sealed"),
    (cut_path, "not among those that were sealed"),
    (other_path, "not among those that were sealed"),
    (other_root, "no seal"),
    (other_count, "the signature does not fit"),
    (no_keys, "no key was in force"),
    (other_keys, "not signed by its own key"),
]


@pytest.mark.parametrize(("how", "reason"), FORGERIES, ids=[how.__name__ for how, _ in FORGERIES])
def test_forged_proofs(folder: Path, own_keys: Path, how, reason: str) -> None:  # type: ignore[no-untyped-def]
    """Whatever is changed in a proof, it proves nothing, and says why."""
    forged = msgspec.json.encode(how(proof_of(folder, "event-4")))
    with pytest.raises(ProofError, match=reason):
        prove.check(forged, fingerprint(own_keys))


def test_proof_by_another_key(folder: Path, tmp_path: Path) -> None:
    """A proof whose keys do not lead to the trusted one proves nothing."""
    made(tmp_path / "other", tmp_path / "other-keys", 10)
    data = msgspec.json.encode(proof_of(folder, "event-4"))
    with pytest.raises(ProofError, match="does not follow from the trusted key"):
        prove.check(data, fingerprint(tmp_path / "other-keys"))


def test_place_of_a_line_is_its_own(folder: Path) -> None:
    """An event is found in its segment, by its line."""
    place = locate(folder, "event-7")
    assert isinstance(place, Place)
    assert (place.segment.number, place.line, place.item.seq) == (1, 7, 7)
    assert locate(folder, "event-77") is None
