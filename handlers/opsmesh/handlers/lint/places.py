"""Where in a file a part of a profile stands, to the character where its text is plain."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.lint.finding import Finding, Severity
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.yamlfile import Document, Where

#: YAML puts a node where its anchor begins.
_ANCHOR = re.compile(r"&\S+\s+")


class Source:
    """A profile file, read once for all of its profiles; empty when it cannot be read any more."""

    def __init__(self, path: Path, *, file: str) -> None:
        self.file = file
        self.document: Document | None = None
        self.lines: list[str] = []
        with contextlib.suppress(ConfigError, OSError):
            self.document = yamlfile.load(path, name=file)
            self.lines = path.read_text(encoding="utf-8-sig").splitlines()


class Places:
    """One profile in its file. A file that has changed meanwhile gives the profile's line alone."""

    def __init__(self, source: Source, *, profile: str, line: int) -> None:
        self._base: Where = ("profiles", profile)
        self._file = source.file
        self._line = line
        self._document = source.document
        self._lines = source.lines

    def finding(
        self,
        severity: Severity,
        where: Where,
        message: str,
        *,
        hint: str = "",
        key: bool = False,
        text: str = "",
        at: int = 0,
    ) -> Finding:
        """A finding at the value (or its key) that stands at `where` in the profile; with `text`,
        the whole of that value, at its character `at`."""
        line, column = self._position((*self._base, *where), key=key)
        if text:
            line, column = self._within(line, column, text, at)
        return Finding(
            severity=severity,
            file=self._file,
            line=line,
            column=column,
            message=message,
            hint=hint,
        )

    def exists(self, where: Where) -> bool:
        """Whether the file has a value there."""
        return self._document is not None and (*self._base, *where) in self._document.positions

    def listed(self, where: Where, index: int) -> Where:
        """The place of one of several values that may also be written as one."""
        return (*where, index) if self.exists((*where, index)) else where

    def _position(self, where: Where, *, key: bool) -> tuple[int, int]:
        if self._document is None:
            return self._line, 1
        return self._document.key_position(where) if key else self._document.position(where)

    def _within(self, line: int, column: int, text: str, at: int) -> tuple[int, int]:
        """The place of `text[at]`; the value's own place where YAML wrote the text otherwise."""
        if not 0 < line <= len(self._lines):
            return line, column
        if anchor := _ANCHOR.match(self._lines[line - 1], column - 1):
            column = anchor.end() + 1
        written = self._lines[line - 1][column - 1 :]
        quoted = written[:1] in ("'", '"')
        if written[quoted:].startswith(text):
            return line, column + quoted + at
        if written[:1] not in ("|", ">"):
            return line, column
        before = text[:at].split("\n")
        row = text.split("\n")[len(before) - 1]
        below = line + len(before)
        found = self._lines[below - 1] if below <= len(self._lines) else ""
        if written[0] == "|" and row.strip() and found.strip() == row.strip():
            indent = found.index(row.strip()) - row.index(row.strip())
            return below, indent + len(before[-1]) + 1
        return line, column


def texts(value: Any, where: Where) -> list[tuple[Where, str]]:
    """Every text within a value, with its place."""
    if isinstance(value, str):
        return [(where, value)]
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in texts(part, (*where, str(key)))]
    if isinstance(value, list):
        return [found for n, part in enumerate(value) for found in texts(part, (*where, n))]
    return []
