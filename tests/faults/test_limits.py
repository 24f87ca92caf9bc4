"""The stream's `max_bytes`: the broker drops the oldest, and nobody loses by it in silence."""

from __future__ import annotations

import pytest

from tests.faults.checks import check, intact, look, rest
from tests.faults.load import load
from tests.faults.meshes import Mesh
from tests.faults.sizes import SLOW_SIZES

#: Bytes of the stream: some hundred events.
SMALL = 256 * 1024


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of this test's mesh keep little."""
    monkeypatch.setenv("OPSMESH_EVENTS__MAX_BYTES", str(SMALL))


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_max_bytes(small: None, fault: Mesh, count: int) -> None:
    """What the broker drops has been archived and decided before: evidence has all of it."""
    fault.start_all()
    with load(fault.home, count) as events:
        events.finish()
        rest(fault)
        found = check(fault, events, lost=events.acked())
    assert found.stored.total() < events.total
    assert found.report.notes == []


@pytest.mark.parametrize("count", SLOW_SIZES)
def test_max_bytes_without_a_sink(small: None, fault: Mesh, count: int) -> None:
    """What was dropped while no sink ran is noted in evidence, number by number."""
    fault.start_all()
    with load(fault.home, count) as events:
        events.reached(0.2)
        fault.kill("sink")
        events.finish()
        fault.restart("sink")
        rest(fault)
    found = look(fault)
    intact(fault, found)
    gaps = [note.facts for note in found.report.notes if note.facts["kind"] == "missing"]
    assert [len(gaps), len(found.report.notes)] == [1, 1]
    missed = int(str(gaps[0]["to"])) - int(str(gaps[0]["from"])) + 1
    assert found.archived.total() + missed == found.report.last_seq
    assert set(events.acked()) - found.archived.keys()
