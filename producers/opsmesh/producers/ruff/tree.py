"""Which folders of a project to watch: those that may hold Python code of its own.

Left out are the folders that ruff leaves out unless told otherwise, and what git ignores: an
environment has thousands of folders, and a change in there is none of the project's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from opsmesh.producers import ask
from opsmesh.producers.errors import ProducerError
from opsmesh.producers.notices import Notices

#: ruff's own `exclude`, and what Python's tools leave behind.
SKIPPED: Final = frozenset(
    (
        *(".bzr", ".direnv", ".eggs", ".git", ".git-rewrite", ".hg", ".ipynb_checkpoints"),
        *(".mypy_cache", ".nox", ".pants.d", ".pyenv", ".pytest_cache", ".pytype", ".ruff_cache"),
        *(".svn", ".tox", ".venv", ".vscode", "__pypackages__", "_build", "buck-out", "build"),
        *("dist", "node_modules", "site-packages", "venv", "__pycache__", ".hypothesis"),
    )
)
#: What a look may depend on, beside the code.
CONFIGURATION: Final = frozenset(("pyproject.toml", "ruff.toml", ".ruff.toml", ".gitignore"))
CODE: Final = (".py", ".pyi", ".pyw", ".ipynb")
#: Folders of one project; more are something else.
MOST: Final = 10_000
#: Seconds that git may take to say what it ignores.
LIMIT: Final = 20.0


class TooMany(ProducerError):
    """A project has more folders than can be watched."""

    def __init__(self, root: Path) -> None:
        super().__init__(f"{root} has more than {MOST} folders: name smaller ones")
        self.root = root


def matters(name: str, is_folder: bool) -> bool:
    """Whether a change of an entry of this name may change what ruff finds."""
    if is_folder:
        return name not in SKIPPED
    return name.endswith(CODE) or name in CONFIGURATION


def arm(notices: Notices, key: str, root: Path) -> None:
    """Watch a project, or one file of it. TooMany; ProducerError when inotify's watches are used
    up."""
    notices.forget(key)
    notices.arm_way(key, str(root))
    for place in _above(root):
        notices.arm(key, str(place), set(CONFIGURATION))
    for count, folder in enumerate(_folders(root)):
        if count >= MOST:
            notices.forget(key)
            raise TooMany(root)
        try:
            notices.arm(key, folder)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # it went just now, or is nobody's to read


def _above(root: Path) -> Iterator[Path]:
    """The folders of the repository that the project lies in: their configuration holds for it."""
    way: list[Path] = []
    for place in (root, *root.parents):
        if place.is_dir() and place != root:
            way.append(place)
        if (place / ".git").exists():
            yield from way
            return


def _folders(root: Path) -> Iterator[str]:
    ignored = _ignored(root) if root.is_dir() else set()
    for folder, below, _ in os.walk(root):
        yield folder
        below[:] = [
            name
            for name in below
            if matters(name, True) and os.path.join(folder, name) not in ignored  # noqa: PTH118
        ]


def _ignored(root: Path) -> set[str]:
    """The folders that git ignores as a whole; none where there is no repository, or no git."""
    argv = ("git", "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z")
    try:
        answer = ask.ask(argv, cwd=str(root), limit=LIMIT)
    except ask.NoAnswer:
        return set()
    paths = os.fsdecode(answer.output).split("\0") if answer.status == 0 else []
    return {
        os.path.join(str(root), path.rstrip("/"))  # noqa: PTH118
        for path in paths
        if path.endswith("/")
    }
