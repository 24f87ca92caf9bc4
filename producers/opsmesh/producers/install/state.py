"""How far a tool is wired: each piece by itself, and all of them in one word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from opsmesh.producers.errors import NotOurs
from opsmesh.producers.install import lines, plan
from opsmesh.producers.install.record import Record
from opsmesh.producers.wiring import Piece

PieceState = Literal["there", "missing", "stale", "edited"]
State = Literal["wired", "stale", "edited", "incomplete", "not wired"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """One piece; `stale` means an older text, or one that is no more wanted."""

    path: Path
    state: PieceState


@dataclass(frozen=True, kw_only=True)
class Look:
    """A tool. `incomplete`: pieces of it are missing; `edited`: somebody changed one, or a file
    that is not ours stands in its place."""

    state: State
    pieces: list[Found]

    @property
    def wrong(self) -> str:
        """What is not as it should be, for people."""
        return "; ".join(
            f"{one.path} is {one.state}" for one in self.pieces if one.state != "there"
        )


def look(tool: str, pieces: Sequence[Piece], record: Record | None) -> Look:
    """Compare what should be there with the disk."""
    known = record or Record(tool=tool)
    found = [
        Found(path=piece.path, state=_piece(tool, piece, known))
        for piece in plan.checked(tool, pieces)
    ]
    there = {one.state for one in found}
    found += [Found(path=Path(one.path), state="stale") for one in plan.unwanted(pieces, known)]
    state: State
    if not record and there <= {"missing"}:
        state = "not wired"
    elif "edited" in there:
        state = "edited"
    elif "missing" in there:
        state = "incomplete"
    elif any(one.state == "stale" for one in found):
        state = "stale"
    else:
        state = "wired"
    return Look(state=state, pieces=found)


def _piece(tool: str, piece: Piece, record: Record) -> PieceState:
    try:
        change = plan.one_piece(tool, piece, record)
    except NotOurs:
        return "edited"
    if not change.needed:
        return "there"
    if change.entry.kind == "file":
        return "missing" if change.before is None else "stale"
    if change.entry.kind == "edit":
        there = change.before is not None and record.entry("edit", piece.path) is not None
        return "stale" if there else "missing"
    found = lines.find(change.before or b"", change.entry.mark.encode())
    return "missing" if found is None else "stale"
