"""Which stretch of a text is taken out, where several rules and earlier marks meet.

Pure, on offsets. The one rule: what is inside a mark is never touched, and what reaches beyond one
takes the mark with it, so that no part of a secret stays beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from opsmesh.schemas.commitments import MARK
from opsmesh.schemas.secret_rules import SECRET_FLAG, USER_FLAG, USER_PROGRAMS

#: Programs that take a password glued to `-p`.
_GLUED: Final = ("mysql", "mysqldump", "mysqladmin", "mysqlimport", "mariadb", "sshpass")


class Span(NamedTuple):
    """From `start` to before `stop`, by the rule with this number; a lower one names it first."""

    start: int
    stop: int
    rule: int


def within(text: str, start: int, stop: int, marks: Sequence[tuple[int, int]]) -> bool:
    """Whether the stretch, quotes aside, lies inside a mark."""
    if not marks:
        return False
    while start < stop and text[start] in "\"'":
        start += 1
    while stop > start and text[stop - 1] in "\"'":
        stop -= 1
    return any(first <= start and stop <= last for first, last in marks)


def merged(found: Sequence[Span], marks: Sequence[tuple[int, int]]) -> list[Span]:
    """Stretches that do not overlap, in their order. Those that did are one, by the name of the
    widest; a mark that one of them reaches into belongs to it."""
    wide = []
    for start, stop, rule in found:
        for first, last in marks:
            if first < stop and start < last:
                start, stop = min(start, first), max(stop, last)
        wide.append(Span(start, stop, rule))
    one: list[Span] = []
    for span in sorted(wide, key=lambda span: (span.start, -span.stop, span.rule)):
        if one and span.start < one[-1].stop:
            before = one[-1]
            name = min(before, span, key=lambda s: (s.start - s.stop, s.rule)).rule
            one[-1] = Span(before.start, max(before.stop, span.stop), name)
        else:
            one.append(span)
    return one


def secret_argument(items: Sequence[Any], n: int) -> int | None:
    """Where the secret begins in the item of a command line; None when it holds none.

    `--password X`, and for the programs that know them `-u user:X` and `-pX`.
    """
    item, before = items[n], items[n - 1] if n else None
    if not isinstance(item, str) or not item:
        return None
    program = items[0] if isinstance(items[0], str) else ""
    if n and item.startswith("-p") and len(item) > 2 and program.rpartition("/")[2] in _GLUED:
        return None if MARK.fullmatch(item, 2) else 2
    if not isinstance(before, str) or item[0] == "-":
        return None
    if SECRET_FLAG.fullmatch(before):
        return None if MARK.fullmatch(item) else 0
    if USER_FLAG.fullmatch(before) and USER_PROGRAMS.fullmatch(program):
        user, colon, password = item.partition(":")
        if colon and password and not MARK.fullmatch(password):
            return len(user) + 1
    return None
