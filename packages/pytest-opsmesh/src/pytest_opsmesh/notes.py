"""Where a session runs, and where each test passed last, in pytest's cache.

Who diagnoses a failure compares the two (the collector `since_passed`). Nothing is started to find
out: git's own files and the names of installed packages say it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import zlib
from pathlib import Path

from .mesh.events import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: In pytest's cache: where this session runs, and where each test passed last.
SESSION, PASSED = "opsmesh/session", "opsmesh/passed"
#: Tests whose last good environment is remembered.
MAX_PASSED = 50_000
#: Variables that change how tests behave, and hold no secret.
VARIABLES = (
    *("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TZ", "PYTHONHASHSEED"),
    *("PYTEST_ADDOPTS", "DJANGO_SETTINGS_MODULE"),
)


class Notes:
    """The notes of one session; none where pytest has no cache (`-p no:cacheprovider`)."""

    def __init__(self, cache: Any, root: str) -> None:
        self._cache = cache
        self._root = root
        self._here: dict[str, Any] = {}
        self._passed: dict[str, None] = {}

    def begin(self) -> None:
        """Note where the tests run, before one fails."""
        if self._cache is not None:
            self._here = _environment(self._root)
            self._cache.set(SESSION, self._here)

    def passed(self, nodeid: str) -> None:
        """A test passed."""
        self._passed[nodeid] = None

    def failed(self, nodeid: str) -> None:
        """A test that had passed failed after all: one of its subtests, or its teardown."""
        self._passed.pop(nodeid, None)

    def finish(self) -> None:
        """Write down which tests passed here."""
        if self._cache is None or not self._passed or not self._here:
            return
        known = self._cache.get(PASSED, {})
        tests, places = dict(known.get("tests", {})), dict(known.get("environments", {}))
        name = str(zlib.crc32(json.dumps(self._here, sort_keys=True).encode()))
        places[name] = {**self._here, "time": now()}
        for nodeid in self._passed:
            tests.pop(nodeid, None)  # the newest last: what is forgotten is the oldest
            tests[nodeid] = name
        tests = dict(list(tests.items())[-MAX_PASSED:])
        used = set(tests.values())
        places = {key: value for key, value in places.items() if key in used}
        self._cache.set(PASSED, {"environments": places, "tests": tests})


def _environment(root: str) -> dict[str, Any]:
    """What a test may depend on beside its code."""
    packages: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for entry in os.listdir(folder or "."):  # noqa: PTH208 (a third of iterdir's time)
                name, dash, version = entry.removesuffix(".dist-info").partition("-")
                if dash and entry.endswith(".dist-info"):
                    packages.setdefault(name.lower().replace("_", "-"), version)
    return {
        "head": _head(Path(root)),
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "platform": f"{os.uname().sysname} {os.uname().release} {os.uname().machine}",
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "packages": packages,
    }


def _head(folder: Path) -> str | None:
    """The commit that is checked out, from git's own files (gitrepository-layout(5))."""
    with contextlib.suppress(OSError, IndexError):
        for top in (folder, *folder.parents):
            git = top / ".git"
            if git.is_file():  # a worktree's
                git = top / git.read_text().removeprefix("gitdir:").strip()
            if not (git / "HEAD").exists():
                continue
            head = (git / "HEAD").read_text().strip()
            if not head.startswith("ref: "):
                return head
            common = git
            if (git / "commondir").exists():
                common = git / (git / "commondir").read_text().strip()
            ref = head[5:]
            if (common / ref).exists():
                return (common / ref).read_text().strip()
            for line in (common / "packed-refs").read_text().splitlines():
                commit, _, name = line.partition(" ")
                if name == ref:
                    return commit
            return None
    return None
