"""Journal entries of real runs (systemd 252), and entries that somebody made up."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from opsmesh.producers.journal.classify import FIELDS, MATCHES, OOMD_KILLED, Finding, classify
from opsmesh.producers.journal.kernel import unit_of
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
        ("service.start.failed.user", "service.start.failed"),
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


def test_every_topic_of_the_journal_has_a_capture() -> None:
    """Real entries tell each topic that the registry gives to the journal, and no other."""
    owned = {topic.name for topic in registry.load_registry(None) if topic.owner == "journal"}
    entries = [*capture("journal_vm.jsonl"), *EVENTS["service.start.failed.user"]]
    assert {finding.topic for finding in story(entries)} == owned


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


USER_MANAGER = {
    "_PID": "900",
    "_UID": "1000",
    "_SYSTEMD_UNIT": "user@1000.service",
    "_SYSTEMD_USER_UNIT": "init.scope",
    "_SYSTEMD_CGROUP": "/user.slice/user-1000.slice/user@1000.service/init.scope",
    "_EXE": "/usr/lib/systemd/systemd",
    "USER_UNIT": "sync.service",
}


def as_user(entry: dict[str, Any], **changes: str) -> dict[str, Any]:
    """The entry as a user's manager would have logged it, but for the changes."""
    kept = {name: value for name, value in entry.items() if name != "UNIT"}
    return {**kept, **USER_MANAGER, **changes}


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
    [finding] = classify(as_user(EVENTS["service.start.failed"][0]))
    assert (finding.unit, finding.payload["manager"]) == ("sync.service", "user")
    assert (finding.manager, finding.owner) == ("user", "1000")


@pytest.mark.parametrize(
    "forged",
    [
        {"_UID": "1001"},
        {"_SYSTEMD_UNIT": "session-2.scope"},
        {"_SYSTEMD_USER_UNIT": "app-evil.service"},
        {"_SYSTEMD_USER_UNIT": ""},
        {"_SYSTEMD_CGROUP": "/user.slice/user-1000.slice/user@1000.service/app.slice/init.scope"},
        {"_SYSTEMD_CGROUP": "/user.slice/user-1001.slice/user@1001.service/init.scope"},
        {"_SYSTEMD_CGROUP": ""},
        {"_EXE": "/home/mallory/systemd"},
        {"_EXE": "/home/mallory/usr/lib/systemd/systemd"},
        {"_EXE": "/usr/bin/logger"},
        {"_TRANSPORT": "stdout"},
        {"_TRANSPORT": "syslog"},
    ],
    ids=str,
)
def test_whoever_is_not_the_users_own_manager_is_not_believed(forged: dict[str, str]) -> None:
    """One field that journald fills in otherwise, and the entry says nothing."""
    for topic in ("service.start.failed", "service.unit.flapping", "unit.watchdog"):
        entry = EVENTS[topic][0]
        assert classify(as_user(entry))
        assert classify(as_user(entry, **forged)) == []


def test_a_users_manager_cannot_speak_of_the_systems_units() -> None:
    """UNIT= in an entry of a user's manager is not looked at, nor is its word on core dumps."""
    entry = as_user(EVENTS["service.start.failed"][0], UNIT="sshd.service")
    assert [finding.unit for finding in classify(entry)] == ["sync.service"]
    del entry["USER_UNIT"]
    assert classify(entry) == []
    assert classify(as_user(EVENTS["system.coredump.created"][0])) == []


def test_what_root_writes_to_dev_kmsg_is_not_the_kernels() -> None:
    """Only the kernel can write with its own facility, whatever name the line goes under."""
    for facility in ("1", "3", ""):
        lines = [
            {**entry, "SYSLOG_FACILITY": facility, "SYSLOG_IDENTIFIER": "kernel"}
            for entry in EVENTS["system.oom.killed.kernel"]
        ]
        assert story(lines) == []


def test_a_kernels_kill_has_the_unit_the_limit_and_the_size() -> None:
    """The line that chooses the victim and the one that kills it are one event."""
    [oom] = story(EVENTS["system.oom.killed.kernel"])
    assert oom.unit == "t-oom.service"
    assert oom.payload["constraint"] == "CONSTRAINT_MEMCG"
    assert oom.payload["cgroup"] == "/system.slice/t-oom.service"
    assert (oom.payload["process"], oom.payload["pid"]) == ("python3", 175)
    assert oom.payload["rss_kib"] == 38480 + 5100


def test_a_kill_whose_first_line_the_kernel_left_out_is_told_without_its_unit() -> None:
    """The kernel limits the rate of the line that names the control group."""
    _, killed = EVENTS["system.oom.killed.kernel"]
    [oom] = story([killed])
    assert (oom.unit, oom.payload["pid"]) == ("", 175)
    member = {**killed, "MESSAGE": killed["MESSAGE"].replace("175", "176")}
    assert len(story([*EVENTS["system.oom.killed.kernel"], member])) == 1


@pytest.mark.parametrize(
    ("cgroup", "unit", "owner"),
    [
        ("/system.slice/nginx.service", "nginx.service", ""),
        ("/system.slice/docker-ab.scope/init.scope", "docker-ab.scope", ""),
        (
            "/machine.slice/systemd-nspawn@x.service/payload/system.slice/sshd.service",
            "systemd-nspawn@x.service",
            "",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-a@b.service/sshd.service",
            "app-a@b.service",
            "1000",
        ),
        ("/user.slice/user-1000.slice/session-2.scope", "session-2.scope", ""),
        ("/user.slice/user-1000.slice/user@1000.service", "user@1000.service", ""),
        ("/process_api/ab", "", ""),
        ("/", "", ""),
    ],
)
def test_the_unit_of_a_control_group_is_the_first_below_the_slices(
    cgroup: str, unit: str, owner: str
) -> None:
    """A service inside a container is none of this machine's."""
    assert unit_of(cgroup) == (unit, owner)


def at(entry: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The entry, so many seconds later."""
    us = int(entry["__REALTIME_TIMESTAMP"]) + int(seconds * 1e6)
    return {**entry, "__REALTIME_TIMESTAMP": str(us)}


def test_a_unit_that_outlives_a_kill_is_told_of_again() -> None:
    """With OOMPolicy=continue one run has several kills; how it ends is no further one."""
    [hit] = [
        e
        for e in EVENTS["system.oom.killed"]
        if e["UNIT"] == "t-oom.service" and "UNIT_RESULT" not in e
    ]
    [ended] = [e for e in EVENTS["system.oom.killed"] if "UNIT_RESULT" in e]
    run = [hit, at(hit, 1), at(hit, 3600), at(ended, 3690)]
    assert [f.topic for f in story(run)] == ["system.oom.killed"] * 2 + ["service.start.failed"]


def test_oomds_kill_is_an_oom_kill() -> None:
    """systemd-oomd kills in user space; the manager tells of it with an id of its own."""
    [hit] = [
        e
        for e in EVENTS["system.oom.killed"]
        if e["UNIT"] == "t-oom.service" and "UNIT_RESULT" not in e
    ]
    message = "t-oom.service: systemd-oomd killed 3 process(es) in this unit."
    entry = {**hit, "MESSAGE_ID": OOMD_KILLED, "MESSAGE": message}
    [oom] = story([entry, at(hit, 1)])
    assert oom.topic == "system.oom.killed"
    assert f"MESSAGE_ID={OOMD_KILLED}" in MATCHES


def test_a_kill_below_a_users_manager_is_not_told_again_for_the_manager() -> None:
    """The kernel counts a kill in every control group above the victim's."""
    [hit] = [
        e
        for e in EVENTS["system.oom.killed"]
        if e["UNIT"] == "t-oom.service" and "UNIT_RESULT" not in e
    ]
    below = as_user(hit)
    above = {**at(hit, 12), "UNIT": "user@1000.service", "INVOCATION_ID": "ab" * 16}
    assert [finding.unit for finding in story([below, above])] == ["sync.service"]
    assert [finding.unit for finding in story([above])] == ["user@1000.service"]


@pytest.mark.parametrize("result", ["dependency", "timeout", "assert", "unsupported", "frozen"])
def test_a_start_job_that_ends_badly_is_a_failed_start(result: str) -> None:
    """Even when the unit's run before, whose id the entry holds, has failed already."""
    [*_, entry] = EVENTS["service.start.failed.job"]
    first, second = entry, {**entry, "JOB_RESULT": result}
    told = story([first, second])
    assert [f.payload["result"] for f in told] == ["job-failed", f"job-{result}"]
    assert "invocation_id" not in told[1].payload


@pytest.mark.parametrize("result", ["canceled", "skipped", "invalid", "collected", "done", ""])
def test_a_job_that_was_called_off_is_no_failure(result: str) -> None:
    """Nor is a job that stops or reloads a unit."""
    entry = EVENTS["service.start.failed.job"][0]
    assert classify({**entry, "JOB_RESULT": result}) == []
    assert classify({**entry, "JOB_TYPE": "stop"}) == []


@pytest.mark.parametrize(
    "result", ["protocol", "resources", "exit-code", "some-failure-of-a-later-systemd"]
)
def test_a_result_that_is_no_success_is_a_failure(result: str) -> None:
    """New kinds of failure come with new versions of systemd."""
    entry = {**EVENTS["service.start.failed"][0], "UNIT_RESULT": result}
    assert [finding.payload["result"] for finding in classify(entry)] == [result]
    assert classify({**entry, "UNIT_RESULT": "exec-condition"}) == []


def test_a_socket_that_is_triggered_too_often_is_throttled() -> None:
    """Sockets, paths and automounts have limits whose only entry is their result."""
    entry = {**EVENTS["service.start.failed"][0], "UNIT": "x.socket"}
    for result in ("trigger-limit-hit", "service-start-limit-hit", "unit-start-limit-hit"):
        told = story([{**entry, "UNIT_RESULT": result}])
        assert [f.topic for f in told] == ["service.restart.throttled", "service.start.failed"]


def test_a_throttled_unit_says_how_often_it_was_restarted() -> None:
    """The refusal comes right after the restart that it refuses; it is told once."""
    told = [f for f in story(capture("journal_vm.jsonl")) if f.topic == "service.restart.throttled"]
    assert [f.payload.get("restarts") for f in told if f.unit == "t-throttle.service"] == [3]
    clean = story(capture("start_limit_clean_exit.jsonl"))
    assert counted(clean)["service.restart.throttled", "t-thr2.service"] == 1


def test_two_users_units_of_one_name_are_two_units() -> None:
    """Restarts of one user's unit do not make another user's flap."""
    entries = EVENTS["service.unit.flapping"]
    cgroup = "/user.slice/user-1001.slice/user@1001.service/init.scope"
    other = {"_UID": "1001", "_SYSTEMD_UNIT": "user@1001.service", "_SYSTEMD_CGROUP": cgroup}
    mixed = [as_user(entries[0]), as_user(entries[1], **other), as_user(entries[2])]
    assert story(mixed, Tracker(flap_restarts=3)) == []
    assert len(story(mixed, Tracker(flap_restarts=2))) == 1


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


def test_hostile_fields_are_no_news_and_no_crash() -> None:
    """10,000 entries with fields of any kind are read; none that a stranger sent is believed."""
    chance = random.Random(5)
    tracker = Tracker()
    values: list[Any] = [
        None,
        "",
        "\0",
        "9" * 5000,
        "-1",
        "\ud800",
        [],
        [300],
        [-1],
        [True],
        [[1]],
        [None],
        {},
        1.5,
        True,
        list(b"\xff\xfe"),
        "a" * 100_000,
        "user@.service",
        "user@1000.service",
        "../../x",
        "oom-kill:constraint=",
        "Out of memory: Killed process",
        "init.scope",
        "\n\n",
        "٣",
    ]
    known = [entry for entries in EVENTS.values() for entry in entries]
    for _ in range(10_000):
        entry = dict(chance.choice(known))
        for name in chance.sample([*FIELDS, "__REALTIME_TIMESTAMP"], 6):
            entry[name] = chance.choice(values)
        entry["_PID"], entry["_UID"] = "4711", "1000"
        entry["_SYSTEMD_UNIT"] = "session-2.scope"
        if entry.get("_TRANSPORT") == "kernel":
            entry["SYSLOG_FACILITY"] = "1"
        assert tracker.see(entry) == []
    for _ in range(10_000):
        entry = dict(chance.choice(known))
        for name in chance.sample([*FIELDS, "__REALTIME_TIMESTAMP"], 3):
            entry[name] = chance.choice(values)
        for finding in tracker.see(entry):
            json.dumps(finding.payload)
    assert len(json.dumps(tracker.dump())) < 1 << 20
