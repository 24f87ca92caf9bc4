"""A report that a person reads in a minute: Markdown from a template over the event and the pieces.

Whatever an answer holds, it cannot become markup: within a line it is a code span of one line, on a
line of its own a code block. So no log line makes a heading, a link, an image or a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opsmesh.handlers.collectors.contract import Piece
from opsmesh.handlers.template import Secret, Template, as_text, plain
from opsmesh.router.conditions import ConditionError, Expression
from opsmesh.schemas import unseen

#: Characters of an answer within a line; lines of a block, and characters of each.
SPAN: Final = 300
BLOCK_LINES: Final = 200
BLOCK_WIDTH: Final = 400
#: Bytes of a report.
MAX_REPORT: Final = 256 * 1024
#: Lines of a piece that are offered to a template.
MAX_LINES: Final = 5000
#: What a report's placeholders may name beside those of every template.
ALSO: Final = ("pieces",)

_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ,%]*[A-Za-z0-9%])?")

#: The report of `report: true`.
DEFAULT: Final = """\
# ${{ event.topic }}

On ${{ host }} at ${{ event.ts_utc }}, severity ${{ event.severity }}, from ${{ event.component }}.

## What happened

${{ event.payload }}
"""


class ReportTemplate:
    """A template, compiled when its profile is loaded."""

    def __init__(self, text: str | None) -> None:
        self._whole = text is None
        parts: list[str | Expression] = []
        for part in Template(DEFAULT if text is None else text, also=ALSO).parts:
            if isinstance(part, Secret):
                raise ValueError("a report holds no secret")  # noqa: TRY004 (a person's mistake)
            parts.append(part)
        self._parts = tuple(parts)

    def render(
        self, pieces: Sequence[Piece], variables: Mapping[str, Any]
    ) -> tuple[str, list[str]]:
        """The Markdown, and what could not be answered."""
        names = {**variables, "pieces": {piece.key: view(piece) for piece in pieces}}
        out: list[str] = []
        unanswered: list[str] = []
        for n, part in enumerate(self._parts):
            if isinstance(part, str):
                out.append(part)
                continue
            try:
                value = plain(part.evaluate(names, functions=FUNCTIONS))
            except ConditionError as error:
                unanswered.append(str(error))
                value, missing = None, error.reason
            else:
                missing = ""
            alone = _alone(out, self._parts[n + 1 : n + 2])
            out.append(f"*no answer: {span(missing)}*" if missing else show(value, block=alone))
        if self._whole:
            out.append("".join(_section(piece) for piece in pieces))
        text = "".join(out).rstrip() + "\n"
        return (text if len(text) <= MAX_REPORT else text[:MAX_REPORT] + "\n…\n"), unanswered


def view(piece: Piece) -> dict[str, Any]:
    """What a template sees of a piece."""
    text = (piece.data or b"").decode(errors="replace")
    return {
        "name": piece.name,
        "text": text,
        "lines": text.splitlines()[-MAX_LINES:],
        "facts": dict(piece.facts),
        "error": piece.error or "",
        "ok": piece.error is None,
        "truncated": piece.truncated,
        "size": len(piece.data or b""),
        "exit_code": piece.exit_code,
        "duration_ms": piece.duration_ms,
    }


def show(value: Any, *, block: bool) -> str:
    """An answer as Markdown that is nothing but text."""
    if isinstance(value, dict) and {"text", "error", "facts"} <= value.keys():
        if value["error"] and not value["text"]:
            return f"*not there: {span(value['error'])}*"
        value = value["text"]
    if not block or isinstance(value, int | float):
        return span(value)
    if isinstance(value, dict):
        value = [f"{key}: {as_text(item)}" for key, item in value.items()]
    lines = [as_text(item) for item in value] if isinstance(value, list) else [as_text(value)]
    lines = [line for item in lines for line in (item.splitlines() or [""])]
    return fence(lines) if any(line.strip() for line in lines) else "*nothing*"


def span(value: Any) -> str:
    """One line: plain words as they are, anything else as a code span."""
    text = " ".join(unseen.marked(as_text(value)).split())
    if len(text) > SPAN:
        text = text[: SPAN - 1] + "…"
    if not text:
        return "–"
    if _PLAIN.fullmatch(text):
        return text
    ticks = _ticks(text, 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def fence(lines: Sequence[str]) -> str:
    """A code block that nothing within it can end."""
    lines = "\n".join(lines).strip("\n").split("\n")
    clean = [unseen.marked(line.replace("\t", "    "))[:BLOCK_WIDTH] for line in lines]
    if len(clean) > BLOCK_LINES:
        clean = [f"… {len(clean) - BLOCK_LINES} lines before", *clean[-BLOCK_LINES:]]
    ticks = _ticks("\n".join(clean), 3)
    return "\n".join([f"{ticks}text", *clean, ticks])


def tail(value: Any, count: Any) -> list[str]:
    """The last lines of a piece, a text or a list."""
    return _lines(value)[-_count(count) :]


def head(value: Any, count: Any) -> list[str]:
    """The first lines of a piece, a text or a list."""
    return _lines(value)[: _count(count)]


def matching(value: Any, pattern: Any) -> list[str]:
    """The lines that hold the text, whatever the case of its letters."""
    wanted = str(pattern).casefold()
    return [line for line in _lines(value) if wanted in line.casefold()]


#: Functions of a report beside those of CEL: `tail(pieces.journal, 20)`, `pieces.journal.tail(20)`.
FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "tail": tail,
    "head": head,
    "matching": matching,
}


def _section(piece: Piece) -> str:
    """A piece in the report of `report: true`."""
    heading = f"\n## {span(piece.key.replace('_', ' '))}\n\n"
    if piece.data is None:
        return f"{heading}*not there: {span(piece.error or '')}*\n"
    note = f"\n*{span(piece.error)}*\n" if piece.error else ""
    text = piece.data.decode(errors="replace")
    return f"{heading}{show(tail(text, 25), block=True)}\n{note}"


def _alone(before: Sequence[str], after: Sequence[str | Expression]) -> bool:
    """Whether a placeholder has its line for itself."""
    line = "".join(before[-2:]).rpartition("\n")[2]
    rest = after[0] if after else "\n"
    return not line.strip() and isinstance(rest, str) and not rest.partition("\n")[0].strip()


def _lines(value: Any) -> list[str]:
    value = plain(value)
    if isinstance(value, dict):
        value = value.get("text", "")
    if isinstance(value, list):
        return [as_text(item) for item in value]
    return as_text(value).splitlines()


def _count(value: Any) -> int:
    count = int(value)
    if not 0 < count <= MAX_LINES:
        raise ValueError(f"{count} is no number of lines")
    return count


def _ticks(text: str, least: int) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(least, longest + 1)
