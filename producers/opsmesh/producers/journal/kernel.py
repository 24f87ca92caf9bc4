"""What the kernel says when memory runs out: it chooses a victim, and kills it.

Two lines belong together by the victim's pid: `oom-kill:…` names its control group (and so the
unit), `… Killed process …` its size. The first one is rate limited, and the second is written for
every member of a group that is killed as a whole (dump_oom_summary and __oom_kill_process in
Linux's mm/oom_kill.c), so either may come alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from opsmesh.producers.journal.entry import Entry, text

#: Kinds of unit that have processes.
_UNITS: Final = (".service", ".scope", ".mount", ".socket", ".swap")
_USER_MANAGER: Final = re.compile(r"user@(\d{1,10})\.service")
_CHOSEN: Final = re.compile(
    r"oom-kill:constraint=(?P<constraint>\w+),(?:.*?,oom_memcg=(?P<limit>[^,]*))?.*?"
    r",task_memcg=(?P<memcg>.*?),task=(?P<comm>.*),pid=(?P<pid>\d{1,10}),uid=(?P<uid>\d{1,10})",
    re.DOTALL,
)
_KILLED: Final = re.compile(
    r"(?:Memory cgroup out of memory|Out of memory)(?: \([^)]*\))?: "
    r"Killed process (?P<pid>\d{1,10}) \((?P<comm>.*)\),? total-vm:\d+kB, "
    r"anon-rss:(?P<anon>\d{1,15})kB, file-rss:(?P<file>\d{1,15})kB"
    r"(?:, shmem-rss:(?P<shmem>\d{1,15})kB)?(?:,? UID:(?P<uid>\d{1,10}))?",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Victim:
    """Whom the kernel has chosen: the unit, whose manager runs it, and the facts of the payload."""

    unit: str
    owner: str
    facts: Mapping[str, Any]


def is_kernel(entry: Entry) -> bool:
    """Whether the kernel itself wrote it.

    What root writes to /dev/kmsg comes back with the same transport, and under whatever name it
    likes; but the kernel lets nobody use its own facility, 0 (devkmsg_write in Linux's printk.c).
    """
    return text(entry, "_TRANSPORT") == "kernel" and text(entry, "SYSLOG_FACILITY") == "0"


def chosen(entry: Entry) -> Victim | None:
    """The victim that the kernel has chosen; None for other lines."""
    found = _CHOSEN.match(text(entry, "MESSAGE")) if is_kernel(entry) else None
    if found is None:
        return None
    unit, owner = unit_of(found["memcg"])
    facts = {
        "manager": "user" if owner else "system",
        "pid": int(found["pid"]),
        "process": found["comm"],
        "constraint": found["constraint"],
        "cgroup": found["limit"] or found["memcg"],
        "uid": int(found["uid"]),
    }
    return Victim(unit=unit, owner=owner, facts={"unit": unit, **facts} if unit else facts)


def killed(entry: Entry) -> dict[str, Any] | None:
    """The process that the kernel kills, as facts of the payload; None for other lines."""
    message = text(entry, "MESSAGE")
    found = _KILLED.match(message) if is_kernel(entry) else None
    if found is None:
        return None
    facts: dict[str, Any] = {
        "pid": int(found["pid"]),
        "process": found["comm"],
        "rss_kib": sum(int(found[kind] or 0) for kind in ("anon", "file", "shmem")),
        "message": message,
    }
    if found["uid"]:
        facts["uid"] = int(found["uid"])
    return facts


def unit_of(cgroup: str) -> tuple[str, str]:
    """The unit that a control group belongs to, and the uid of the user whose manager runs it.

    The first part below the slices is the unit; what lies deeper is the unit's own affair: a
    container has services of its own in there, which are not this machine's (cg_path_get_unit and
    cg_path_get_user_unit in systemd's cgroup-util.c). The uid is empty for the system's manager.
    """
    parts = [part for part in cgroup.split("/") if part and not part.endswith(".slice")]
    if not parts or not parts[0].endswith(_UNITS):
        return "", ""
    manager = _USER_MANAGER.fullmatch(parts[0])
    if manager and len(parts) > 1 and parts[1].endswith(_UNITS):
        return parts[1], manager[1]
    return parts[0], ""
