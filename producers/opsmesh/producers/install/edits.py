"""Our part in a structured file of the user's: put in, and taken out. Bytes in, bytes out.

The record keeps the text that our part was put into. A file that nobody has touched since gets
that text back; of any other one the wiring takes out what is ours, and the rest stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from opsmesh.producers.errors import BrokenWiring, ProducerError, Unusable
from opsmesh.producers.install.record import Entry
from opsmesh.producers.wiring import EditedFile


def put(tool: str, piece: EditedFile, theirs: str) -> str:
    """The text with our part in."""
    return _asked(tool, lambda: piece.put(theirs))


def without(tool: str, piece: EditedFile | None, now: str, entry: Entry | None) -> str:
    """The text as it stands `now`, without our part; Unusable when its wiring is gone, and the file
    was changed since."""
    if entry is not None and (now == entry.before or digest(now) in entry.sha256):
        return entry.before
    if entry is not None and piece is None:
        raise Unusable(
            entry.path,
            f"was changed since {tool} was installed, and what could tell our part from the rest "
            f"is gone with its package; delete our part yourself, then uninstall {tool} again",
        )
    if piece is None:
        return now
    before = "" if entry is None else entry.before
    if entry is None and put(tool, piece, now) != now:
        return now  # there is nothing of ours in it
    return _asked(tool, lambda: piece.take(now, before))


def digest(text: str) -> str:
    """How a record names a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def text(path: str, data: bytes | None) -> str:
    """What the file says; Unusable when it is no text."""
    try:
        return (data or b"").decode()
    except UnicodeDecodeError as error:
        raise Unusable(path, f"is not UTF-8: byte {error.start}") from error


def _asked(tool: str, ask: Callable[[], str]) -> str:
    try:
        return ask()
    except ProducerError:
        raise
    except Exception as error:
        raise BrokenWiring(tool, f"{type(error).__name__}: {error}") from error
