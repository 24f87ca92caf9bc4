"""Which form the state has that opsmesh keeps, and whether this version may touch it.

The form is a number. It stands at the broker, in the metadata of each stream, and in `format.json`
of the state folder: a host's folders and the broker may be of different age. The one rule: state of
another form is left alone: of a newer one until a newer opsmesh is there, of an older one until
`opsmesh upgrade` has brought it here (`router.migrations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from opsmesh.router import files, paths, release
from opsmesh.router.errors import BadFile, NeedsUpgrade, RestoreUnfinished, RouterError, StateTooNew

#: The form that this version reads and writes. Whoever changes it adds a migration.
FORMAT: Final = 1
#: What state has that says nothing: that of 0.1.0.
UNMARKED: Final = 1
#: The form in the metadata of a stream, and the version of opsmesh that brought it there.
KEY, BY = "opsmesh.format", "opsmesh.version"
FILE: Final = "format.json"
#: There while `opsmesh restore` is at work: what it has not finished is not to be used.
RESTORING: Final = "restoring.json"


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A form, and the version of opsmesh that wrote it; "" when nobody has said so."""

    format: int = UNMARKED
    opsmesh: str = ""


class Restoring(msgspec.Struct, frozen=True, kw_only=True):
    """The backup that is being put back."""

    backup: str


def local() -> Mark:
    """That of this host's folders; BadFile when its file is broken."""
    path = Path(paths.state_dir(), FILE)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except FileNotFoundError:
        return Mark()
    except msgspec.DecodeError as error:
        raise BadFile(str(path), str(error)) from error


def mark_local(number: int | None = None) -> None:
    """Note that this host's folders have this form; ours unless it is given."""
    number = FORMAT if number is None else number
    mark = Mark(format=number, opsmesh=release.version())
    path = Path(paths.state_dir(), FILE)
    if not path.exists() or local().format != number:
        paths.private_dir(str(path.parent))
        files.write_private(path, msgspec.json.encode(mark))


def of(stream: Mapping[str, str] | None) -> Mark:
    """That of a stream, by its metadata."""
    told = (stream or {}).get(KEY, "")
    number = int(told) if told.isdigit() else UNMARKED
    return Mark(format=number, opsmesh=(stream or {}).get(BY, ""))


def metadata_of(number: int | None = None) -> dict[str, str]:
    """What a stream of this form is marked with; of ours unless it is given."""
    return {KEY: str(FORMAT if number is None else number), BY: release.version()}


def check(mark: Mark, where: str) -> None:
    """Return when this version may use it; StateTooNew or NeedsUpgrade when not."""
    if mark.format > FORMAT:
        raise StateTooNew(where, mark.format, mark.opsmesh, reads=FORMAT, version=release.version())
    if mark.format < FORMAT:
        raise NeedsUpgrade(where, mark.format, wants=FORMAT)


def hindrance() -> RouterError | None:
    """Why no part of the mesh may start on this host's folders; None when they are in order. Call
    it before anything is written there."""
    restoring = Path(paths.state_dir(), RESTORING)
    try:
        if restoring.exists():
            return RestoreUnfinished(
                msgspec.json.decode(restoring.read_bytes(), type=Restoring).backup
            )
        if Path(paths.state_dir()).is_dir():
            check(local(), paths.state_dir())
    except msgspec.DecodeError as error:
        return BadFile(str(restoring), str(error))
    except RouterError as error:
        return error
    return None
