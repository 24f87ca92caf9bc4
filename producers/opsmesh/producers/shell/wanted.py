"""Which failures are told. Pure; the options' texts are checked when the filter is made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal, Self

from opsmesh.producers.errors import OptionError
from opsmesh.producers.shell.line import STATUSES, Failed
from opsmesh.schemas import durations

#: Exit statuses that are nobody's failure: Ctrl-C, and Ctrl-Z, which leaves a job that goes on.
IGNORE_EXIT: Final = "130,148"

_WILD: Final = re.compile(r"[*?\[]")
_FIRST: Final = re.compile(r"\s*(?:\w+=\S*\s+)*(\S+)")


@dataclass(frozen=True, kw_only=True)
class Filter:
    """`commands` without a wildcard are names of programs, others patterns of whole commands."""

    exits: frozenset[int]
    shortest_us: float
    commands: tuple[str, ...]
    private: Literal["told", "dropped"]

    @classmethod
    def of(cls, *, ignore_exit: str, min_duration: str, ignore: str, private: str) -> Self:
        """From the options' texts; OptionError names the one that is wrong."""
        exits = _listed(ignore_exit)
        for text in exits:
            if not (text.isascii() and text.isdecimal() and int(text) in STATUSES):
                raise OptionError("ignore_exit", f"{text!r} is not an exit status from 1 to 255")
        try:
            shortest = durations.parse(min_duration)
        except ValueError as error:
            raise OptionError("min_duration", str(error)) from error
        if private not in ("told", "dropped"):
            raise OptionError("private", f"{private!r} is neither told nor dropped")
        return cls(
            exits=frozenset(map(int, exits)),
            shortest_us=shortest * 1e6,
            commands=_listed(ignore),
            private="told" if private == "told" else "dropped",
        )

    def takes(self, failed: Failed) -> bool:
        """Whether it is told."""
        if failed.exit_code in self.exits or failed.duration_us < self.shortest_us:
            return False
        if not failed.command:
            return self.private == "told"
        first = _FIRST.match(failed.command)
        program = first[1].rpartition("/")[2] if first else ""
        return not any(
            fnmatchcase(failed.command, pattern) if _WILD.search(pattern) else program == pattern
            for pattern in self.commands
        )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)
