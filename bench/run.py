"""`make bench`: measure this machine, beside plain nats-py in the same run.

Each figure has a broker, folders and processes of its own, all in one temporary folder, and a time
limit. A figure that cannot be measured is named with its reason, and the others go on.
docs/performance.md says what each means.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from nats.errors import Error as NatsError
from rich.console import Console

import lab
import machine
from figure import Figure, FigureError
from opsmesh.router import logs
from opsmesh.router.errors import RouterError
from opsmesh.schemas import times
from report import Report

#: What is measured, in this order: name, module and function.
FIGURES: Final = {
    "publish_many": "publishing:many",
    "publish_one": "publishing:one",
    "redact": "redacting:redact",
    "engine": "deciding:engine",
    "dispatch": "dispatching:deciding",
    "dispatch_runner": "dispatching:runner",
    "sink": "archiving:sink",
    "latency": "latency:latency",
    "growth_profiles": "growing:profiles",
    "growth_stored": "growing:stored",
    "emit": "emitting:emit",
    "agent_hook": "emitting:agent_hook",
    "shell_prompt": "prompting:prompts",
    "lsp": "proxying:proxied",
    "pytest": "testing:runs",
    "marimo": "exporting:exports",
    "neovim": "editing:neovim",
    "lint": "linting:watched",
    "replay": "archiving:replay",
    "backtest": "backtesting:backtest",
    "mcp": "calling:calls",
    "idle": "idling:idle",
}
#: Rounds of a figure, and the share of the full amounts: by default, and with --quick.
FULL: Final = (5, 1.0)
QUICK: Final = (3, 0.15)
#: Seconds that one figure may take, in full amounts; more with a larger scale.
LIMIT: Final = 180.0
#: Where the JSON goes unless it is told, beside this file.
RESULTS: Final = Path(__file__).with_name("results")
#: Exit code after Ctrl-C, as a shell has it.
INTERRUPTED: Final = 130
#: Seconds after which an interrupt is repeated: longer than an orderly end takes.
INSIST: Final = 1.0
#: What can keep a figure from being measured. Anything else is a mistake of this code.
KNOWN: Final = (FigureError, RouterError, NatsError, ImportError, OSError, TimeoutError)

Measure = Callable[[lab.Lab], Awaitable[list[Figure]]]


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; 0, or 1 when a figure could not be measured."""
    options = _options(arguments)
    # Progress goes to standard error; the table alone is this program's output.
    progress = Console(stderr=True, highlight=False)
    where = parent(options.folder)
    rounds, scale = QUICK if options.quick else FULL
    report = Report(
        machine=machine.facts(where),
        started_utc=times.format_us(times.now_us()),
        rounds=options.rounds or rounds,
        scale=options.scale or scale,
    )
    if report.machine["filesystem"] in machine.IN_MEMORY:
        progress.print("the stores lie in memory: a sync to disk costs nothing here (--folder DIR)")
    logs.configure("bench", level="error")
    began = time.monotonic()
    code = 0
    try:
        for name in options.only or FIGURES:
            progress.print(f"measuring {name} …")
            _measure(name, report, where)
    except KeyboardInterrupt:
        code = INTERRUPTED
        progress.print("interrupted; what was measured until now:")
    report.seconds = time.monotonic() - began
    if report.figures or report.failed:
        written = _write(report.as_dict(), options.json, report.started_utc)
        progress.print(f"every round's numbers: {written}")
    report.print(Console(width=None if sys.stdout.isatty() else 120))
    return code or (1 if report.failed else 0)


def _measure(name: str, report: Report, parent: Path) -> None:
    module, _, function = FIGURES[name].partition(":")
    interrupted = threading.Event()
    with lab.folders(parent) as folder:
        try:
            # Imported now: what one figure needs and cannot have must not stop the others.
            measure: Measure = getattr(importlib.import_module(module), function)
            where = lab.Lab(folder=folder, rounds=report.rounds, scale=report.scale)
            report.figures += asyncio.run(_limited(measure, where, interrupted))
        except (*KNOWN, ExceptionGroup) as error:
            # What an interrupt breaks on its way is no finding.
            if not interrupted.is_set():
                report.failed[name] = _reason(error, folder)
        except asyncio.CancelledError:
            interrupted.set()
    if interrupted.is_set():
        raise KeyboardInterrupt


async def _limited(measure: Measure, where: lab.Lab, interrupted: threading.Event) -> list[Figure]:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()

    def interrupt() -> None:
        interrupted.set()
        if task is not None:
            task.cancel()
            # Again, until it has ended: the wait_for of Python 3.11, which nats-py uses, swallows a
            # cancellation that meets the answer.
            loop.call_later(INSIST, interrupt)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        seconds = LIMIT * max(1.0, where.scale)
        async with asyncio.timeout(seconds) as limit:
            return await measure(where)
    except TimeoutError as error:
        if limit.expired():
            raise FigureError(f"not measured within {seconds:g} s") from error
        raise


def _reason(error: BaseException, folder: Path) -> str:
    """Why, in one line that names no folder of this machine."""
    while isinstance(error, ExceptionGroup):  # of a task group: the first one says enough
        error = error.exceptions[0]
    text = f"{error}" if isinstance(error, FigureError) else f"{type(error).__name__}: {error}"
    return " ".join(text.replace(str(folder), "…").split())


def parent(chosen: Path | None) -> Path:
    """Where the stores lie: the temporary folder, or /var/tmp when that one is in memory."""
    if chosen is not None:
        return chosen
    temporary, persistent = Path(tempfile.gettempdir()), Path("/var/tmp")
    if machine.filesystem(temporary) in machine.IN_MEMORY and persistent.is_dir():
        return persistent
    return temporary


def _write(report: dict[str, Any], path: Path | None, started_utc: str) -> Path:
    if path is None:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{started_utc[:19].replace(':', '')}Z.json"
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run.py", description="Measure opsmesh beside plain nats-py."
    )
    parser.add_argument("--quick", action="store_true", help="smaller amounts, fewer rounds")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(FIGURES),
        metavar="NAME",
        help=f"measure this alone (may be repeated): {', '.join(FIGURES)}",
    )
    parser.add_argument("--json", type=_new_file, metavar="FILE", help="where the numbers go")
    parser.add_argument("--rounds", type=_positive(int), metavar="N", help="rounds of each figure")
    parser.add_argument(
        "--scale", type=_positive(float), metavar="X", help="share of the full amounts (1)"
    )
    parser.add_argument(
        "--folder", type=_folder, metavar="DIR", help="where the stores lie while it runs"
    )
    return parser.parse_args(arguments)


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def positive(text: str) -> float:
        if not 0 < (number := kind(text)) < 1e6:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return number

    positive.__name__ = "number"
    return positive


def _new_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no file in a folder that exists")
    return path


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
