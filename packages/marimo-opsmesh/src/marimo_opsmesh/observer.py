"""A run of cells, from its start to its events: the four moments in which marimo calls us.

`began`, `ended_cell` and `finished` are hooks of marimo's runner, on the notebook's own thread: a
cell that ends well costs an append to a list. Runs may lie in each other (a cell may start one), so
each is known by marimo's graph of it.
"""

from __future__ import annotations

import os
import time

from . import cells, environment, failures
from . import notebook as notebooks
from .guard import guarded
from .sender import CELLS, RUN, Fact, Pace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .sender import Sender

FAILED = "notebook.cell.failed"
#: The cell of marimo's scratchpad, and how agents run code beside the notebook: none of its cells.
SCRATCH = "__scratch__"
#: Runs that lie in each other, at most.
DEPTH = 32
#: Failures that are told at once, and how many more each second: then they are counted only.
BURST, RATE = 200, 10.0


class _Run:
    __slots__ = ("began", "graph", "ran", "wanted")

    def __init__(self, graph: int, wanted: int) -> None:
        self.graph = graph
        self.wanted = wanted
        self.began = time.perf_counter()
        self.ran: list[tuple[str, str, bool]] = []


class Observer:
    """What happens in one kernel. `notebook` and `variables` are asked for at each run."""

    def __init__(
        self,
        sender: Sender,
        *,
        mode: str,
        notebook: Callable[[], str | None],
        variables: Callable[[], dict[str, object]],
    ) -> None:
        self._sender = sender
        self._mode = mode
        self._notebook_of = notebook
        self._variables = variables
        self._open: list[_Run] = []
        self._number = 0
        self._seeds = cells.Seeds()
        self._packages = environment.Packages()
        self._places = notebooks.Places()
        self._pace = Pace(BURST, RATE)
        self._untold = 0

    @guarded
    def began(self, context: Any) -> None:
        """A run begins: which cells are to run."""
        wanted = [cell for cell in context.cells_to_run if cell != SCRATCH]
        if len(self._open) >= DEPTH:
            del self._open[0]
        self._open.append(_Run(id(context.graph), len(wanted)))

    @guarded
    def ended_cell(self, cell: Any, context: Any, result: Any) -> None:
        """A cell has ended, well or not."""
        raised = result.exception
        failed = raised is not None and failures.is_failure(raised)
        if self._open:
            self._open[-1].ran.append((cell.cell_id, cell.code, failed))
        if failed and cell.cell_id != SCRATCH:
            self._failed(cell, raised)

    @guarded
    def finished(self, context: Any) -> None:
        """A run has come to its end."""
        ended = time.perf_counter()
        while self._open:
            run = self._open.pop()
            if run.graph == id(context.graph):
                break
        else:
            return
        ran = [one for one in run.ran if one[0] != SCRATCH]
        if not run.wanted and not ran:
            return
        self._number += 1
        codes = [code for _, code, _ in ran]
        everything = [
            one.code for one in list(context.graph.cells.values()) if one.cell_id != SCRATCH
        ]
        payload = {
            "notebook": self._notebook(),
            "run": self._number,
            "cells": run.wanted,
            "failed": sum(failed for *_, failed in ran),
            "not_run": max(0, run.wanted - len({cell for cell, *_ in ran})),
            "interrupted": bool(context.interrupted),
            "duration_ms": round((ended - run.began) * 1000, 3),
            "mode": self._mode,
            "seeds": self._seeds.of(codes, self._variables()),
        }
        if len(ran) > CELLS:
            payload["ran_omitted"] = len(ran) - CELLS
        payload["ran"] = ran[-CELLS:]
        self._sender.put(Fact(RUN, payload, lambda: self._reproducible(everything)))

    def _reproducible(self, everything: list[str]) -> dict[str, Any]:
        """On the sender's thread: what it takes to have the run again."""
        return {
            "code_sha256": cells.sha256_of_all(everything),
            "environment": {**environment.python(), "packages": self._packages.imported()},
        }

    def _failed(self, cell: Any, raised: Any) -> None:
        if not self._pace.may():
            self._untold += 1
            return
        notebook, code = self._notebook(), cell.code
        payload = {
            "notebook": notebook,
            "cell_id": str(cell.cell_id),
            "run": self._number + 1,
            "mode": self._mode,
            **failures.of_exception(raised, str(cell.cell_id), notebook),
        }
        if self._untold:
            payload["untold"], self._untold = self._untold, 0
        self._sender.put(Fact(FAILED, payload, lambda: self._of_cell(payload, code)))

    def _of_cell(self, payload: dict[str, Any], code: str) -> dict[str, Any]:
        """On the sender's thread: which cell of the file it is."""
        name, first = self._places.of(payload["notebook"], code)
        facts: dict[str, Any] = {"cell_sha256": cells.sha256(code), "cell_name": name}
        if first is not None and "line" in payload:
            facts["file_line"] = first + payload["line"] - 1
        elif first is not None and "file_line" in payload:
            facts["line"] = payload["file_line"] - first + 1
        return facts

    def _notebook(self) -> str:
        name = self._notebook_of()
        return os.path.abspath(name) if name else ""  # noqa: PTH100
