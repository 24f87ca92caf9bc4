"""The config.yaml of a first run: only where something has to be set, and never over one that is
there.

The producers that lint and audit a Python project have to be told where it is: nobody's disk is
searched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from opsmesh.router.settings import config_file as config_file

#: Producers that want a folder.
WATCHERS: Final = ("ruff", "pip-audit")
#: How their reason begins that they cannot run here.
_UNSET: Final = "no folder is set"
_PROJECT: Final = "pyproject.toml"

_HEAD: Final = """\
# Settings of opsmesh, written by `opsmesh init`; it is yours to change. What is not here has its
# default: `opsmesh config show` has all of them, and says where each comes from.
"""
_REST: Final = """
# Often set:
#
# panes: {dashboard: btop}                       # a pane of `opsmesh panes`
# events: {max_age: 30d, max_bytes: 8GiB}        # how much the broker keeps
# notify: {targets: {phone: ntfys://my-topic}}   # for `to: [phone]`; pip install 'opsmesh[notify]'
# redact: {emails: true}                         # take e-mail addresses out of events too
"""


def unset(absent: Mapping[str, str]) -> list[str]:
    """The producers that only lack their folder, of those that are not here."""
    return [name for name in WATCHERS if absent.get(name, "").startswith(_UNSET)]


def proposal() -> Path | None:
    """The project that somebody stands in."""
    here = Path.cwd()
    return next((one for one in (here, *here.parents) if (one / _PROJECT).is_file()), None)


def lines(folder: Path, producers: list[str]) -> str:
    """The settings that have them watch a folder."""
    rows = [f"    {name}: {{path: {json.dumps(str(folder))}}}" for name in producers]
    return "\n".join(("producers:", "  options:", *rows, ""))


def write(text: str) -> Path | None:
    """Write config.yaml with these settings; its path, None where there is one."""
    path = config_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{_HEAD}{text}{_REST}")
    return path
