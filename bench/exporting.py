"""What marimo's plug-in costs a notebook of 200 cells: the run by itself, and the whole export.

Beside it is the same export without the plug-in, which marimo is told not to load. What is measured
is processor time, of all threads: exports take seconds, and what else the machine does would be
most of the difference. The run is timed by the notebook's first and last cell, in the kernel's
process.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from figure import Figure, FigureError, Target
from lab import Lab, agent
from opsmesh.router import paths

#: Cells between the two that look at the clock; a smaller scale is for a first look only.
CELLS: Final = 200
#: Seconds that one export may take.
LIMIT: Final = 60.0
#: marimo's own way to leave a plug-in out (marimo/_entrypoints/registry.py).
WITHOUT: Final = {
    f"MARIMO_{group}_DENYLIST": "opsmesh"
    for group in ("KERNEL_LIFESPAN", "SERVER_ASGI_LIFESPAN", "SERVER_ASGI_MIDDLEWARE")
}


async def exports(lab: Lab) -> list[Figure]:
    """Milliseconds of processor time: of the run, and of `marimo export html`."""
    if find_spec("marimo") is None:
        raise FigureError("marimo is not installed: make .venv/.dev")
    cells = lab.amount(CELLS)
    book, took = _notebook(lab.folder, cells), lab.folder / "took"
    runs: dict[str, list[float]] = {"ours": [], "plain": []}
    wholes: dict[str, list[float]] = {"ours": [], "plain": []}
    async with agent():
        for n in range(lab.rounds + 1):
            for side, more in (("ours", {}), ("plain", WITHOUT)):
                whole = _timed(book, more)
                await asyncio.sleep(0)  # an interrupt is heard between exports
                if n:  # the first ones compile, and warm the caches of the disk
                    wholes[side].append(whole)
                    runs[side].append(float(took.read_text()) * 1e3)
    if not Path(paths.state_dir(), "marimo/kernel.json").is_file():
        raise FigureError("the plug-in was not loaded")
    return [
        Figure(
            name=name,
            what=what,
            unit="ms",
            ours=numbers["ours"],
            beside="the same without the plug-in",
            plain=numbers["plain"],
            target=Target(of="ratio", at="most", limit=limit),
            whole=cells >= CELLS,
            details={"cells": cells},
        )
        for name, what, numbers, limit in (
            ("marimo_run", f"marimo: a run of {cells} cells, processor time", runs, 1.05),
            ("marimo_export", f"marimo export html of {cells} cells, processor time", wholes, 1.1),
        )
    ]


def _notebook(folder: Path, cells: int) -> Path:
    """A chain of small cells; the last one writes the seconds since the first."""
    parts = ["import marimo\n\napp = marimo.App()\n"]
    parts.append(_cell("", "import time\nbegan = time.process_time()\nv0 = 0", "began, time, v0"))
    parts += [_cell(f"v{n}", f"v{n + 1} = v{n} + 1", f"v{n + 1}") for n in range(cells)]
    end = f"_took = time.process_time() - began + 0 * v{cells}\n"
    end += f"open({str(folder / 'took')!r}, 'w').write(str(_took))"
    parts.append(_cell(f"began, time, v{cells}", end, ""))
    path = folder / "book.py"
    path.write_text("\n\n".join(parts))
    return path


def _cell(takes: str, code: str, gives: str) -> str:
    body = "\n".join(f"    {line}" for line in code.splitlines())
    return f"@app.cell\ndef _({takes}):\n{body}\n    return {gives}\n"


def _timed(book: Path, more: Mapping[str, str]) -> float:
    command = [sys.executable, "-m", "marimo", "export", "html", str(book)]
    running = subprocess.Popen(
        [*command, "-o", str(book.with_suffix(".html")), "-f"],
        env={**os.environ, **more},
        cwd=book.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = threading.Timer(LIMIT, running.kill)
    limit.start()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        code = running.wait()
    finally:
        limit.cancel()
    if code:
        raise FigureError(f"`marimo export` ended with code {code}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3
