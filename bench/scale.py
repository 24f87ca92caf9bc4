"""`make scale`: what one machine shows of the walls that many hosts run into.

Each wall is measured in growing amounts against real servers, within two minutes, and the first
amounts tell whether the rest would fit. docs/scale.md says what follows for how many hosts.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from nats.errors import Error as NatsError
from rich.console import Console
from rich.table import Table

import lab
import machine
from figure import FigureError
from opsmesh.router import logs
from opsmesh.router.errors import RouterError
from opsmesh.schemas import times
from run import parent

#: What is measured, in this order: name, module and function.
WALLS: Final = {
    "hub": "fleet:hub",
    "cluster": "fleet:cluster",
    "shards": "fleet:shards",
    "everyday": "fleet:everyday",
    "leaves": "fleet:leaves",
    "connections": "walls:connections",
    "tls": "walls:tls_connections",
    "consumers": "walls:consumers",
    "subjects": "walls:subjects",
    "keys": "walls:keys",
    "groups": "walls:groups",
}
#: Seconds for one wall; what was seen until then is told.
LIMIT: Final = 120.0
#: What can keep a wall from being measured to its end.
KNOWN: Final = (FigureError, RouterError, NatsError, OSError, TimeoutError, ExceptionGroup)

Wall = Callable[[Path], AsyncIterator[dict[str, Any]]]


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; 0, or 1 when a wall could not be measured to its end."""
    options = _options(arguments)
    progress = Console(stderr=True, highlight=False)
    where = parent(options.folder)
    logs.configure("scale", level="error")
    report: dict[str, Any] = {
        "started_utc": times.format_us(times.now_us()),
        "sync_interval": "always",
        "machine": machine.facts(where),
        "walls": {},
        "ended_early": {},
    }
    out = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    for name in options.only or WALLS:
        progress.print(f"measuring {name} …")
        rows: list[dict[str, Any]] = []
        began = time.monotonic()
        with lab.folders(where) as folder:
            try:
                asyncio.run(_measured(name, folder, rows, progress, first=options.first))
            except KNOWN as error:
                told = " ".join(str(error).replace(str(folder), "…").split())
                report["ended_early"][name] = told or type(error).__name__
        report["walls"][name] = {"seconds": round(time.monotonic() - began, 1), "rows": rows}
        _print(out, name, rows, report["ended_early"].get(name))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    facts = report["machine"]
    out.print(
        f"{facts['cores']} cores, {facts['memory_gib']} GiB, nats-server {facts['nats_server']} "
        f"(sync_interval: always), {facts['filesystem']}, load before {facts['load_1m']}"
    )
    return 1 if report["ended_early"] else 0


async def _measured(
    name: str, folder: Path, rows: list[dict[str, Any]], progress: Console, *, first: bool
) -> None:
    module, _, function = WALLS[name].partition(":")
    wall: Wall = getattr(importlib.import_module(module), function)
    try:
        async with asyncio.timeout(LIMIT):
            async for row in wall(folder):
                progress.print(f"  {row}")
                rows.append(row)
                if first:
                    return
    except TimeoutError as error:
        raise FigureError(f"ended after {LIMIT:g} s, before the largest amount") from error


def _print(out: Console, name: str, rows: Sequence[dict[str, Any]], early: str | None) -> None:
    table = Table(title=name, title_justify="left", box=None, pad_edge=False, header_style="bold")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        cells = (str(cell) if isinstance(cell := row.get(c), bool) else cell for c in columns)
        table.add_row(*("" if c is None else c if isinstance(c, str) else f"{c:,}" for c in cells))
    out.print(table)
    out.print(f"{early}\n" if early else "")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/scale.py", description="Measure what many hosts run into, on this machine."
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=list(WALLS),
        metavar="NAME",
        help=f"measure this alone (may be repeated): {', '.join(WALLS)}",
    )
    parser.add_argument("--first", action="store_true", help="the smallest amount of each alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go, too")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the stores lie while it runs"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
