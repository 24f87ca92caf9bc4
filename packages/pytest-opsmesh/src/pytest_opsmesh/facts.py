"""What a report of pytest says of a failure: the same with xdist, where reports came as JSON and
all but a chain of exceptions is text by then."""

from __future__ import annotations

import os
import re
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Bytes kept of the end of a report of a failure, and characters of its message.
LONGREPR_TAIL = 8 * 1024
MESSAGE_HEAD = 2000
#: A line of pytest's reports that says where: `test_cart.py:17: in <module>`.
_PLACE = re.compile(r"^(?!E {2,}|>)(?P<path>[^\s:<][^:\n]*):(?P<line>\d+): ", re.MULTILINE)
#: pytest's mark before each line of an exception.
_MARK = "E  "
#: How the report of a doctest begins what was wrong.
_WRONG, _RAISED = ("Expected:", "Expected nothing"), "UNEXPECTED EXCEPTION: "
#: What a report of a subtest has that others have not.
_DESCRIBES = ("_sub_test_description", "sub_test_description")


def of_report(report: Any, *, root: str, cwd: str) -> dict[str, Any]:
    """The payload of python.test.failed, but for what the session knows; None: not said."""
    longrepr = report.longrepr
    crash = getattr(longrepr, "reprcrash", None)
    text = getattr(report, "longreprtext", None) or str(longrepr)
    path, lineno, message = (getattr(crash, name, None) for name in ("path", "lineno", "message"))
    if crash is None:
        path, lineno = _place(report, text, root=root, cwd=cwd)
    duration = getattr(report, "duration", None)
    return {
        "nodeid": report.nodeid,
        "message": head(message or _message(text), MESSAGE_HEAD),
        "path": str(path) if path else None,
        "lineno": lineno,
        "duration_ms": None if duration is None else round(duration * 1000, 3),
        "longrepr": tail(text, LONGREPR_TAIL),
        "worker": _worker(report),
        "subtest": _subtest(report),
    }


def head(text: str, limit: int) -> str:
    """The first characters of a text, as it will be shown: what is no UTF-8 by its number."""
    return text[:limit].encode("utf-8", "backslashreplace").decode()[:limit]


def tail(text: str, limit: int) -> str:
    """The last bytes of a text, whole characters."""
    data = text.encode("utf-8", "backslashreplace")
    return data[-limit:].decode("utf-8", "ignore")


def is_subtest(report: Any) -> bool:
    """Whether it is of a part of a test (pytest's own `subtests` from 9.0 on, pytest-subtests)."""
    return any(hasattr(report, name) for name in _DESCRIBES)


def only_sums_up(report: Any) -> bool:
    """Whether it only says that subtests failed, each of which was told (pytest 9)."""
    return isinstance(report.longrepr, str) and bool(
        re.fullmatch(r"contains \d+ failed subtests?", report.longrepr)
    )


def _place(report: Any, text: str, *, root: str, cwd: str) -> tuple[str | None, int | None]:
    """Where it failed: what its report says last, else where the test begins."""
    found = None
    for found in _PLACE.finditer(text):  # noqa: B007 (the last one)
        pass
    if found is not None:
        return os.path.normpath(Path(cwd, found["path"])), int(found["line"])
    location = getattr(report, "location", None) or (None, None)
    file = location[0] or report.nodeid.partition("::")[0]
    line = None if location[1] is None else location[1] + 1
    return os.path.normpath(Path(root, file)) if file else None, line


def _message(text: str) -> str:
    """The exception of a report that is text: its last lines that are marked as such."""
    lines = [line for line in text.splitlines() if line.strip()]
    marked = [line[len(_MARK) :].strip() for line in lines if line.startswith(_MARK)]
    if marked:
        return marked[-1]
    for at, line in enumerate(lines):  # a doctest's
        if line.startswith(_RAISED):
            return line[len(_RAISED) :]
        if line in _WRONG:
            end = -1 if _PLACE.match(lines[-1]) else len(lines)
            return "\n".join(one.strip() for one in lines[at:end])
    return lines[-1].strip() if lines else ""


def _worker(report: Any) -> str | None:
    gateway = getattr(getattr(report, "node", None), "gateway", None)
    worker = getattr(gateway, "id", None) or getattr(report, "worker_id", None)
    return str(worker) if worker else None


def _subtest(report: Any) -> str | None:
    for name in _DESCRIBES:
        if describe := getattr(report, name, None):
            return str(describe())
    return None
