"""What one journal entry says. Pure: an entry in, findings out.

Any process can log any MESSAGE_ID with any UNIT: only entries that a system or user manager, the
kernel or systemd-coredump sent are believed, told apart by the fields that journald itself fills in
(those that begin with `_`; systemd.journal-fields(7)). The subject is UNIT= or USER_UNIT=, never
_SYSTEMD_UNIT, which names the sender.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from opsmesh.producers.journal import kernel
from opsmesh.producers.journal.entry import Entry, number, text

START_FAILED: Final = "service.start.failed"
THROTTLED: Final = "service.restart.throttled"
FLAPPING: Final = "service.unit.flapping"
COREDUMP: Final = "system.coredump.created"
OOM: Final = "system.oom.killed"

#: Message ids of systemd's catalogue (sd-messages.h).
UNIT_FAILURE_RESULT: Final = "d9b373ed55a64feb8242e02dbe79a49c"
JOB_FAILED: Final = "be02cf6855d2428ba40df7e9d022f03d"
PROCESS_EXIT: Final = "98e322203f7a4ed290d09fe03c09fe15"
RESTART_SCHEDULED: Final = "5eb03494b6584870a536b337290809b3"
COREDUMPED: Final = "fc2e22bc6ee647b6b90729ab34a250b1"
OUT_OF_MEMORY: Final = "fe6faa94e7774663a0da52717891d8ef"
OOMD_KILLED: Final = "d989611b15e44c9dbf31e3c81256e4ed"
#: "Start request repeated too quickly." has no message id (252 and 257): the function tells it.
START_LIMIT_FUNCTION: Final = "unit_test_start_limit"

#: Results of a unit that ended as it should; every other one is a failure. systemd tells these
#: with other message ids, and adds kinds of failure with new versions.
ENDED_WELL: Final = frozenset(["", "success", "exec-condition"])
#: Results of a start job after which its unit does not run: JOB_RESULT, in job.c's words.
JOB_FAILURES: Final = frozenset(
    ["failed", "timeout", "dependency", "assert", "unsupported", "once", "frozen"]
)

#: The fields that are read. journalctl hands over no others, so that what a core dump's entry holds
#: of environment, command line, open files and memory maps never enters this process.
FIELDS: Final = (
    "MESSAGE",
    "MESSAGE_ID",
    "UNIT",
    "USER_UNIT",
    "UNIT_RESULT",
    "JOB_RESULT",
    "JOB_TYPE",
    "INVOCATION_ID",
    "USER_INVOCATION_ID",
    "EXIT_CODE",
    "EXIT_STATUS",
    "N_RESTARTS",
    "CODE_FUNC",
    "COREDUMP_UNIT",
    "COREDUMP_USER_UNIT",
    "COREDUMP_EXE",
    "COREDUMP_COMM",
    "COREDUMP_PID",
    "COREDUMP_UID",
    "COREDUMP_SIGNAL",
    "COREDUMP_SIGNAL_NAME",
    "COREDUMP_FILENAME",
    "SYSLOG_FACILITY",
    "_PID",
    "_UID",
    "_EXE",
    "_TRANSPORT",
    "_SYSTEMD_CGROUP",
    "_SYSTEMD_UNIT",
    "_SYSTEMD_USER_UNIT",
)

#: What journalctl is asked for: a superset of what is classified, cheap for journald to find.
MATCHES: Final = (
    *(
        f"MESSAGE_ID={id}"
        for id in (
            UNIT_FAILURE_RESULT,
            JOB_FAILED,
            PROCESS_EXIT,
            RESTART_SCHEDULED,
            COREDUMPED,
            OUT_OF_MEMORY,
            OOMD_KILLED,
        )
    ),
    "+",
    f"CODE_FUNC={START_LIMIT_FUNCTION}",
    "+",
    "_TRANSPORT=kernel",
    "SYSLOG_FACILITY=0",
)

#: Where distributions keep the manager's program.
_MANAGER: Final = re.compile(r"(/usr|/(nix|gnu)/store/[^/]+)?/lib/systemd/systemd")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact in one entry.

    `invocation`: the unit's run that it belongs to, where known; `owner`: the user whose manager it
    is, empty for the system's; `follows`: the entry tells how something ended that had an entry of
    its own, unless that one was lost.
    """

    topic: str
    unit: str
    payload: dict[str, Any] = field(default_factory=dict)
    invocation: str = ""
    manager: str = "system"
    owner: str = ""
    follows: bool = False


@dataclass(frozen=True, kw_only=True)
class ProcessExit:
    """How a unit's main process ended: what a later failure of the same run is told with."""

    invocation: str
    code: str
    status: int | None


def classify(entry: Entry) -> list[Finding]:
    """What the entry says, each fact for itself; nothing for most entries, or untrusted ones."""
    if text(entry, "_TRANSPORT") == "kernel":
        killed = kernel.killed(entry)
        return [] if killed is None else [Finding(topic=OOM, unit="", payload=killed)]
    if text(entry, "MESSAGE_ID") == COREDUMPED:
        return _coredump(entry)
    manager = sender(entry)
    if not manager:
        return []
    return _manager(entry, manager)


def process_exit(entry: Entry) -> ProcessExit | None:
    """The exit of a unit's main process, when a manager tells of one."""
    if text(entry, "MESSAGE_ID") != PROCESS_EXIT or not sender(entry):
        return None
    return ProcessExit(
        invocation=_invocation(entry),
        code=text(entry, "EXIT_CODE"),
        status=number(entry, "EXIT_STATUS"),
    )


def sender(entry: Entry) -> str:
    """The manager that sent the entry, `system` or `user`; empty for anybody else."""
    if text(entry, "_TRANSPORT") != "journal":
        return ""
    if text(entry, "_PID") == "1" and text(entry, "_UID") == "0":
        return "system"
    # A user's processes can take neither another user's uid nor a place in another one's cgroups;
    # within one's own, nothing of the system's guards a user against himself.
    own = f"user@{text(entry, '_UID')}.service"
    is_manager = (
        text(entry, "_SYSTEMD_UNIT") == own
        and text(entry, "_SYSTEMD_USER_UNIT") == "init.scope"
        and text(entry, "_SYSTEMD_CGROUP").endswith(f"/{own}/init.scope")
        and _MANAGER.fullmatch(text(entry, "_EXE")) is not None
    )
    return "user" if is_manager else ""


def _invocation(entry: Entry) -> str:
    return text(entry, "INVOCATION_ID") or text(entry, "USER_INVOCATION_ID")


def _manager(entry: Entry, manager: str) -> list[Finding]:
    unit = text(entry, "UNIT" if manager == "system" else "USER_UNIT")
    if not unit:
        return []
    invocation, message = _invocation(entry), text(entry, "MESSAGE")

    def finding(
        topic: str, *, run: str = invocation, follows: bool = False, **facts: Any
    ) -> Finding:
        payload = {"unit": unit, "manager": manager, **facts, "message": message}
        if run:
            payload["invocation_id"] = run
        return Finding(
            topic=topic,
            unit=unit,
            payload=payload,
            invocation=run,
            manager=manager,
            owner=text(entry, "_UID") if manager == "user" else "",
            follows=follows,
        )

    kind, result = text(entry, "MESSAGE_ID"), text(entry, "UNIT_RESULT")
    if kind == UNIT_FAILURE_RESULT and result not in ENDED_WELL:
        failed = finding(START_FAILED, result=result)
        if result == "oom-kill":
            return [finding(OOM, follows=True), failed]
        if result.endswith("-limit-hit"):  # of sockets, paths and automounts as well
            return [finding(THROTTLED, follows=True), failed]
        return [failed]
    job = text(entry, "JOB_RESULT")
    if kind == JOB_FAILED and job in JOB_FAILURES and text(entry, "JOB_TYPE") == "start":
        # A unit that was never started has the id of its run before, if it has any.
        run = invocation if job == "failed" else ""
        return [finding(START_FAILED, run=run, result=f"job-{job}", job_result=job)]
    if kind == RESTART_SCHEDULED:
        return [finding(FLAPPING, restart_counter=number(entry, "N_RESTARTS"))]
    if kind in (OUT_OF_MEMORY, OOMD_KILLED):
        return [finding(OOM)]
    if text(entry, "CODE_FUNC") == START_LIMIT_FUNCTION and message.endswith(
        "Start request repeated too quickly."
    ):
        return [finding(THROTTLED)]
    return []


def _coredump(entry: Entry) -> list[Finding]:
    # systemd-coredump runs as its own user inside systemd-coredump@….service: a cgroup that only
    # the system manager can put a process in.
    if text(entry, "_UID") != "0" and not text(entry, "_SYSTEMD_UNIT").startswith(
        "systemd-coredump@"
    ):
        return []
    user_unit = text(entry, "COREDUMP_USER_UNIT")
    unit = user_unit or text(entry, "COREDUMP_UNIT")
    pid, manager = number(entry, "COREDUMP_PID"), "user" if user_unit else "system"
    if pid is None:
        return []
    facts = {
        "pid": pid,
        "unit": unit or None,
        "manager": manager,
        "exe": text(entry, "COREDUMP_EXE") or None,
        "comm": text(entry, "COREDUMP_COMM") or None,
        "uid": number(entry, "COREDUMP_UID"),
        "signal": text(entry, "COREDUMP_SIGNAL_NAME") or None,
        "signal_number": number(entry, "COREDUMP_SIGNAL"),
        "core_path": text(entry, "COREDUMP_FILENAME") or None,
    }
    payload = {name: value for name, value in facts.items() if value is not None}
    return [Finding(topic=COREDUMP, unit=unit, payload=payload, manager=manager)]
