"""What `opsmesh auth check` shows: a row for what may be done, a column for who does it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import typer

from opsmesh.cli import output
from opsmesh.router.auth import matrix


def show(*, as_json: bool) -> None:
    """Try everything, and show it; Exit 1 when something is not as it should be."""
    found = asyncio.run(matrix.prove())
    wrong = [one for one in found if one.allowed != one.expected]
    if as_json:
        output.as_json([asdict(one) for one in found])
    else:
        marks = {(one.what, one.role): _mark(one) for one in found}
        rows = [
            {"may": line.what, "does": line.does, **{k: marks[line.what, k] for k in matrix.KINDS}}
            for line in matrix.LINES
        ]
        output.table(rows, ["may", "does", *matrix.KINDS], empty="", style=_colour)
        output.note(f"{len(found)} tried at a real server, {len(wrong)} not as they should be")
    if wrong:
        raise typer.Exit(output.FAILED)


def _mark(one: Any) -> str:
    text = "yes" if one.allowed else "no"
    return text if one.allowed == one.expected else f"{text}, and should not be"


def _colour(_: str, value: Any) -> str:
    return {"yes": "green", "no": "dim"}.get(str(value), "red" if "should" in str(value) else "")
