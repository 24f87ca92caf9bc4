"""An argument list and the values that events put into it.

The one rule: what an event holds is data. Before a `--`, after which programs read no options, a
value from an event that begins with `-` is refused, unless the profile says that it means it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opsmesh.handlers.errors import Unstartable
from opsmesh.handlers.template import OUTSIDE, Template

#: Characters of a value that an error shows.
_SHOWN: Final = 60
#: POSIX, Utility Syntax Guideline 10.
END_OF_OPTIONS: Final = "--"


_VERSION = re.compile(r"[0-9.]+$")
_SHELL = re.compile(r"-[a-z]*c|--command")
#: Programs that run a text, and the option before it.
_INTERPRETERS: Final = {
    **dict.fromkeys(("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "su"), _SHELL),
    "python": re.compile(r"-[a-zA-Z]*c"),
    **dict.fromkeys(
        ("perl", "ruby", "lua", "node", "nodejs"), re.compile(r"-[a-zA-Z]*[eEp]|--eval|--print")
    ),
    "php": re.compile(r"-r|--run"),
}
_POSITIONAL: Final = ("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "python")


def _reads_no_more(program: str) -> bool:
    return _VERSION.sub("", program.rpartition("/")[2]) in _POSITIONAL


class Arguments:
    """Compiled once. `options`: values from events may be options."""

    def __init__(self, argv: Sequence[str], *, options: bool = False) -> None:
        self._templates = [Template(argument) for argument in argv]
        self._guarded = set() if options else set(open_places(argv))

    def render(self, variables: Mapping[str, Any]) -> list[str]:
        """The arguments; Unstartable for one that would be an option that nobody wrote."""
        argv = [template.render_text(variables) for template in self._templates]
        for place in self._guarded:
            if argv[place].startswith("-"):
                raise Unstartable(
                    tuple(argv),
                    f"argument {place} ({self._templates[place].text}) became an option: "
                    f"{argv[place][:_SHOWN]!r}; write '--' before it where the program takes that, "
                    "or options_from_events: true if it is meant",
                )
        return argv


def script_of(argv: Sequence[str]) -> int | None:
    """Which argument is the text of a program: what follows `sh -c`, `python3 -c`, `perl -e`."""
    for place, text in enumerate(argv):
        options = _INTERPRETERS.get(_VERSION.sub("", text.rpartition("/")[2]))
        if options is None:
            continue
        for at in range(place + 1, len(argv) - 1):
            if not argv[at].startswith("-") or argv[at] == END_OF_OPTIONS:
                break
            if options.fullmatch(argv[at]):
                return at + 1
    return None


def open_places(argv: Sequence[str]) -> list[int]:
    """The arguments before any `--` that an event could make an option: they begin with a
    placeholder that reads from outside. What follows the text of a shell's program are its own
    arguments, whatever they begin with."""
    found = []
    script = script_of(argv)
    for place, text in enumerate(argv):
        if text == END_OF_OPTIONS or (place == script and _reads_no_more(argv[0])):
            break
        if place and Template(text).leads & OUTSIDE:
            found.append(place)
    return found
