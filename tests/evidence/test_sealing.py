"""Sealing: whatever is killed at whatever moment, the next start finishes it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import pytest

from opsmesh.handlers.errors import SealError
from opsmesh.handlers.evidence import ed25519, keychain, keys, reader, sealing, seals, segments
from opsmesh.handlers.evidence.sealing import STEPS
from opsmesh.handlers.evidence.verify import verify
from tests.evidence.made import DAY, MORNING, archive, change, event, opened, parsed, paths
from tests.evidence.sealed import found, here, made, raws, seal

NAMES = [step.__name__.strip("_") for step in STEPS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the archive lies."""
    return tmp_path / "evidence"


@pytest.fixture
def own_keys(tmp_path: Path) -> Path:
    """Where its keys lie."""
    return tmp_path / "keys"


def test_sealed_segment_is_compressed_and_says_what_it_holds(folder: Path, own_keys: Path) -> None:
    """A seal names the archive, the lines, their hashes and the seal before; the plain file is
    gone."""
    first, second, *_ = made(folder, own_keys, 25)
    one, two = seals.read(first), seals.read(second)
    assert one is not None
    assert two is not None
    lines = parsed(folder)
    facts = two.manifest
    assert (facts.segment, facts.lines, facts.first_seq, facts.last_seq) == (2, 10, 11, 20)
    assert (facts.prev, facts.last) == (lines[9].hash, lines[19].hash)
    assert (one.manifest.previous, facts.previous) == (keychain.NONE, one.hash)
    assert facts.bytes == segments.size(second) == sum(map(len, raws(second)))
    assert [p.name.partition(".")[2] for p in paths(folder)] == ["jsonl.zst", "jsonl.zst", "jsonl"]
    assert not second.path.exists()


def test_everything_reads_sealed_segments(folder: Path, own_keys: Path) -> None:
    """The reader gives the same messages before and after sealing."""
    archive(folder, 40, segment_bytes=2000)
    before = list(reader.read(folder)), reader.newest(folder, 12)
    seal(folder, own_keys)
    assert len(segments.sealed(folder)) > 2
    assert (list(reader.read(folder)), reader.newest(folder, 12)) == before


def test_follow_goes_on_in_a_segment_that_is_sealed_meanwhile(folder: Path, own_keys: Path) -> None:
    """A segment that is compressed while it is followed loses nothing and repeats nothing."""
    archive(folder, 5)
    stop, seen = threading.Event(), []
    for item in reader.follow(folder, 2, stop=stop):
        seen.append(item.seq)
        if item.seq == 5:
            archive(folder, 3)
            with opened(folder) as writer:
                writer.end_segment()
            seal(folder, own_keys)
            archive(folder, 2)
        if item.seq == 10:
            stop.set()
            break
    assert seen == list(range(4, 11))


def test_keys_and_seals_are_their_owners_alone(folder: Path, own_keys: Path) -> None:
    """The private key and the archive's files are 0600; the public key may be read."""
    made(folder, own_keys)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in own_keys.iterdir()}
    assert (modes.pop(keys.PUBLIC), set(modes.values())) == (0o644, {0o600})
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()} == {0o600}


def test_segments_of_an_older_version_are_sealed(folder: Path, own_keys: Path) -> None:
    """An archive of many plain files, made before there were seals, is sealed in its order."""
    archive(folder, 60, step_us=DAY // 20)
    (folder / keys.LOCK).unlink(missing_ok=True)
    seal(folder, own_keys)
    assert [s.number for s in segments.sealed(folder)] == [1, 2, 3]
    assert found(here(folder, own_keys)) == []
    assert here(folder, own_keys).sealed == 3


def test_since_checks_the_seals_of_later_days(folder: Path, own_keys: Path) -> None:
    """With `since`, sealed files of earlier days are not read; what is wrong later is found."""
    archive(folder, 60, step_us=DAY // 20)
    seal(folder, own_keys)
    first, second, third, _ = segments.listing(folder)
    first.compressed.write_bytes(b"")
    since = date(2026, 11, 24)
    report = verify(folder, since=since)
    assert (report.intact, report.segments, report.sealed) == (True, 3, 2)
    assert not verify(folder).intact
    third.compressed.write_bytes(second.compressed.read_bytes())
    assert found(verify(folder, since=since)) == [("swapped segment", "3.jsonl", 1)]


@pytest.mark.parametrize("stopped_after", range(len(STEPS)), ids=NAMES)
def test_killed_after_any_step_it_is_finished_at_the_next_start(
    folder: Path, own_keys: Path, stopped_after: int
) -> None:
    """A sealing process that is killed -9 between any two steps leaves an archive that verifies,
    reads and goes on, and that the next one finishes."""
    archive(folder, 10)
    with opened(folder) as writer:
        writer.end_segment()
    code = f"""
import os, signal, sys
from pathlib import Path
from opsmesh.handlers.evidence import sealing
step = sealing.STEPS[{stopped_after}]
def last(work):
    step(work)
    os.kill(os.getpid(), signal.SIGKILL)
sealing.STEPS = (*sealing.STEPS[:{stopped_after}], last)
sealing.main(sys.argv[1:])
"""
    command = [sys.executable, "-c", code, str(folder), str(own_keys)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert found(here(folder, own_keys)) == []
    assert [item.seq for item in reader.read(folder)] == list(range(1, 11))
    archive(folder, 2)  # a sink goes on in another segment, and finds the end
    assert [item.seq for item in reader.read(folder)] == list(range(1, 13))
    seal(folder, own_keys)
    first, second = segments.listing(folder)
    assert first.compressed.exists()
    assert not first.path.exists()
    assert not second.seal.exists()
    assert [p.name for p in folder.rglob("*.new")] == []
    assert found(here(folder, own_keys)) == []


def test_torn_temporary_files_are_written_again(folder: Path, own_keys: Path) -> None:
    """What a power cut left under temporary names is overwritten."""
    archive(folder, 10)
    with opened(folder) as writer:
        writer.end_segment()
    [segment] = segments.listing(folder)
    (segment.path.parent / f".{segment.compressed.name}.new").write_bytes(b"\0" * 5000)
    (segment.path.parent / f".{segment.seal.name}.new").write_bytes(b'{"form')
    seal(folder, own_keys)
    assert found(here(folder, own_keys)) == []
    assert [p.name for p in folder.rglob("*.new")] == []


def test_changed_segment_is_not_sealed(folder: Path, own_keys: Path) -> None:
    """What was changed before it was sealed gets no seal; later segments get theirs, and verify
    names the change."""
    made_paths = archive(folder, 60, step_us=DAY // 20)
    change(made_paths[1], lambda now: now.__delitem__(4))
    outcome = sealing.seal_closed(folder, own_keys)
    assert [seal.manifest.segment for seal in outcome.sealed] == [1, 3]
    assert list(outcome.refused.values()) == ["its lines are not what was written"]
    kinds = {kind for kind, *_ in found(here(folder, own_keys))}
    assert kinds == {"missing seal", "removed"}


def test_changed_segment_is_not_taken_for_what_was_sealed(folder: Path, own_keys: Path) -> None:
    """Between the seal and its compression nothing can be exchanged."""
    archive(folder, 10)
    with opened(folder) as writer:
        writer.end_segment()
    [segment] = segments.listing(folder)
    with keys.locked(folder):
        work = sealing.Work(segment, own_keys, keys.signer(folder, own_keys))
        for step in STEPS[:2]:
            step(work)
    fresh = folder.parent / "other"
    with opened(fresh) as other:
        for seq in range(1, 11):
            other.event(seq, MORNING, event(seq + 100))
        other.commit()
    segment.path.write_bytes(paths(fresh)[0].read_bytes())
    outcome = sealing.seal_closed(folder, own_keys)
    assert list(outcome.refused.values()) == ["its lines are not those that were sealed"]
    assert found(here(folder, own_keys)) == [("edited", "1.jsonl", 10)]


def test_open_segment_is_never_sealed(folder: Path, own_keys: Path) -> None:
    """Without an end that was noted, the last segment stays open."""
    archive(folder, 10)
    seal(folder, own_keys)
    assert segments.sealed(folder) == []
    assert len(archive(folder, 5)) == 1


def test_writer_leaves_a_segment_alone_that_somebody_seals(folder: Path, own_keys: Path) -> None:
    """While the seal lock is held, a writer that starts begins a new segment and waits for
    nobody."""
    archive(folder, 10)
    with keys.locked(folder):
        archive(folder, 2)
    assert [segment.first_seq for segment in segments.listing(folder)] == [1, 11]
    seal(folder, own_keys)
    assert found(here(folder, own_keys)) == []


def test_writer_goes_on_behind_a_sealed_end(folder: Path, own_keys: Path) -> None:
    """When the last segment is sealed, a writer finds its end in the compressed file."""
    made(folder, own_keys, 10)
    with opened(folder) as writer:
        assert (writer.seq, writer.data) == (10, event(10))
    archive(folder, 3)
    assert [line.seq for line in parsed(folder)] == list(range(1, 14))
    assert found(here(folder, own_keys)) == []


def test_full_disk_leaves_the_plain_file(folder: Path, own_keys: Path) -> None:
    """Where there is no room for the compressed file, nothing is lost and no room is kept."""
    with opened(folder) as writer:
        for seq in range(1, 200):
            writer.event(seq, MORNING, b'{"noise":"%s"}' % os.urandom(200).hex().encode())
        writer.commit()
        writer.end_segment()
    code = """
import resource, signal, sys
from opsmesh.handlers.evidence import sealing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
sys.exit(sealing.main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, str(folder), str(own_keys)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "File too large" in done.stderr) == (1, True)
    assert [p.name for p in folder.rglob("*.zst*")] == []
    seal(folder, own_keys)
    assert found(here(folder, own_keys)) == []


def test_events_of_seals_begin_no_segment(folder: Path) -> None:
    """The event that tells of a seal goes into the open segment, however full it is and whatever
    the day; any other event begins the next one."""
    told = b'{"topic":"evidence.segment.sealed","payload":{"seal":"%s"}}' % (b"x" * 500)
    with opened(folder, segment_bytes=1000) as writer:
        writer.event(1, MORNING, event(1))
        for seq in (2, 3, 4):
            writer.event(seq, MORNING + DAY, told)
        assert writer.closed == 0
        writer.event(5, MORNING + DAY, event(5))
        writer.commit()
    assert [segment.first_seq for segment in segments.listing(folder)] == [1, 5]
    assert verify(folder).intact


# Keys.


def test_key_that_is_gone_is_never_replaced_in_silence(folder: Path, own_keys: Path) -> None:
    """Without its key an archive goes on unsealed until a person accepts the loss; whoever pinned
    the old key does not accept the new one."""
    made(folder, own_keys)
    old = here(folder, own_keys).key
    (own_keys / keys.PRIVATE).unlink()
    with opened(folder) as writer:
        writer.end_segment()
    with pytest.raises(SealError, match=r"is gone; restore .*evidence\.key, or begin with a new"):
        sealing.seal_closed(folder, own_keys)
    with keys.locked(folder):
        keys.rotate(folder, own_keys, lost=True)
    seal(folder, own_keys)
    assert found(here(folder, own_keys)) == []
    assert found(verify(folder, key=old)) == [("wrong key", "4.seal.json", 1)]


def test_archive_that_is_gone_is_never_begun_anew_in_silence(folder: Path, own_keys: Path) -> None:
    """In the place of a sealed archive another one is not sealed until a person accepts the
    loss."""
    made(folder, own_keys)
    folder.rename(folder.with_name("elsewhere"))
    archive(folder, 10)
    with pytest.raises(SealError, match=r"held archive .* up to number 3"):
        sealing.seal_closed(folder, own_keys)
    kinds = [kind for kind, *_ in found(here(folder, own_keys))]
    assert kinds == ["broken keys", "missing seal", "missing segment"]
    with keys.locked(folder):
        keys.rotate(folder, own_keys, lost=True)
    seal(folder, own_keys)
    assert found(here(folder, own_keys)) == []


def test_loss_cannot_be_accepted_where_nothing_is_lost(folder: Path, own_keys: Path) -> None:
    """`--accept-loss` with the key in place is refused: the old key would not vouch for the new."""
    made(folder, own_keys)
    with keys.locked(folder), pytest.raises(SealError, match="nothing is lost"):
        keys.rotate(folder, own_keys, lost=True)


@pytest.mark.parametrize(
    ("last", "count"),
    [(keys.NEXT, 1), (keychain.NAME, 2), ("", 2), (keys.PUBLIC, 2)],
    ids=["new key", "statement", "exchange", "export"],
)
def test_rotation_that_was_killed_has_happened_or_not(
    folder: Path, own_keys: Path, last: str, count: int
) -> None:
    """A rotation that is killed -9 behind any of its writes leaves one key in force, which
    seals."""
    made(folder, own_keys)
    code = f"""
import os, signal, sys
from pathlib import Path
from opsmesh.handlers.evidence import disk, keys
folder, own_keys = map(Path, sys.argv[1:])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
write = disk.replace
def replace(path, data, **more):
    write(path, data, **more)
    if path.name == {last!r}:
        die()
disk.replace = replace
if not {last!r}:
    keys._export = die
with keys.locked(folder):
    keys.rotate(folder, own_keys)
"""
    command = [sys.executable, "-c", code, str(folder), str(own_keys)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with opened(folder) as writer:
        writer.end_segment()
    seal(folder, own_keys)
    assert found(here(folder, own_keys)) == []
    assert not (own_keys / keys.NEXT).exists()
    assert len(keychain.read(folder)) == count
    public = keys.public(own_keys)
    assert public is not None
    assert ed25519.pem(public) == (own_keys / keys.PUBLIC).read_text()
