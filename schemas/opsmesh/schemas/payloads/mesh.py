"""mesh.*: the mesh about itself: its components, its configuration, and what it may have missed."""

from __future__ import annotations

from typing import Annotated, Final

from opsmesh.schemas.topics import Payload, Topic, doc


class MeshGapDetected(Payload, frozen=True, kw_only=True):
    """A source went on at another place than where it stopped: something may be missing."""

    source: Annotated[str, doc("what has the gap, like journal or a stream")]
    kind: Annotated[str, doc("how it shows, like cursor_lost, sequence, removed, dropped")]
    last_known: Annotated[str | int | None, doc("last position before the gap")] = None
    first_known: Annotated[str | int | None, doc("first position after the gap")] = None
    lost: Annotated[int | None, doc("number of entries lost, where it can be known")] = None
    lost_bytes: Annotated[int | None, doc("their size, where it can be known")] = None
    from_time: Annotated[str | None, doc("time of the last known entry, RFC 3339")] = None
    to_time: Annotated[str | None, doc("time of the first known entry, RFC 3339")] = None
    message: Annotated[str | None, doc("more for people")] = None
    host: Annotated[str | None, doc("host of the source")] = None
    boot_id: Annotated[str | None, doc("which boot of the source: its numbers begin anew")] = None


class MeshGapFilled(Payload, frozen=True, kw_only=True):
    """Events that a gap had counted as lost came after all."""

    source: Annotated[str, doc("what had the gap")]
    gap: Annotated[str, doc("id of the event that told the gap")]
    found: Annotated[int, doc("how many of them have come by now")]
    lost: Annotated[int, doc("how many are missing still")]
    from_time: Annotated[str | None, doc("time of the last event before the gap, RFC 3339")] = None
    to_time: Annotated[str | None, doc("time of the first event after it, RFC 3339")] = None
    message: Annotated[str | None, doc("more for people")] = None
    host: Annotated[str | None, doc("host of the source")] = None
    boot_id: Annotated[str | None, doc("which boot of the source")] = None


class MeshComponentStarted(Payload, frozen=True, kw_only=True):
    """A process of the mesh runs."""

    component: Annotated[str, doc("broker, agent, handlers, sink or producer:NAME")]
    pid: Annotated[int | None, doc("its process id")] = None
    restarts: Annotated[int | None, doc("restarts since `opsmesh up`")] = None
    reason: Annotated[str | None, doc("why it was started, when not by `opsmesh up`")] = None
    version: Annotated[str | None, doc("the version of opsmesh that runs")] = None


class MeshComponentStopped(Payload, frozen=True, kw_only=True):
    """A process of the mesh ended because it was asked to."""

    component: Annotated[str, doc("broker, agent, handlers, sink or producer:NAME")]
    pid: Annotated[int | None, doc("the process id it had")] = None
    exit_code: Annotated[int | None, doc("exit status; -n when signal n ended it")] = None
    restarts: Annotated[int | None, doc("restarts since `opsmesh up`")] = None
    reason: Annotated[str | None, doc("why it was stopped")] = None


class MeshComponentFailed(Payload, frozen=True, kw_only=True):
    """A process of the mesh ended by itself."""

    component: Annotated[str, doc("broker, agent, handlers, sink or producer:NAME")]
    pid: Annotated[int | None, doc("the process id it had")] = None
    exit_code: Annotated[int | None, doc("exit status; -n when signal n ended it")] = None
    restarts: Annotated[int | None, doc("restarts since `opsmesh up`")] = None
    restart_in_s: Annotated[float | None, doc("seconds to its restart; absent: none")] = None
    reason: Annotated[str | None, doc("what is known about the cause")] = None


class MeshConfigRejected(Payload, frozen=True, kw_only=True):
    """A configuration file is broken; what was in force before stays in force."""

    path: Annotated[str, doc("the file")]
    error: Annotated[str, doc("what is wrong, in words")]
    line: Annotated[int | None, doc("line in the file, from 1")] = None
    column: Annotated[int | None, doc("column in the line, from 1")] = None
    hint: Annotated[str | None, doc("the nearest valid word")] = None


class MeshStreamRegressed(Payload, frozen=True, kw_only=True):
    """A stream went back or vanished: its store was lost or exchanged."""

    stream: Annotated[str, doc("name of the stream")]
    last_known_seq: Annotated[int, doc("last sequence that we have seen in it")]
    found_seq: Annotated[int | None, doc("last sequence found now; absent: no such stream")] = None
    message: Annotated[str | None, doc("more for people")] = None


TOPICS: Final = (
    Topic(
        "mesh.gap.detected",
        payload=MeshGapDetected,
        owner="router",
        severity="warn",
        description="A source went on at another place than where it stopped.",
        example={
            "source": "pytest",
            "kind": "sequence",
            "last_known": 7,
            "first_known": 20,
            "lost": 12,
            "from_time": "2026-11-23T14:02:11.250000Z",
            "to_time": "2026-11-23T14:05:40.125000Z",
            "message": "pytest lost 12 events between 2026-11-23 14:02 and 14:05 UTC",
            "host": "laptop",
            "boot_id": "01a20af3-5d52-7e10-ae32-25df3fd288da",
        },
    ),
    Topic(
        "mesh.gap.filled",
        payload=MeshGapFilled,
        owner="sink",
        severity="info",
        description="Events that a gap had counted as lost came after all.",
        example={
            "source": "pytest",
            "gap": "01a20af6-4b10-7c5e-9d0a-6a1f0f3c2b11",
            "found": 12,
            "lost": 0,
            "from_time": "2026-11-23T14:02:11.250000Z",
            "to_time": "2026-11-23T14:05:40.125000Z",
            "message": "pytest: 12 events that seemed lost between 2026-11-23 14:02 and 14:05 UTC "
            "came late, none is missing",
            "host": "laptop",
            "boot_id": "01a20af3-5d52-7e10-ae32-25df3fd288da",
        },
    ),
    Topic(
        "mesh.component.started",
        payload=MeshComponentStarted,
        owner="supervisor",
        severity="info",
        description="A process of the mesh runs.",
        example={"component": "agent", "pid": 4711, "version": "0.1.0"},
    ),
    Topic(
        "mesh.component.stopped",
        payload=MeshComponentStopped,
        owner="supervisor",
        severity="info",
        description="A process of the mesh ended because it was asked to.",
        example={"component": "sink", "pid": 4712, "exit_code": 0, "reason": "opsmesh down"},
    ),
    Topic(
        "mesh.component.failed",
        payload=MeshComponentFailed,
        owner="supervisor",
        description="A process of the mesh ended by itself.",
        example={"component": "handlers", "pid": 4713, "exit_code": -9, "restart_in_s": 1.0},
    ),
    Topic(
        "mesh.config.rejected",
        payload=MeshConfigRejected,
        owner="handlers",
        description="A configuration file is broken; the one before stays in force.",
        example={
            "path": "/home/dev/.config/opsmesh/profiles.yaml",
            "error": "unknown key 'debonce'",
            "line": 7,
            "column": 5,
            "hint": "debounce",
        },
    ),
    Topic(
        "mesh.stream.regressed",
        payload=MeshStreamRegressed,
        owner="router",
        severity="critical",
        description="A stream went back or vanished.",
        example={"stream": "EVENTS", "last_known_seq": 10423, "found_seq": 12},
    ),
)
