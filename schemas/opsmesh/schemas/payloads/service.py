"""service.* and system.*: what systemd, systemd-coredump and the kernel wrote to the journal."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from opsmesh.schemas.topics import Payload, Topic, doc

_Manager = Annotated[Literal["system", "user"], doc("which systemd manages the unit")]
_Invocation = Annotated[str | None, doc("systemd's id of this run of the unit")]
_Cursor = Annotated[str | None, doc("journal cursor of the entry, to find it again")]
_Message = Annotated[str | None, doc("the journal's own text")]


class ServiceStartFailed(Payload, frozen=True, kw_only=True):
    """A unit failed: its process ended badly, or its start job failed."""

    unit: Annotated[str, doc("unit name, like backup.service")]
    result: Annotated[str, doc("systemd's result: exit-code, signal, core-dump, timeout, …")]
    manager: _Manager = "system"
    exit_code: Annotated[str | None, doc("how the main process ended: exited, killed, dumped")] = (
        None
    )
    exit_status: Annotated[int | None, doc("exit status, or the signal's number")] = None
    restarts: Annotated[int | None, doc("automatic restarts so far")] = None
    invocation_id: _Invocation = None
    job_result: Annotated[str | None, doc("result of the start job: failed, timeout, …")] = None
    message: _Message = None
    cursor: _Cursor = None


class ServiceRestartThrottled(Payload, frozen=True, kw_only=True):
    """systemd gave up starting a unit that was started too often."""

    unit: Annotated[str, doc("unit name")]
    manager: _Manager = "system"
    restarts: Annotated[int | None, doc("automatic restarts so far")] = None
    invocation_id: _Invocation = None
    message: _Message = None
    cursor: _Cursor = None


class ServiceUnitFlapping(Payload, frozen=True, kw_only=True):
    """A unit was restarted again and again in a short time."""

    unit: Annotated[str, doc("unit name")]
    restarts: Annotated[int, doc("restarts seen in the window")]
    window_s: Annotated[float, doc("length of the window, seconds")]
    manager: _Manager = "system"
    restart_counter: Annotated[int | None, doc("systemd's own count since the unit started")] = None
    invocation_id: _Invocation = None
    message: _Message = None
    cursor: _Cursor = None


class SystemCoredumpCreated(Payload, frozen=True, kw_only=True):
    """A process crashed and left a core. Its environment and arguments are never published."""

    pid: Annotated[int, doc("process id of the crashed process")]
    exe: Annotated[str | None, doc("path of the program")] = None
    comm: Annotated[str | None, doc("name of the process")] = None
    signal: Annotated[str | None, doc("signal, like SIGABRT")] = None
    signal_number: Annotated[int | None, doc("the signal's number")] = None
    unit: Annotated[str | None, doc("unit that it ran in")] = None
    manager: _Manager = "system"
    uid: Annotated[int | None, doc("user id of the process")] = None
    core_path: Annotated[str | None, doc("file that holds the core")] = None
    message: _Message = None
    cursor: _Cursor = None


class SystemOomKilled(Payload, frozen=True, kw_only=True):
    """Memory ran out, and the kernel or systemd-oomd killed a process."""

    unit: Annotated[str | None, doc("unit of the victim")] = None
    manager: _Manager = "system"
    pid: Annotated[int | None, doc("process id of the victim")] = None
    process: Annotated[str | None, doc("name of the victim")] = None
    constraint: Annotated[str | None, doc("the kernel's constraint, like CONSTRAINT_MEMCG")] = None
    cgroup: Annotated[str | None, doc("control group whose limit was reached")] = None
    uid: Annotated[int | None, doc("user id of the victim")] = None
    rss_kib: Annotated[int | None, doc("resident memory of the victim, KiB")] = None
    invocation_id: _Invocation = None
    message: _Message = None
    cursor: _Cursor = None


class ServiceTriageCompleted(Payload, frozen=True, kw_only=True):
    """What explains a unit's failure is collected."""

    unit: Annotated[str, doc("unit name")]
    manager: _Manager = "system"
    result: Annotated[str | None, doc("systemd's result of the failure")] = None
    bundle: Annotated[str | None, doc("id of the evidence bundle")] = None
    report: Annotated[str | None, doc("path of its report on that host")] = None


class ServiceRestartDecided(Payload, frozen=True, kw_only=True):
    """What became of a restart that was offered."""

    unit: Annotated[str, doc("unit name")]
    verdict: Annotated[str, doc("what the person said: granted, denied, expired")]
    manager: _Manager = "system"
    restarted: Annotated[bool, doc("whether it was restarted")] = False
    healthy: Annotated[bool, doc("whether it was up afterwards")] = False
    why: Annotated[str | None, doc("why not, where it was not")] = None


class SystemIncidentRecorded(Payload, frozen=True, kw_only=True):
    """What explains a crash is collected."""

    exe: Annotated[str | None, doc("path of the program")] = None
    signal: Annotated[str | None, doc("signal, like SIGABRT")] = None
    unit: Annotated[str | None, doc("unit that it ran in")] = None
    earlier: Annotated[int | None, doc("earlier crashes of the program in the journal")] = None
    backtrace: Annotated[bool, doc("whether the bundle has one")] = False
    bundle: Annotated[str | None, doc("id of the evidence bundle")] = None
    report: Annotated[str | None, doc("path of its report on that host")] = None


TOPICS: Final = (
    Topic(
        "service.start.failed",
        payload=ServiceStartFailed,
        owner="journal",
        description="A systemd unit failed.",
        example={
            "unit": "backup.service",
            "result": "exit-code",
            "manager": "system",
            "exit_code": "exited",
            "exit_status": 3,
            "invocation_id": "592a3d0a924b4ceaa53724313a056451",
            "message": "backup.service: Failed with result 'exit-code'.",
        },
    ),
    Topic(
        "service.restart.throttled",
        payload=ServiceRestartThrottled,
        owner="journal",
        description="systemd no longer restarts a unit: it was started too often.",
        example={
            "unit": "sync.service",
            "manager": "user",
            "restarts": 5,
            "message": "sync.service: Start request repeated too quickly.",
        },
    ),
    Topic(
        "service.unit.flapping",
        payload=ServiceUnitFlapping,
        owner="journal",
        severity="warn",
        description="A unit restarts again and again.",
        example={"unit": "indexer.service", "restarts": 4, "window_s": 60.0, "restart_counter": 11},
    ),
    Topic(
        "system.coredump.created",
        payload=SystemCoredumpCreated,
        owner="journal",
        description="A process crashed and left a core.",
        example={
            "pid": 173,
            "exe": "/usr/bin/python3.11",
            "comm": "python3",
            "signal": "SIGABRT",
            "signal_number": 6,
            "unit": "worker.service",
            "uid": 1000,
        },
    ),
    Topic(
        "system.oom.killed",
        payload=SystemOomKilled,
        owner="journal",
        severity="critical",
        description="A process was killed because memory ran out.",
        example={
            "unit": "browser.service",
            "pid": 4242,
            "process": "chromium",
            "constraint": "CONSTRAINT_MEMCG",
            "invocation_id": "9c5d45f3b14c44f48196d732078be62b",
        },
    ),
    Topic(
        "service.triage.completed",
        payload=ServiceTriageCompleted,
        owner="opsmesh",
        severity="info",
        description="What explains a unit's failure is collected.",
        example={"unit": "backup.service", "manager": "user", "result": "exit-code"},
    ),
    Topic(
        "service.restart.decided",
        payload=ServiceRestartDecided,
        owner="opsmesh",
        severity="info",
        description="What became of a restart that was offered.",
        example={
            "unit": "backup.service",
            "manager": "user",
            "verdict": "granted",
            "restarted": True,
            "healthy": True,
        },
    ),
    Topic(
        "system.incident.recorded",
        payload=SystemIncidentRecorded,
        owner="opsmesh",
        severity="info",
        description="What explains a crash is collected.",
        example={"exe": "/usr/bin/python3.11", "signal": "SIGABRT", "earlier": 2},
    ),
)
