"""The journal producer as its own process, on real journal files read by the real journalctl."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.producers import journals
from tests.producers.agent import StandInAgent, spooled, until

from opsmesh.producers.journal.position import Position, find_gap, load, resume_at_us, store
from opsmesh.producers.journal.reader import Source


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A folder with a real journal file, made of the capture."""
    missing = journals.missing()
    if missing:
        assert not os.environ.get("CI"), f"{missing} must be there in CI"
        pytest.skip(f"{missing} is not installed (Debian: systemd, systemd-journal-remote)")
    return journals.make(tmp_path / "journal")


@contextmanager
def producing(journal: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The producer as a process; SIGTERM ends it, with exit code 0."""
    pairs = [word for pair in (f"directory={journal}", *options) for word in ("-o", pair)]
    command = [sys.executable, "-P", "-m", "opsmesh.producers.host", "journal", *pairs]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said.decode()


def throttled(events: list[dict[str, Any]]) -> bool:
    """Whether the capture's last event is among them."""
    return "service.restart.throttled" in [event["topic"] for event in events]


def stored(home: Path, event: dict[str, Any]) -> bool:
    """Whether the producer has noted that it emitted the event."""
    position = load(home / "state/opsmesh/producers/journal/cursor")
    return position is not None and position.cursor == event["payload"]["cursor"]


def failures(events: list[dict[str, Any]]) -> list[str]:
    return [e["payload"]["unit"] for e in events if e["topic"] == "service.start.failed"]


def test_a_first_start_tells_nothing_old_and_everything_new(
    agent: StandInAgent, home: Path, journal: Path
) -> None:
    """The first start begins at the end of the journal."""
    cursor = home / "state/opsmesh/producers/journal/cursor"
    with producing(journal) as process:
        assert process.stderr is not None
        assert b"watching" in process.stderr.readline()
        until(cursor.exists)  # the end is noted before anything is read
        journals.add(journal, journals.later("t-new.service"))
        agent.wait_for(lambda events: bool(events))
    assert failures(agent.events) == ["t-new.service"]


def test_since_tells_old_failures_numbered_and_completed(
    agent: StandInAgent, journal: Path
) -> None:
    """With `since`, old failures are told in their order, at their own times."""
    with producing(journal, "since=2000-01-01"):
        events = agent.wait_for(throttled)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["boot_id"] for event in events} == {events[0]["boot_id"]}
    assert failures(events)[:2] == ["t-fail.service", "t-throttle.service"]
    assert events[0]["source"] == "journal"
    assert events[0]["ts_utc"].startswith("2026-11-2")
    assert events[0]["payload"]["exit_status"] == 3


def test_a_restart_tells_nothing_twice_and_misses_nothing(
    agent: StandInAgent, home: Path, journal: Path
) -> None:
    """What was logged while the producer was away is told by the next start, and only that."""
    with producing(journal, "since=2000-01-01"):
        before = agent.wait_for(throttled)
        until(lambda: stored(home, before[-1]))
    journals.add(journal, journals.later("t-away.service"))
    with producing(journal, "since=2000-01-01"):
        after = agent.wait_for(lambda events: "t-away.service" in failures(events))
    assert failures(after[len(before) :]) == ["t-away.service"]
    assert len({event["id"] for event in after}) == len(after)


def test_an_entry_that_is_read_twice_gives_the_same_id(
    agent: StandInAgent, home: Path, journal: Path
) -> None:
    """With the cursor lost, the second reading derives the ids of the first."""
    readings = []
    for _ in range(2):
        agent.events.clear()
        with producing(journal, "since=2000-01-01"):
            read = agent.wait_for(throttled)
            until(partial(stored, home, read[-1]))
        (home / "state/opsmesh/producers/journal/cursor").unlink()
        readings.append([event["id"] for event in read])
    assert readings[0] == readings[1]


def test_a_cursor_that_the_journal_does_not_hold_is_a_gap(
    agent: StandInAgent, home: Path, journal: Path
) -> None:
    """journalctl would silently start over; the producer tells the gap, and no old failures."""
    gone = "s=00000000000000000000000000000001;i=3;b=4d293b4ee8474dafb36d51af99f3da25;m=1;t=1;x=1"
    path = home / "state/opsmesh/producers/journal/cursor"
    store(path, Position(gone))
    with producing(journal):
        [gap] = agent.wait_for(lambda events: bool(events))
    assert gap["topic"] == "mesh.gap.detected"
    assert gap["payload"]["kind"] == "journal_replaced"
    assert gap["payload"]["last_known"] == gone


def test_journalctl_that_dies_is_started_again(agent: StandInAgent, journal: Path) -> None:
    """After journalctl was killed, the next failure is told all the same."""
    with producing(journal, "since=2000-01-01") as process:
        seen = agent.wait_for(throttled)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        journals.add(journal, journals.later("t-after.service"))
        events = agent.wait_for(lambda events: "t-after.service" in failures(events))
    assert failures(events[len(seen) :]) == ["t-after.service"]


def test_with_no_agent_the_spool_has_every_event(home: Path, journal: Path) -> None:
    """Without an agent, the events are in the spool before the cursor is stored."""
    path = home / "state/opsmesh/producers/journal/cursor"
    with producing(journal, "since=2000-01-01") as process:
        until(lambda: throttled(spooled(home)))
        assert process.poll() is None
    kept = load(path)
    assert kept is not None
    assert kept.cursor in [event["payload"]["cursor"] for event in spooled(home)]


def test_an_idle_producer_is_small(agent: StandInAgent, journal: Path) -> None:
    """The process holds less than 30 MB, and none of the heavy modules."""
    with producing(journal, "since=2000-01-01") as process:
        agent.wait_for(lambda events: bool(events))
        status = Path(f"/proc/{process.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0])
    assert resident < 30 * 1024, f"{resident} kB"


def test_a_wrong_option_is_named(home: Path) -> None:
    """An unknown option, or a wrong value, is a usage error in one line."""
    for option, said in (
        ("speed=1", "option speed: unknown; journal has"),
        ("flap_restarts=none", "'none' is not a number"),
        ("flap_window=5", "duration '5'"),
    ):
        command = [sys.executable, "-P", "-m", "opsmesh.producers.host", "journal", "-o", option]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_position_survives_and_a_torn_one_is_a_gap(tmp_path: Path, journal: Path) -> None:
    """What is stored is read back; a file that is none reads as a position without a cursor."""
    path = tmp_path / "state/cursor"
    assert load(path) is None
    store(path, Position("s=1;i=2", {"told": {}}))
    assert load(path) == Position("s=1;i=2", {"told": {}})
    path.write_bytes(b'{"cursor": "s=')
    torn = load(path)
    assert torn == Position()
    gap = find_gap(Source(str(journal)), "", now_us=7_200_000_000)
    assert gap is not None
    assert gap.kind == "cursor_unreadable"
    assert resume_at_us(gap) == 3_600_000_000


def test_a_kept_cursor_is_no_gap(journal: Path) -> None:
    """Any cursor that the journal holds is found."""
    source = Source(str(journal))
    assert find_gap(source, source.newest(), now_us=0) is None
    command = [*source.arguments(), "--output-fields=MESSAGE"]
    lines = subprocess.run(command, capture_output=True, check=True).stdout.splitlines()
    for line in lines[::5]:
        assert find_gap(source, json.loads(line)["__CURSOR"], now_us=0) is None
