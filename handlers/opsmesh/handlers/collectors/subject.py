"""What an event is about: the unit, process, program and folder that its payload names.

A payload is a stranger's text. What becomes an argument of a tool is checked here, and cannot be
an option, a pattern or a relative path.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from opsmesh.handlers.collectors.contract import Request, Unavailable

# systemd.unit(5): the characters of a unit's name. A payload's text could hold options or globs.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,254}")


def unit_of(request: Request, chosen: str | None) -> str:
    """The unit that is chosen, or the event's own; empty when there is none."""
    text = request.render(chosen) if chosen is not None else _said(request, "unit")
    if chosen is not None and not text:  # an event's empty text must not mean all units
        raise Unavailable("the unit that the profile asks for is empty")
    if text and not _UNIT.fullmatch(text):
        raise Unavailable(f"{text[:80]!r} is not the name of a unit")
    return text


def of_user(request: Request) -> bool:
    """Whether it is the user's manager that has the unit."""
    return request.ctx.event.payload.get("manager") == "user"


def systemctl(request: Request) -> list[str]:
    """The program with the manager that the event is of."""
    return ["systemctl", *(["--user"] if of_user(request) else []), "--no-pager"]


def pid_of(request: Request, chosen: str | None) -> int | None:
    """The process that is chosen, or the event's own."""
    value: Any = request.render(chosen) if chosen is not None else None
    if value is None:
        value = request.ctx.event.payload.get("pid")
    if value is None or value == "":
        return None
    text = str(value)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise Unavailable(f"{text[:40]!r} is not the id of a process")
    return int(text)


def exe_of(request: Request, chosen: str | None = None) -> str | None:
    """The program's path that is chosen, or the event's own."""
    text = request.render(chosen) if chosen is not None else _said(request, "exe")
    return checked_path(text) if text else None


def folder_of(request: Request, chosen: str | None) -> Path:
    """The folder that is chosen, or that the event is about."""
    if chosen is not None:
        named = [request.render(chosen)]
    else:
        payload = request.ctx.event.payload
        named = [str(payload.get(key) or "") for key in ("rootdir", "cwd", "folder")]
        named.append(request.ctx.event.workspace)
    for text in named:
        if text.startswith(("/", "~/")):
            folder = Path(checked_path(str(Path(text).expanduser())))
            if not folder.is_dir():
                raise Unavailable(f"{text}: is not a folder here")
            return folder
    raise Unavailable(
        f"{named[0][:80]!r} is no absolute path"
        if chosen is not None
        else "the event names no folder (rootdir, cwd, folder, workspace); write the path"
    )


def checked_path(text: str) -> str:
    """An absolute path, which no program can take for an option."""
    if not text.startswith("/") or "\0" in text or "\n" in text or len(text) > 4096:
        raise Unavailable(f"{text[:80]!r} is no absolute path")
    return text


def _said(request: Request, key: str) -> str:
    value = request.ctx.event.payload.get(key)
    return value if isinstance(value, str) else ""
