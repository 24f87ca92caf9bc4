"""What ruff found: an answer as text in; what is told of it out. Pure.

A finding is what it says of which file. Its line is no part of that: a line that is added above it
makes no new one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

FAILED: Final = "python.lint.failed"
PASSED: Final = "python.lint.passed"
#: The linter's name, and the source of its events.
TOOL: Final = "ruff"
#: The code of what is no Python.
SYNTAX: Final = "invalid-syntax"
#: Files and rules of one event, at most; `count` has all findings.
MOST_PATHS, MOST_CODES = 100, 100
#: Characters of a finding's text in an event.
MOST_TEXT: Final = 500
#: Bytes of an answer, at most: some 150,000 findings.
MOST_BYTES: Final = 128 << 20


class Place(msgspec.Struct, frozen=True):
    """Both from 1."""

    row: int = 0
    column: int = 0


class Fix(msgspec.Struct, frozen=True):
    """What would mend a finding; `unsafe` and `display` ones are not made without being asked."""

    applicability: str = ""


class Finding(msgspec.Struct, frozen=True):
    """One finding, as ruff's JSON has it."""

    filename: str
    message: str
    code: str | None = None
    location: Place = Place()
    fix: Fix | None = None
    cell: int | None = None

    @property
    def rule(self) -> str:
        """Old versions of ruff give a syntax error no code."""
        return self.code or SYNTAX

    @property
    def key(self) -> str:
        """What makes it the same one at the next look."""
        said = f"{self.filename}\0{self.rule}\0{self.message}\0{self.cell}"
        return hashlib.blake2s(said.encode(), digest_size=8).hexdigest()

    @property
    def fixable(self) -> bool:
        """Whether `ruff check --fix` mends it."""
        return self.fix is not None and self.fix.applicability == "safe"

    def line(self, folder: Path) -> str:
        """As ruff's concise format has it, as somebody in `folder` reads it."""
        path = Path(self.filename)
        shown = path.relative_to(folder) if path.is_relative_to(folder) else path
        cell = f"cell {self.cell}:" if self.cell else ""
        star = " [*]" if self.fixable else ""
        place = f"{self.location.row}:{self.location.column}"
        colon = ":" if self.rule == SYNTAX else ""
        return f"{shown}:{cell}{place}: {self.rule}{colon}{star} {self.message}"


@dataclass(frozen=True)
class Findings:
    """All that ruff found at one look."""

    found: Sequence[Finding] = ()

    def __len__(self) -> int:
        return len(self.found)

    def keys(self) -> dict[str, int]:
        """How often each finding is there."""
        return dict(Counter(one.key for one in self.found))

    def new(self, before: Mapping[str, int]) -> list[Finding]:
        """Those that were not there before."""
        left = Counter(before)
        made = []
        for one in self.found:
            if left[one.key] > 0:
                left[one.key] -= 1
            else:
                made.append(one)
        return made

    def lines(self, folder: Path) -> Iterator[str]:
        """As `ruff check --output-format concise` says it."""
        yield from (one.line(folder) for one in self.found)
        if not self.found:
            yield "All checks passed!"
            return
        count, fixable = len(self.found), sum(one.fixable for one in self.found)
        yield f"Found {count} error{'s' if count > 1 else ''}."
        if fixable:
            yield f"[*] {fixable} fixable with the `--fix` option of ruff."

    def payload(self, *, folder: str, new: Sequence[Finding] | None = None) -> dict[str, Any]:
        """As PythonLintFailed has it. `new`: what was not there before, where that is known; one
        of those is shown then."""
        first = (new or self.found)[0]
        codes = Counter(one.rule for one in self.found).most_common(MOST_CODES)
        shown = {
            "tool": TOOL,
            "count": len(self.found),
            "path": first.filename,
            "line": first.location.row or None,
            "column": first.location.column or None,
            "code": first.rule,
            "message": first.message[:MOST_TEXT],
            "codes": dict(codes),
            "paths": list(_few(one.filename for one in (*(new or ()), *self.found))),
            "folder": folder,
            "new": None if new is None else len(new),
            "fixable": sum(one.fixable for one in self.found),
        }
        return {name: value for name, value in shown.items() if value is not None}


def decode(answer: bytes) -> Findings:
    """`ruff check --output-format json`; ValueError for what is no such answer."""
    if len(answer) > MOST_BYTES:
        raise ValueError(f"its answer is longer than {MOST_BYTES} bytes: name less")
    return Findings(msgspec.json.decode(answer or b"[]", type=list[Finding]))


def _few(paths: Iterable[str]) -> Iterator[str]:
    """The first so many different ones."""
    seen: dict[str, None] = {}
    for path in paths:
        if path not in seen and len(seen) < MOST_PATHS:
            seen[path] = None
    return iter(seen)
