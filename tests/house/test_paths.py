"""No file holds a path of the machine that it was written on."""

from __future__ import annotations

import os
import pwd
import re

from tests.house.checkout import TOP, files

#: Folders that every machine has; a document may name them.
EVERYWHERE = {"/", "/home", "/mnt", "/nonexistent", "/opt", "/srv", "/tmp", "/usr/src", "/var/tmp"}

#: Homes of the people in our examples.
EXAMPLES = {"/home/ada", "/home/dev", "/home/me", "/home/user"}


def test_no_path_of_this_machine() -> None:
    """No committed file names this checkout, the folder around it, or the user's home."""
    home = pwd.getpwuid(os.getuid()).pw_dir
    ours = {str(TOP), str(TOP.parent), home} - EVERYWHERE - EXAMPLES
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
