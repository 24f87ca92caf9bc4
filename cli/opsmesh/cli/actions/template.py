"""A package for an action of one's own: what `opsmesh action new` writes.

Its own tests pass as it is written; a test of ours installs it and runs them.
"""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

#: The texts, by the file that each becomes.
FILES: Final = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "{module}.py": "module.py.txt",
    "test_{module}.py": "test_module.py.txt",
}
_KEY = re.compile(r"[a-z][a-z0-9_]{1,39}")


def valid(key: str) -> bool:
    """Whether it can be an action's key, and part of a module's name."""
    return _KEY.fullmatch(key) is not None and not keyword.iskeyword(key)


def package(key: str) -> str:
    """The name of the package that brings an action."""
    return f"opsmesh-action-{key.replace('_', '-')}"


def write(key: str, folder: Path) -> list[Path]:
    """Write the package into an empty folder, or one that is not there yet; its files."""
    names = {
        "key": key,
        "package": package(key),
        "module": f"opsmesh_action_{key}",
        "class_name": "".join(part.capitalize() for part in key.split("_")),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, source in FILES.items():
        text = files(__package__).joinpath("template", source).read_text(encoding="utf-8")
        path = folder / name.format_map(names)
        path.write_text(Template(text).substitute(names), encoding="utf-8")
        written.append(path)
    return written
