"""Whether what a client asks for is on the allow-list. Nothing here starts anything.

The one rule: a path is what it leads to, links resolved, and it is allowed or refused as that; what
comes out is absolute, so that no program takes it for an option.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from opsmesh.handlers.errors import HandlersError

#: A unit's name (systemd.unit(5)): no option, and no pattern, which systemctl would spread out.
UNIT: Final = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9:_.\\@-]{0,200}"
    r"\.(?:service|socket|timer|path|target|mount|automount|swap|slice)"
)
#: Characters of a path.
MAX_PATH: Final = 4096


class NotOnTheList(HandlersError):
    """It is not allowed; `hint` is the setting that would allow it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def folder(asked: str, allowed: Sequence[str], *, setting: str) -> tuple[Path, Path]:
    """The folder that is meant, if it is one of those or lies in one; and that one."""
    roots = _roots(allowed, setting)
    path = _resolved(Path(_plain(asked)).expanduser(), asked)
    root = next((root for root in roots if path.is_relative_to(root)), None)
    if root is None:
        raise NotOnTheList(
            f"{asked!r} is in no folder that is allowed",
            hint=f"{setting} has {', '.join(allowed)}",
        )
    if not path.is_dir():
        raise NotOnTheList(f"{asked!r} is no folder")
    return path, root


def within(root: Path, asked: str) -> Path:
    """The file or folder of this name in `root`, as what it leads to."""
    path = _resolved(root / _plain(asked), asked)
    if not path.is_relative_to(root):
        raise NotOnTheList(f"{asked!r} leads out of {root}")
    return path


def nodeid(root: Path, asked: str) -> str:
    """A test's id (`tests/test_a.py::test_b[x]`) with its file as an absolute path."""
    file, separator, rest = asked.partition("::")
    if "\0" in rest or "\n" in rest:
        raise NotOnTheList(f"{asked!r} is no test's id")
    return f"{within(root, file)}{separator}{rest}"


def file(asked: str, patterns: Sequence[str], *, setting: str) -> Path:
    """The file that is meant, if what it leads to fits one of the patterns."""
    path = _resolved(Path(_plain(asked)).expanduser(), asked)
    if path.is_file() and any(_fits(path.parts, _resolved_pattern(one)) for one in patterns):
        return path
    raise NotOnTheList(
        f"{asked!r} is no file that is allowed", hint=f"{setting} has {', '.join(patterns)}"
    )


def named(asked: str, known: Iterable[str], *, setting: str, example: str) -> str:
    """One of the names that the settings give."""
    names = sorted(known)
    if not names:
        raise off(setting, example)
    if asked not in names:
        raise NotOnTheList(
            f"{asked[:80]!r} is not allowed", hint=f"{setting} has {', '.join(names)}"
        )
    return asked


def unit(asked: str, patterns: Sequence[str], *, setting: str) -> str:
    """A unit's whole name that the list has, or that one of its patterns fits."""
    if not patterns:
        raise off(setting, "[backup.service]")
    if not UNIT.fullmatch(asked):
        raise NotOnTheList(f"{asked[:80]!r} is no unit's whole name, like backup.service")
    if not any(fnmatch.fnmatchcase(asked, pattern) for pattern in patterns):
        raise NotOnTheList(
            f"{asked} may not be restarted", hint=f"{setting} has {', '.join(patterns)}"
        )
    return asked


def off(setting: str, example: str) -> NotOnTheList:
    """What is said while a list is empty."""
    return NotOnTheList(
        "this check is off: nothing is allowed",
        hint=f"a person can allow it in config.yaml, as {setting}: {example}",
    )


def _roots(allowed: Sequence[str], setting: str) -> list[Path]:
    if not allowed:
        raise off(setting, "[~/work/app]")
    return [Path(os.path.realpath(Path(one).expanduser())) for one in allowed]


def _plain(asked: str) -> str:
    if "\0" in asked or "\n" in asked or not 0 < len(asked) <= MAX_PATH:
        raise NotOnTheList(f"{asked[:80]!r} is no path")
    return asked


def _resolved(path: Path, asked: str) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "is a circle of links"
        raise NotOnTheList(f"{asked[:200]!r}: {reason}") from None


def _resolved_pattern(pattern: str) -> tuple[str, ...]:
    """The pattern's parts, those before the first wild one as where they lead: the user wrote them,
    while what a wild one finds may be a link that somebody else made."""
    parts = Path(pattern).expanduser().parts
    wild = next((n for n, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts))
    return (*Path(os.path.realpath(Path(*parts[:wild]))).parts, *parts[wild:])


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[n:], pattern[1:]) for n in range(len(parts) + 1))
    return (
        bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
    )
