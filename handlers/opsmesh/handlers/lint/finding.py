"""A finding: one thing that is wrong, or looks wrong, at a place of a profile file."""

from __future__ import annotations

from typing import Final, Literal, Self, get_args

import msgspec

from opsmesh.handlers.errors import ConfigError

Severity = Literal["error", "warning", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """An error cannot be meant; a warning can, on another host or with topics that we do not know;
    a note is only worth knowing. `hint` is the next step."""

    severity: Severity
    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    @classmethod
    def of(cls, error: ConfigError) -> Self:
        """The finding that a file cannot be used."""
        return cls(
            severity="error",
            file=error.file,
            line=error.line,
            column=error.column,
            message=error.message,
            hint=error.hint,
        )

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"
