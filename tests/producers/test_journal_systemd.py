"""The journal producer beside a real systemd, its system and user managers (systemd-nspawn)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, until
from tests.producers.nspawn import machine as nspawn
from tests.producers.nspawn.machine import Machine
from tests.producers.test_journal import producing

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nspawn")]

#: Seconds from an entry to its event, at most. journalctl follows within half a second.
SOON = 5.0


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A booted machine; the test is skipped, with the reason, where there can be none."""
    if reason := nspawn.missing():
        pytest.skip(reason)
    (tmp_path / "machine").mkdir()
    with nspawn.booted(tmp_path / "machine") as running:
        running.does("useradd", "-m", "-u", "1000", "ada")
        running.does("systemctl", "start", "user@1000.service")
        yield running


def told(events: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter((event["topic"], event["payload"]["unit"]) for event in events)


def test_units_that_fail_hang_flap_and_are_throttled_are_told(
    agent: StandInAgent, home: Path, machine: Machine
) -> None:
    """Each unit's failure is told once for each run, within seconds, and nothing else is."""
    cursor = home / "state/opsmesh/producers/journal/cursor"
    with producing(machine.journal):
        until(cursor.exists)
        machine.does(
            "systemctl", "start", "t-well.service", "t-fail.service", "t-many@a\\x2db.service"
        )
        events = agent.wait_for(lambda events: len(events) >= 2)
        lag = time.time() - max(_logged(event) for event in events)
        assert lag < SOON, lag
        machine.does("systemctl", "start", "--no-block", "t-depends.service", "t-watchdog.service")
        machine.does("systemctl", "start", "--no-block", "t-throttle.service", "t-flap.service")
        machine.does_as("ada", 1000, "systemctl", "--user", "start", "t-user.service")
        wanted = {
            ("service.start.failed", "t-fail.service"),
            ("service.start.failed", "t-many@a\\x2db.service"),
            ("service.start.failed", "t-hang.service"),
            ("service.start.failed", "t-depends.service"),
            ("service.start.failed", "t-watchdog.service"),
            ("service.start.failed", "t-user.service"),
            ("service.restart.throttled", "t-throttle.service"),
            ("service.unit.flapping", "t-flap.service"),
        }
        events = agent.wait_for(lambda events: wanted <= told(events).keys())
        machine.does("systemctl", "stop", "t-flap.service")
    counts = told(events)
    once = wanted - {("service.unit.flapping", "t-flap.service")}
    assert {counts[fact] for fact in once} == {1}, counts
    assert counts["service.start.failed", "t-throttle.service"] == 3
    assert ("service.start.failed", "t-well.service") not in counts
    results = {e["payload"]["unit"]: e["payload"] for e in events if "result" in e["payload"]}
    assert results["t-hang.service"]["result"] == "timeout"
    assert results["t-depends.service"]["result"] == "job-dependency"
    assert results["t-watchdog.service"]["result"] == "watchdog"
    assert results["t-user.service"]["manager"] == "user"
    assert results["t-user.service"]["exit_status"] == 4
    assert results["t-fail.service"]["exit_status"] == 3


def test_what_a_user_makes_up_is_not_told(
    agent: StandInAgent, home: Path, machine: Machine
) -> None:
    """journald takes every field of a stranger's but those that it fills in itself."""
    forged = (
        "MESSAGE=sshd.service: Failed with result 'exit-code'.",
        "MESSAGE_ID=d9b373ed55a64feb8242e02dbe79a49c",
        "UNIT=sshd.service",
        "USER_UNIT=sshd.service",
        "UNIT_RESULT=exit-code",
        "_PID=1",
        "_UID=0",
        "_SYSTEMD_UNIT=user@1000.service",
        "_SYSTEMD_USER_UNIT=init.scope",
        "_EXE=/usr/lib/systemd/systemd",
        "_TRANSPORT=kernel",
        "SYSLOG_FACILITY=0",
    )
    lines = "\\n".join(forged)
    log = ["sh", "-c", f'printf "{lines}\\n" | logger --journald']
    cursor = home / "state/opsmesh/producers/journal/cursor"
    with producing(machine.journal):
        until(cursor.exists)
        machine.does_as("ada", 1000, *log)
        machine.does_as("ada", 1000, "systemd-run", "--user", "--quiet", *log)
        shown = ("journalctl", "--output=cat", "--quiet", "UNIT=sshd.service")
        until(lambda: len(machine.does(*shown).splitlines()) == 2)
        machine.does("systemctl", "start", "t-fail.service")
        events = agent.wait_for(lambda events: bool(events))
    assert told(events) == {("service.start.failed", "t-fail.service"): 1}


def test_the_journal_is_rotated_and_vacuumed_while_it_is_read(
    agent: StandInAgent, home: Path, machine: Machine
) -> None:
    """A journal that is rotated and emptied twenty times loses no failure and tells none twice."""
    cursor = home / "state/opsmesh/producers/journal/cursor"
    with producing(machine.journal):
        until(cursor.exists)
        for count in range(1, 21):
            machine.does("systemctl", "start", f"t-many@{count}.service")
            machine.does("journalctl", "--sync")
            agent.wait_for(partial(has_failed, f"t-many@{count}.service"))
            machine.does("journalctl", "--rotate", "--vacuum-files=1")
    assert set(told(agent.events).values()) == {1}


def has_failed(unit: str, events: list[dict[str, Any]]) -> bool:
    """Whether the unit's failure is among the events."""
    return ("service.start.failed", unit) in told(events)


def _logged(event: dict[str, Any]) -> float:
    """When the journal had it, in seconds since the epoch."""
    cursor = dict(part.split("=") for part in event["payload"]["cursor"].split(";"))
    return int(cursor["t"], 16) / 1e6
