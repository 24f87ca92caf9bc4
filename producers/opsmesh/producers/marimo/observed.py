"""What one notebook's messages say, as a page sees them. Pure: no clock, no network.

marimo sends a page each step of each cell: queued, planned (with its code), running, its output or
its error, idle; and at the end of a run `completed-run`, which says that it succeeded whatever
failed. Seen with marimo 0.25, and with 0.14, which plans nothing and names no run at its end and
where a cell is idle. What has another shape is left.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

FAILED: Final = "notebook.cell.failed"
COMPLETED: Final = "notebook.run.completed"
#: Mime types of a cell's error, and of the traceback that its console shows.
ERROR: Final = "application/vnd.marimo+error"
TRACEBACK: Final = "application/vnd.marimo+traceback"
#: Errors of a cell that nobody made run, and of one that was stopped.
NO_FAILURE: Final = ("interruption", "syntax", "cycle", "multiple-defs")
#: Characters of a message and of a traceback; cells that a run lists.
MESSAGE: Final = 2000
TAIL: Final = 8 * 1024
CELLS: Final = 300
#: Runs that have begun and not ended, at most: one is there, more are a page that lost messages.
RUNS: Final = 8
_TAG: Final = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Fact:
    """One event to be."""

    topic: str
    payload: dict[str, Any]


@dataclass
class _Run:
    began: float
    ended: float
    wanted: set[str] = field(default_factory=set)
    ran: dict[str, str] = field(default_factory=dict)
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    interrupted: bool = False


class Notebook:
    """One notebook that is watched; `path` as the server says it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: dict[str, str] = {}
        self._codes: dict[str, str] = {}
        self._runs: dict[str, _Run] = {}
        #: The kernel has died: the server said so.
        self.died = False

    def hear(self, message: Mapping[str, Any]) -> list[Fact]:
        """What the message completes; nothing for most."""
        operation = message.get("op")
        data = message.get("data")
        if not isinstance(data, Mapping):
            data = message
        match operation:
            case "kernel-ready":
                cells = [str(one) for one in _list(data, "cell_ids")]
                named = zip(cells, _list(data, "names"), strict=False)
                self._names = {cell: str(name) for cell, name in named if name != "_"}
                codes = zip(cells, _list(data, "codes"), strict=False)
                self._codes = {cell: str(code) for cell, code in codes}
            case "banner":
                self.died = self.died or data.get("title") == "Kernel stopped"
            case "execution" if data.get("phase") == "planned":
                run = self._run(data)
                run.ran[str(data.get("cell_id"))] = str(data.get("code") or "")
            case "interrupted":
                for run in self._runs.values():
                    run.interrupted = True
            case "cell-op":
                self._cell(data)
            case "completed-run":
                ended = data.get("run_id")
                names = list(self._runs) if ended is None else [str(ended)]
                return [fact for name in names for fact in self._completed(name)]
        return []

    def _run(self, data: Mapping[str, Any]) -> _Run:
        named, at = data.get("run_id"), data.get("timestamp")
        now = float(at) if isinstance(at, int | float) else 0.0
        name = str(named) if named is not None else next(reversed(self._runs), None)
        if name is None:
            return _Run(began=now, ended=now)  # of no run
        if name not in self._runs:
            while len(self._runs) >= RUNS:
                del self._runs[next(iter(self._runs))]
            self._runs[name] = _Run(began=now, ended=now)
        run = self._runs[name]
        run.began = run.began or now
        run.ended = max(run.ended, now)
        return run

    def _cell(self, data: Mapping[str, Any]) -> None:
        run, cell = self._run(data), str(data.get("cell_id"))
        if data.get("status") == "queued":
            run.wanted.add(cell)
        elif data.get("status") == "running":
            run.ran.setdefault(cell, self._codes.get(cell, ""))
        output = data.get("output")
        if isinstance(output, Mapping) and output.get("mimetype") == ERROR:
            self._error(run, cell, _list(output, "data"))
        console = data.get("console")
        for one in console if isinstance(console, list) else [console]:
            if isinstance(one, Mapping) and one.get("mimetype") == TRACEBACK:
                self._traceback(run, cell, str(one.get("data")))

    def _error(self, run: _Run, cell: str, errors: list[Any]) -> None:
        for error in errors:
            if not isinstance(error, Mapping):
                continue
            kind = error.get("type")
            run.interrupted = run.interrupted or kind == "interruption"
            if str(kind).startswith("ancestor") or error.get("raising_cell") not in (None, cell):
                run.ran.pop(cell, None)  # planned, and not run
            elif kind not in NO_FAILURE:
                self._failed(run, cell, error)

    def _failed(self, run: _Run, cell: str, error: Mapping[str, Any]) -> None:
        kind = error.get("exception_type") or error.get("error_type") or error.get("type")
        run.failures[cell] = {"error": str(kind), "message": str(error.get("msg", ""))[:MESSAGE]}

    def _traceback(self, run: _Run, cell: str, markup: str) -> None:
        if cell not in run.failures:
            return
        text = html.unescape(_TAG.sub("", markup[-16 * TAIL :]))
        lines = re.findall(rf'__marimo__cell_{re.escape(cell)}_[^"\n]*", line (\d+)', text)
        if lines:
            run.failures[cell]["line"] = int(lines[-1])
        run.failures[cell]["traceback_tail"] = text[-TAIL:]

    def _completed(self, name: str) -> list[Fact]:
        run = self._runs.pop(name, None)
        if run is None or not (run.wanted or run.ran):
            return []
        common = {"notebook": self._path, "mode": "edit"}
        facts = []
        for cell, failure in run.failures.items():
            payload = {**common, "cell_id": cell, **failure}
            if cell in self._names:
                payload["cell_name"] = self._names[cell]
            if cell in run.ran:
                payload["cell_sha256"] = _sha256(run.ran[cell])
            facts.append(Fact(FAILED, payload))
        ran = [
            {"cell": cell, "sha256": _sha256(code)}
            | ({"failed": True} if cell in run.failures else {})
            for cell, code in run.ran.items()
        ]
        payload = {
            **common,
            "cells": len(run.wanted),
            "failed": len(run.failures),
            "not_run": len(run.wanted - set(run.ran)),
            "interrupted": run.interrupted,
            "duration_ms": round((run.ended - run.began) * 1000, 3),
            "ran": ran[-CELLS:],
        }
        if len(ran) > CELLS:
            payload["ran_omitted"] = len(ran) - CELLS
        return [*facts, Fact(COMPLETED, payload)]


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def _sha256(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
