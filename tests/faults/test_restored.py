"""A backup that was made under load is put back, and the mesh goes on from there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from opsmesh.handlers.care.file import Reader
from opsmesh.handlers.runs.ledger import Run
from opsmesh.router import paths, state_format
from opsmesh.router.bucket_copy import Line
from opsmesh.router.topology import EVENTS, RUNS
from tests.faults.checks import fires, in_order, intact, look, once, rest, same
from tests.faults.load import load
from tests.faults.meshes import PROFILE, TOPIC, Mesh
from tests.faults.sizes import FAST, SLOW
from tests.router.agent_process import until


def opsmesh(*argv: str) -> subprocess.CompletedProcess[str]:
    """A command, as a person types it."""
    command = [sys.executable, "-m", "opsmesh.cli.entry", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def finished(backup: Path) -> set[str]:
    """The runs that had ended, as the backup's ledger says."""
    with Reader(backup) as reader:
        lines = b"".join(reader.blocks(f"streams/KV_{RUNS}")).splitlines()
    newest = {
        line.subject: line.data for line in (msgspec.json.decode(x, type=Line) for x in lines)
    }
    runs = [msgspec.json.decode(data, type=Run) for data in newest.values() if data]
    return {run.run_id for run in runs if run.finished}


def ends(fault: Mesh) -> None:
    """Everything is stopped, as `opsmesh down` does."""
    for name in ("sink", "handlers", "agent"):
        fault.stop(name)
    fault.broker.stop()


def goes_on(fault: Mesh, backup: Path, last_seq: int) -> None:
    """What must hold once a restored mesh has come to rest."""
    done = finished(backup)
    found = look(fault)
    once(found)
    in_order(found)
    intact(fault, found)
    compared = opsmesh("evidence", "verify", "--against-stream")
    assert compared.returncode == 0, compared
    wanted = [event["id"] for event in found.events if fires(fault, event)]
    mine = [run for run in found.runs if run.profile == PROFILE]
    same("runs", [run.event_id for run in mine], wanted)
    assert [run.state for run in mine if run.state != "succeeded"] == []
    effects = Counter(line.split()[1] for line in fault.effects.read_text().splitlines())
    again = {run: effects[run] for run in done if effects[run] != 1}
    assert again == {}, "a run that the backup knew as ended has acted again"
    # nothing was sent but results: the events are those of the backup
    load_events = sum(event["topic"] == TOPIC for event in found.events)
    assert 0 < load_events <= last_seq


@pytest.mark.slow
@pytest.mark.parametrize("count", [FAST, SLOW])
def test_restored(fault: Mesh, count: int) -> None:
    """Events, ledger, positions and evidence of one moment under load come back as one: no firing
    is missing, none that had ended acts again, and the archive agrees with the stream."""
    fault.start_all()
    backup = fault.home / "b"
    with load(fault.home, count) as events:
        events.reached(0.5)
        made = opsmesh("backup", str(backup))
        assert made.returncode == 0, made
        events.finish()
        rest(fault)
    with Reader(backup) as reader:
        [last_seq] = [one.last_seq for one in reader.manifest.streams if one.name == EVENTS]
    ends(fault)
    restored = opsmesh("restore", "--replace", str(backup))
    assert restored.returncode == 0, restored
    fault.start_all()
    after = fault.home / "after"
    after.mkdir()
    with load(after, FAST // 2) as more:  # under numbers that others had before
        more.finish()
        rest(fault)
    goes_on(fault, backup, last_seq + more.total)


@pytest.mark.slow
def test_killed_in_the_middle(fault: Mesh) -> None:
    """A restore that is killed at any moment leaves a mesh that does not start, and one more brings
    all of it."""
    fault.start_all()
    backup = fault.home / "b"
    with load(fault.home, FAST) as events:
        events.finish()
        rest(fault)
        assert opsmesh("backup", str(backup)).returncode == 0
    with Reader(backup) as reader:
        [last_seq] = [one.last_seq for one in reader.manifest.streams if one.name == EVENTS]
    ends(fault)
    state, marker = Path(paths.state_dir()), Path(paths.state_dir(), state_format.RESTORING)
    moments = (marker, state / "evidence" / "head.json", state / "restore.conf")
    for moment in moments:
        argv = [sys.executable, "-m", "opsmesh.cli.entry", "restore", "--replace", str(backup)]
        moment.unlink(missing_ok=True)
        process = subprocess.Popen(argv)
        until(moment.exists, timeout=60)
        process.kill()
        process.wait(30)
        assert isinstance(state_format.hindrance(), Exception)
        assert "opsmesh restore --replace" in opsmesh("up", "--detach").stderr
    restored = opsmesh("restore", "--replace", str(backup))
    assert restored.returncode == 0, restored
    for left in state.glob("replaced-*"):
        shutil.rmtree(left)
    fault.start_all()
    rest(fault)
    goes_on(fault, backup, last_seq)
