"""What an installation has written, kept so that exactly that can be undone.

A record is written before what it tells of: after a crash in between, undoing finds less than it
looks for, and never something that it does not know.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from opsmesh.producers.errors import ProducerError
from opsmesh.producers.host import write_atomically
from opsmesh.router import paths

Kind = Literal["file", "line", "edit"]


@dataclass(kw_only=True)
class Entry:
    """One piece, and what is needed to take it away again."""

    kind: Kind
    path: str
    #: SHA-256, hexadecimal, of what lay there as ours and of what was to replace it: a kill in
    #: between leaves one of the two. A file that has another one was changed by somebody else.
    sha256: list[str] = field(default_factory=list)
    #: The text that was written last, to tell what somebody has changed since.
    text: str = ""
    #: What a file of the user's said before our part was put in.
    before: str = ""
    #: What our line ends with.
    mark: str = ""
    #: The line before ours was ended for it.
    unended: bool = False
    #: The file was not there before.
    created: bool = False
    #: Folders that were not there before, the outermost first.
    folders: list[str] = field(default_factory=list)
    #: Where the file lies that stood there before, and its hash.
    saved: str = ""
    saved_sha256: str = ""


@dataclass(kw_only=True)
class Record:
    """Everything that was written for a tool."""

    tool: str
    version: str = ""
    #: What the wiring was made with.
    options: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    def entry(self, kind: str, path: Path) -> Entry | None:
        """What is known of a piece."""
        known = (one for one in self.entries if (one.kind, one.path) == (kind, str(path)))
        return next(known, None)


def folder() -> Path:
    """Where records lie."""
    return Path(paths.state_dir(), "installed")


def load(tool: str) -> Record | None:
    """The record of a tool; None when nothing was installed. ProducerError when it is unreadable:
    what it would undo is not guessed."""
    path = folder() / f"{tool}.json"
    try:
        told = json.loads(path.read_bytes())
        return Record(
            tool=tool,
            version=str(told.get("version", "")),
            options={str(key): str(value) for key, value in told.get("options", {}).items()},
            entries=[Entry(**entry) for entry in told["entries"]],
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ProducerError(f"{path} cannot be read: {error}") from error


def store(record: Record) -> None:
    """Keep the record, so that it survives a crash of the machine."""
    text = json.dumps(asdict(record), indent=1)
    write_atomically(folder() / f"{record.tool}.json", text.encode())


def forget(tool: str) -> None:
    """There is nothing left to undo."""
    (folder() / f"{tool}.json").unlink(missing_ok=True)


def installed() -> list[str]:
    """Every tool that has a record."""
    return sorted(path.stem for path in folder().glob("*.json"))
