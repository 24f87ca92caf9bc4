"""Files that have lost their end: of the broker's store, of the spool, of evidence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from opsmesh.handlers.evidence import segments
from opsmesh.router import spool
from tests.faults.checks import check, in_order, intact, look, once, rest, runs
from tests.faults.load import load
from tests.faults.meshes import Mesh
from tests.faults.sizes import SLOW_SIZES


def cut(path: Path, *, share: float) -> int:
    """Take this share off the end of a file; the bytes that are gone."""
    size = path.stat().st_size
    gone = round(size * share)
    os.truncate(path, size - gone)
    return gone


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_truncated_block(fault: Mesh, count: int) -> None:
    """A broker that comes back with less than it had is told of as critical and as an event;
    evidence keeps what the stream has lost and notes the place, and what comes after that is
    decided like everything else."""
    fault.start_all()
    with load(fault.home, count) as events:
        events.reached(0.5)
        with events.paused():
            rest(fault)
            fault.kill("broker")
            blocks = fault.state.glob("jetstream/jetstream/*/streams/EVENTS/msgs/*.blk")
            cut(max(blocks, key=lambda path: int(path.stem)), share=0.4)
        events.more(count // 10)
        fault.restart("broker")
        events.finish()
        rest(fault)
        found = look(fault)
        assert set(events.acked()) <= found.archived.keys()
        gone = [id for id in events.acked() if id not in found.stored]
    assert len(gone) > count / 10
    assert [line["stream"] for line in fault.log("agent", "stream.regressed")] == ["EVENTS"]
    assert [e["payload"]["stream"] for e in found.events if e["topic"] == "mesh.stream.regressed"]
    first, *others = [note.facts["kind"] for note in found.report.notes]
    assert first == "regressed"
    assert set(others) <= {"duplicate"}  # what the stream had kept
    once(found)
    in_order(found)
    intact(fault, found)
    runs(fault, found)


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_truncated_spool(fault: Mesh, count: int) -> None:
    """Of a spool file that was cut, the record at the cut is set aside and named, and nothing that
    was before or comes after it waits for it."""
    fault.start_all()
    with load(fault.home, count) as events:
        events.reached(0.3)
        fault.kill("broker")
        events.more(count // 10)
        with events.paused():
            fault.kill("agent")
            waiting = [fault.state / "spool" / n for n in spool.names(str(fault.state / "spool"))]
            largest = max(waiting, key=lambda path: path.stat().st_size)
            before, _ = spool.read(str(largest))
            cut(largest, share=0.1)
            good, torn = spool.read(str(largest))
        fault.restart_all(["broker", "agent"])
        events.finish()
        rest(fault)
        assert torn
        lost = [json.loads(line)["id"] for line in before[len(good) :]]
        found = look(fault)
        assert set(events.acked()) - found.archived.keys() == set(lost)
    (line,) = fault.log("agent", "spool.corrupt")
    kept = b"".join(part + b"\n" for part in torn)
    assert (line["records"], Path(line["kept"]).read_bytes()) == (len(torn), kept)
    once(found)
    in_order(found)
    intact(fault, found)
    runs(fault, found)


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_truncated_evidence(fault: Mesh, count: int) -> None:
    """A sink that finds less than it had written says so in the chain, and fetches it again."""
    fault.start_all()
    with load(fault.home, count) as events:
        events.reached(0.3)
        fault.kill("sink")
        cut(segments.listing(fault.evidence)[-1].path, share=0.3)
        fault.restart("sink")
        events.finish()
        rest(fault)
        found = check(fault, events)
    assert [note.facts["kind"] for note in found.report.notes] == ["truncated"]
