"""The contract of a tool's own half: what `opsmesh install TOOL` puts into its configuration.

A wiring only says what should be there; showing, asking, writing, recording and undoing is done in
one place for all of them. It is found through the entry point group `opsmesh.wirings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

#: What a probe's text stands for.
TOKEN: Final = "TOKEN"  # noqa: S105 (a place, no secret)
#: How that text begins.
PROBED: Final = "opsmesh-probe-"
#: Hops of a probe's event: a profile's limit is 64 at most.
PROBE_HOPS: Final = 1000


@dataclass(frozen=True, kw_only=True)
class OwnFile:
    """A file that is wholly ours, in a folder that its tool reads. `root`: only root can write.
    `data`: its bytes, where it is no text."""

    path: Path
    text: str = ""
    data: bytes | None = None
    mode: int = 0o644
    root: bool = False

    @property
    def content(self) -> bytes:
        """What the file holds."""
        return self.text.encode() if self.data is None else self.data


@dataclass(frozen=True, kw_only=True)
class SourceLine:
    """Exactly one line in a file of the user's, which is made when it is missing; `comment` begins
    a comment in the file's language, and marks the line as ours."""

    path: Path
    line: str
    comment: str = "#"
    at: Literal["start", "end"] = "end"


@dataclass(frozen=True, kw_only=True)
class EditedFile:
    """A structured file of the user's (TOML, JSON) that holds a part of ours among theirs.

    `put` is given its text ("" where there is no file) and answers with our part in; `take` is
    given the text as it stands now and the one that `put` was given ("" when nobody knows), and
    answers without our part. Both do nothing to what is done already, keep what is not ours, and
    raise Unusable for a text that they do not understand. `take` is asked only for a file that
    somebody has changed since: any other is put back byte for byte.
    """

    path: Path
    put: Callable[[str], str]
    take: Callable[[str, str], str]
    root: bool = False


Piece = OwnFile | SourceLine | EditedFile


class Wiring(Protocol):
    """One tool's half. Keyword parameters of what the entry point names, if it has any, are options
    (`opsmesh install TOOL -o key=value`): each is given as text and must have a default."""

    @property
    def name(self) -> str:
        """What the user types: `opsmesh install NAME`."""
        ...

    @property
    def description(self) -> str:
        """One line for `install --list`."""
        ...

    @property
    def topics(self) -> Sequence[str]:
        """What events it brings."""
        ...

    @property
    def producer(self) -> str | None:
        """The producer that has to run for it; None when the agent alone will do."""
        ...

    def missing(self) -> str | None:
        """Why it cannot be wired here, or None. Cheap, and starts nothing."""
        ...

    def pieces(self) -> Sequence[Piece]:
        """What should be there, with the paths of this user."""
        ...

    def after(self) -> str:
        """What is left for the user to do, like "open a new shell"; empty for nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A way to see that a wired tool is heard: `argv` runs on a terminal of its own, with `env`
    added, and is given `typed`; TOKEN in it stands for a text that begins with PROBED, and that the
    event on `topic` must hold. A producer tells such an event as `probed` says, so that it fires
    nothing."""

    label: str
    argv: Sequence[str]
    typed: str
    topic: str
    env: Mapping[str, str] = field(default_factory=dict)


def probed(text: str) -> dict[str, Any]:
    """What `emit` is given for an event with this text: nothing, but for a probe's, which is no
    news, and farther from its first cause than any profile allows."""
    return {"severity": "info", "hops": PROBE_HOPS} if PROBED in text else {}


@runtime_checkable
class Probed(Protocol):
    """A wiring that can be tried; what a probe does is real, so only on request."""

    def probes(self) -> Sequence[Probe]:
        """The trials, one for each half."""
        ...


@runtime_checkable
class Switched(Protocol):
    """A wiring whose files work only after commands. They are shown with the files, and run after
    the same yes."""

    def reload(self) -> Sequence[Sequence[str]]:
        """Run after files were written, and after they were taken away."""
        ...

    def switch_on(self) -> Sequence[Sequence[str]]:
        """Run after that, once files are there. NotNow while it must not be."""
        ...

    def switch_off(self) -> Sequence[Sequence[str]]:
        """Run before files are taken away."""
        ...
