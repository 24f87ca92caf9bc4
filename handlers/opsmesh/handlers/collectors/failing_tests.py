"""Which tests a firing is about, and in which project.

An event is a stranger's text, and to run a test is to run the project's code: a project counts only
where it lies below a folder that the profile names, and a test only where its file lies within the
project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from opsmesh.handlers.collectors.contract import Request, Unavailable

#: Tests that are run again at once.
MAX_TESTS: Final = 50


def events(request: Request) -> list[Mapping[str, Any]]:
    """The events of the firing."""
    found = request.ctx.variables.get("events")
    return list(found) if isinstance(found, Sequence) and found else [request.ctx.event.view()]


def project(request: Request, below: Sequence[str]) -> Path:
    """The project's folder; Unavailable where none is named, or it lies elsewhere."""
    for event in events(request):
        payload = event.get("payload", {})
        for text in (payload.get("rootdir"), event.get("workspace")):
            if isinstance(text, str) and text.startswith("/") and "\0" not in text:
                return _within(Path(text), below)
    raise Unavailable("the event names no project (rootdir, or a workspace that is a path)")


def _within(folder: Path, below: Sequence[str]) -> Path:
    real = folder.resolve()
    if not real.is_dir():
        raise Unavailable(f"{folder}: is not a folder here")
    allowed = [Path(text).expanduser().resolve() for text in below if text]
    if not any(real.is_relative_to(one) for one in allowed if one.is_absolute()):
        named = ", ".join(str(one) for one in allowed) or "none"
        raise Unavailable(
            f"{folder} lies in none of the profile's projects ({named}): its tests are not run; "
            "name its folder in 'projects'"
        )
    return real


def node_ids(request: Request, folder: Path) -> list[str]:
    """pytest's names of the failed tests, each once; those whose file is not in the project are
    left out."""
    found: dict[str, None] = {}
    for event in events(request):
        name = event.get("payload", {}).get("nodeid")
        if not isinstance(name, str) or not name or len(name) > 2000:
            continue
        if name.startswith("-") or not name.isprintable():
            continue
        file = (folder / name.partition("::")[0]).resolve()
        if file.is_relative_to(folder) and file.exists():
            found[name] = None
    return list(found)[:MAX_TESTS]
