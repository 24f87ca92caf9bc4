"""`notebook_run`: what a run of a notebook depended on, as its event tells, and what of it is
different from the last bundle of this step for the same notebook.

The event is a stranger's: each of its texts becomes one line of bounded length, and none is run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from opsmesh.handlers.actions.spec import Spec
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.earlier import changes

#: The event that has the facts.
TOPIC: Final = "notebook.run.completed"
#: Characters of a value, and lines of a kind.
LONGEST: Final = 300
MOST: Final = 2000


class NotebookRunSpec(Spec):
    """Nothing to choose: all of it is the event's own."""


class NotebookRun:
    """`notebook_run.….txt`, a fact a line; `.diff` where there was a run of it before."""

    key: ClassVar[str] = "notebook_run"
    spec: ClassVar[type[NotebookRunSpec]] = NotebookRunSpec

    def __init__(self, spec: NotebookRunSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        event = request.ctx.event
        if event.topic != TOPIC:
            raise Unavailable(f"the event is no {TOPIC}")
        text = "".join(f"{line}\n" for line in _lines(event.payload))
        if request.name is None:  # each notebook is compared with itself
            name = str(event.payload.get("notebook", ""))
            mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
            request = replace(request, name=f"{self.key}.{mark}.txt")
        difference = await asyncio.to_thread(changes, request, text)
        facts = {
            **{key: event.payload.get(key) for key in ("code_sha256", "seeds", "failed")},
            "python": _mapping(event.payload.get("environment")).get("python"),
            "packages": len(_mapping(_mapping(event.payload.get("environment")).get("packages"))),
            "changed": bool(difference),
        }
        pieces = [request.piece(text, facts=facts)]
        if difference:
            pieces.append(request.beside(difference, ".diff"))
        return pieces


def _lines(payload: Mapping[str, Any]) -> Iterator[str]:
    environment = _mapping(payload.get("environment"))
    yield f"notebook: {_plain(payload.get('notebook'))}"
    for key in ("python", "implementation", "executable", "platform", "pythonhashseed"):
        if key in environment:
            yield f"{key}: {_plain(environment[key])}"
    yield f"code: {_plain(payload.get('code_sha256'))}"
    for call, seed in sorted(_mapping(payload.get("seeds")).items())[:MOST]:
        yield f"seed {_plain(call)}: {_plain(seed)}"
    ran = payload.get("ran")
    for number, cell in enumerate(ran[:MOST] if isinstance(ran, list) else (), 1):
        facts = _mapping(cell)
        failed = " failed" if facts.get("failed") else ""
        yield f"cell {number} {_plain(facts.get('cell'))}: {_plain(facts.get('sha256'))}{failed}"
    for name, version in sorted(_mapping(environment.get("packages")).items())[:MOST]:
        yield f"package {_plain(name)}: {_plain(version)}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> str:
    text = str(value)[:LONGEST]
    return "".join(one if one.isprintable() else " " for one in text)
