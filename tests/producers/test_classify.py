"""Journal entries of real runs (systemd 252), and entries that somebody made up."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from opsmesh.producers.journal.classify import FIELDS, Finding, classify
from opsmesh.producers.journal.tracker import Tracker
from opsmesh.schemas import registry

DATA = Path(__file__).parent / "data"
EVENTS: dict[str, list[dict[str, Any]]] = json.loads((DATA / "journal_events.json").read_bytes())


def capture(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def story(entries: list[dict[str, Any]], tracker: Tracker | None = None) -> list[Finding]:
    tracker = tracker or Tracker()
    return [finding for entry in entries for finding in tracker.see(entry)]


def counted(findings: list[Finding]) -> Counter[tuple[str, str]]:
    return Counter((finding.topic, finding.unit) for finding in findings)


@pytest.mark.parametrize(
    ("group", "topic"),
    [
        ("service.start.failed", "service.start.failed"),
        ("service.start.failed.job", "service.start.failed"),
        ("unit.timeout", "service.start.failed"),
        ("unit.watchdog", "service.start.failed"),
        ("service.restart.throttled", "service.restart.throttled"),
        ("service.unit.flapping", "service.unit.flapping"),
        ("system.coredump.created", "system.coredump.created"),
        ("system.oom.killed", "system.oom.killed"),
    ],
)
def test_every_captured_entry_has_its_topic(group: str, topic: str) -> None:
    """Each entry that was captured for a topic is classified as that topic."""
    for entry in EVENTS[group]:
        assert topic in [finding.topic for finding in classify(entry)]


def test_every_finding_fits_the_payload_that_its_topic_registers() -> None:
    """The registry takes what the producer would emit of a whole captured run."""
    topics = registry.load_registry(None)
    for name in ("journal_vm.jsonl", "journal_nspawn.jsonl", "start_limit_clean_exit.jsonl"):
        for finding in story(capture(name)):
            topics.check(finding.topic, {**finding.payload, "cursor": "s=1;i=1"})


def test_the_subject_is_the_unit_and_not_the_sender() -> None:
    """The unit of a failure is UNIT=, although _SYSTEMD_UNIT says init.scope."""
    assert {finding.unit for finding in classify(EVENTS["service.start.failed"][0])} == {
        "t-fail.service"
    }


def test_a_made_up_entry_of_an_ordinary_process_is_not_believed() -> None:
    """Any process can log a unit's failure; only a manager's own is one."""
    for entries in EVENTS.values():
        for entry in entries:
            forged = {**entry, "_PID": "4711", "_UID": "1000", "_SYSTEMD_UNIT": "session-2.scope"}
            if forged["_TRANSPORT"] == "kernel":
                forged["_TRANSPORT"] = "syslog"
            assert classify(forged) == []


def test_a_user_managers_failure_names_the_user_unit() -> None:
    """The user manager in its own service is trusted, and its subject is USER_UNIT=."""
    entry = {
        **EVENTS["service.start.failed"][0],
        "_PID": "900",
        "_UID": "1000",
        "_SYSTEMD_UNIT": "user@1000.service",
        "_SYSTEMD_USER_UNIT": "init.scope",
        "USER_UNIT": "sync.service",
    }
    del entry["UNIT"]
    [finding] = classify(entry)
    assert (finding.unit, finding.payload["manager"]) == ("sync.service", "user")


def test_another_users_manager_cannot_speak_for_a_user() -> None:
    """An entry whose uid is not that of the user@ service that it comes from is not believed."""
    entry = {
        **EVENTS["service.start.failed"][0],
        "_PID": "900",
        "_UID": "1001",
        "_SYSTEMD_UNIT": "user@1000.service",
        "_SYSTEMD_USER_UNIT": "init.scope",
        "USER_UNIT": "sync.service",
    }
    assert classify(entry) == []


def test_a_core_dumps_environment_and_arguments_are_never_published() -> None:
    """What may hold secrets is neither in the payload nor among the fields that are read."""
    for entry in EVENTS["system.coredump.created"]:
        text = json.dumps(classify(entry)[0].payload)
        for field in ("ENVIRON", "CMDLINE", "OPEN_FDS", "PROC_MAPS"):
            assert entry[f"COREDUMP_{field}"]
            assert entry[f"COREDUMP_{field}"][:40] not in text
            assert f"COREDUMP_{field}" not in FIELDS


def test_a_whole_run_tells_each_failure_once() -> None:
    """Of the run of nine test units, each unit's runs are told once for each topic."""
    told = counted(story(capture("journal_vm.jsonl")))
    assert told["system.oom.killed", "t-oom.service"] == 1
    assert told["service.start.failed", "t-oom.service"] == 1
    assert told["service.start.failed", "t-watchdog.service"] == 1
    assert told["system.coredump.created", "t-watchdog.service"] == 1
    assert told["service.restart.throttled", "t-throttle.service"] == 1
    assert told["service.start.failed", "t-timeout.service"] == 1
    assert told["service.start.failed", "t-throttle.service"] == 3
    assert told["service.unit.flapping", "t-flap.service"] == 3
    assert not [unit for topic, unit in told if unit.endswith(".slice")]


def test_a_start_limit_after_clean_exits_is_throttled() -> None:
    """A unit that always ended well is throttled as well."""
    assert counted(story(capture("start_limit_clean_exit.jsonl")))[
        "service.restart.throttled", "t-thr2.service"
    ]


def test_a_failure_holds_how_its_process_ended() -> None:
    """The exit status of an earlier entry of the same run is part of the failure."""
    [failed] = [f for f in story(capture("journal_vm.jsonl")) if f.unit == "t-fail.service"]
    assert (failed.payload["exit_code"], failed.payload["exit_status"]) == ("exited", 3)


def test_the_kernels_line_names_the_victim() -> None:
    """An OOM kill is told with the process that the kernel chose."""
    [oom] = [f for f in story(capture("journal_vm.jsonl")) if f.topic == "system.oom.killed"]
    assert (oom.payload["process"], oom.payload["pid"]) == ("python3", 175)


def test_restarts_that_are_far_apart_are_no_flapping() -> None:
    """Three restarts are flapping only within the window."""
    entries = EVENTS["service.unit.flapping"]
    assert len(story(entries, Tracker(flap_restarts=3, flap_window=60))) == 1
    assert story(entries, Tracker(flap_restarts=3, flap_window=2)) == []
    assert story(entries, Tracker(flap_restarts=4, flap_window=60)) == []


def test_a_tracker_that_was_written_down_goes_on_where_it_was() -> None:
    """Cut anywhere, a run tells the same as uncut."""
    entries = capture("journal_vm.jsonl")
    whole = counted(story(entries))
    for cut in range(0, len(entries), 7):
        first = Tracker()
        told = story(entries[:cut], first)
        second = Tracker()
        second.restore(json.loads(json.dumps(first.dump())))
        assert counted(told + story(entries[cut:], second)) == whole


def test_odd_field_values_are_read_as_text_or_nothing() -> None:
    """Bytes, repeated fields and missing values never raise."""
    entry = EVENTS["service.start.failed"][0]
    assert classify({**entry, "UNIT": list(b"caf\xff.service")})[0].unit == "caf�.service"
    assert classify({**entry, "UNIT": ["a.service", "b.service"]})[0].unit == "a.service"
    assert classify({**entry, "UNIT": None}) == []
    assert classify({}) == []
