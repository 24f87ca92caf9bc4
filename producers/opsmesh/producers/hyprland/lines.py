"""What one line of Hyprland's event socket says. Pure: bytes in, fields out.

A line is `EVENT>>DATA`; DATA is cut to 1,024 bytes, wherever that falls in a character, and its
newlines are spaces (formatEvent, src/ipc/s2/S2.cpp at 6ffae9c). Nothing in it is escaped: only
ids, addresses and monitor names have no commas, so each event is split from the sides where those
stand, and what is left is the free text.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

#: Bytes of DATA after which the compositor cuts.
LONGEST_DATA: Final = 1024

_ID = r"-?\d{1,19}"
_ADDRESS = r"[0-9a-f]{0,16}"
_MONITOR = r"[^,]+"
_TEXT = r".*"

#: The events that are read, each with the shape of its data, as postEvent's callers make it:
#: Monitor.cpp, FocusState.cpp, Workspace.cpp, WorkspacePlacementController.cpp, ConfigManager.cpp.
SHAPES: Final = {
    event: re.compile(",".join(f"({part})" for part in parts), re.DOTALL)
    for event, parts in {
        "workspacev2": (_ID, _TEXT),
        "renameworkspace": (_ID, _TEXT),
        "focusedmon": (_MONITOR, _TEXT),
        "focusedmonv2": (_MONITOR, _ID),
        "activespecialv2": (r"(?:-?\d{1,19})?", _TEXT, _MONITOR),
        "moveworkspacev2": (_ID, _TEXT, _MONITOR),
        "monitoradded": (_MONITOR,),
        "monitorremoved": (_MONITOR,),
        "monitoraddedv2": (_ID, _MONITOR, _TEXT),
        "monitorremovedv2": (_ID, _MONITOR, _TEXT),
        "activewindow": (r"[^,]*", _TEXT),
        "activewindowv2": (_ADDRESS,),
        "configreloaded": (r"",),
    }.items()
}

_NAMES: Final = {event.encode(): event for event in SHAPES}


class Malformed(ValueError):
    """No line that Hyprland writes."""


@dataclass(frozen=True)
class Line:
    """One event that matters here, and the parts of its data."""

    event: str
    fields: tuple[str, ...]


def parse(line: bytes) -> Line | None:
    """The event in a line without its newline; None for one that is of no interest here.

    Malformed for what is no event, and for data that its event cannot have.
    """
    name, arrows, data = line.partition(b">>")
    if not arrows or not name.isalnum():
        raise Malformed(f"no event: {line[:80]!r}")
    event = _NAMES.get(name)
    if event is None:
        return None
    if len(data) > LONGEST_DATA:
        raise Malformed(f"{event} with {len(data)} bytes exceeds {LONGEST_DATA}")
    found = SHAPES[event].fullmatch(_text(data))
    if found is None:
        raise Malformed(f"{event} cannot have {data[:80]!r}")
    return Line(event, found.groups())


def _text(data: bytes) -> str:
    """DATA as text. Of a character that the cut has halved nothing is left; other bytes that are
    no UTF-8 show as U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(data, final=len(data) < LONGEST_DATA)
