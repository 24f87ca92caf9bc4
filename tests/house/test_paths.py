"""No file holds a path of the machine that it was written on."""

from __future__ import annotations

import os
import pwd
import re

from tests.house.checkout import TOP, files

#: Folders that every machine has, and those that our containers and examples have: a checkout may
#: lie in one of them, and says nothing of its machine there.
EVERYWHERE = {
    *("/", "/home", "/mnt", "/nonexistent", "/opt", "/run", "/srv", "/tmp", "/usr", "/var"),
    *("/dev/shm", "/usr/local", "/usr/src", "/var/lib", "/var/tmp"),
    *("/a", "/app", "/b", "/data", "/opsmesh", "/opt/opsmesh", "/project", "/src", "/test"),
    *("/w", "/x"),
}

#: Homes of the people in our examples.
EXAMPLES = {"/home/ada", "/home/dev", "/home/me", "/home/user"}


def _home() -> str:
    """The user's, also of one that only a container's `--user` knows."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return os.environ.get("HOME", "/")


def test_no_path_of_this_machine() -> None:
    """No committed file names this checkout, the folder around it, or the user's home."""
    ours = {str(TOP), str(TOP.parent), _home()} - EVERYWHERE - EXAMPLES
    # Whole components only: a home `/h` is neither in `/home` nor in `https://a.example/h`.
    pattern = re.compile(rf"(?<![\w.~*}}-])(?:{'|'.join(map(re.escape, sorted(ours)))})(?![\w.-])")
    found = []
    for path in files():
        lines = path.read_text(encoding="utf-8", errors="ignore").splitlines()
        found += [
            f"{path.relative_to(TOP)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(lines, start=1)
            if pattern.search(line)
        ]
    assert found == []
