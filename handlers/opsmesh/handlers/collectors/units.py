"""`unit_status`, `unit_file` and `journal`: what systemd says of the event's unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Duration, Spec, Text
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.subject import of_user, systemctl, unit_of
from opsmesh.handlers.errors import Unstartable

#: Seconds of journal before the event.
JOURNAL_SINCE_S: Final = 600.0
#: Last lines of that.
JOURNAL_LINES: Final = 200
#: Seconds that the journal may begin before the last good start, to hold why it was started.
BEFORE_START_S: Final = 2.0
#: A start longer ago says nothing any more: seconds.
LONGEST_S: Final = 7 * 86400.0


class UnitSpec(Spec):
    """Which unit; the event's own (`payload.unit`) unless given."""

    unit: Text | None = None


class JournalSpec(Spec):
    """Which lines of the journal; the unit is the event's own (`payload.unit`) unless given."""

    unit: Text | None = None
    since: Duration = JOURNAL_SINCE_S
    since_last_start: Annotated[
        bool,
        Field(
            description="From the moment on at which the unit was last up, where systemd knows it; "
            "else `since`."
        ),
    ] = False
    lines: Annotated[int, Field(ge=1, le=10_000)] = JOURNAL_LINES
    directory: Annotated[Text | None, Field(description="Another machine's journal.")] = None


class Journal:
    """Lines of the journal up to the event, and what has come since."""

    key: ClassVar[str] = "journal"
    spec: ClassVar[type[JournalSpec]] = JournalSpec

    def __init__(self, spec: JournalSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        at = request.ctx.event.ts_us / 1e6
        unit = unit_of(request, self._spec.unit)
        since, started = max(0.0, at - self._spec.since), None
        if unit and self._spec.since_last_start:
            started = await last_start(request, unit)
            if started is not None and at - LONGEST_S < started <= at:
                since = started - BEFORE_START_S
        argv = [*journalctl(request, self._spec.directory), "--output=short-iso-precise"]
        argv += [f"--since=@{since:.0f}", f"--lines={self._spec.lines}"]
        if unit:
            argv.append(f"--user-unit={unit}" if of_user(request) else f"--unit={unit}")
        facts = {"since": since, **({} if started is None else {"started": started})}
        return [await request.output(argv, facts=facts)]


class _Unit:
    key: ClassVar[str]
    spec: ClassVar[type[UnitSpec]] = UnitSpec
    verb: ClassVar[str]

    def __init__(self, spec: UnitSpec) -> None:
        self._unit = spec.unit

    async def collect(self, request: Request) -> Sequence[Piece]:
        unit = unit_of(request, self._unit)
        if not unit:
            raise Unavailable("the event's payload names no unit")
        piece = await request.output([*systemctl(request), "--full", self.verb, "--", unit])
        # systemctl(1): status exits with 3 for a unit that is not active, which is no error here
        if self.verb == "status" and piece.exit_code == 3 and piece.data:
            piece = piece.without_error()
        return [piece]


class UnitStatus(_Unit):
    """`systemctl status`, of the user's manager where the event is of that."""

    key: ClassVar[str] = "unit_status"
    verb: ClassVar[str] = "status"


class UnitFile(_Unit):
    """`systemctl cat`: the unit's file and its drop-ins, each with its path."""

    key: ClassVar[str] = "unit_file"
    verb: ClassVar[str] = "cat"


def journalctl(request: Request, directory: str | None) -> list[str]:
    """The program, and which journal it reads."""
    argv = ["journalctl", "--no-pager", "--quiet"]
    return argv if directory is None else [*argv, f"--directory={request.render(directory)}"]


async def last_start(request: Request, unit: str) -> float | None:
    """When the unit was last up, in seconds since the epoch; None where systemd does not say."""
    argv = [*systemctl(request), "show", "--timestamp=unix", "--property=ActiveEnterTimestamp"]
    try:
        ended = await request.run([*argv, "--value", "--", unit])
    except Unstartable:
        return None
    text = ended.stdout_tail.strip().removeprefix("@")
    return float(text) if ended.ok and text.isascii() and text.isdigit() and int(text) else None
