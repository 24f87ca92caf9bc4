"""`opsmesh check lint`: the project's linter, and an event of what it finds."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opsmesh.cli import output

if TYPE_CHECKING:
    from opsmesh.producers.errors import ProducerError
    from opsmesh.producers.ruff.findings import Finding, Findings

#: The linters that there are.
TOOLS = ("ruff",)

Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="PATHS", help="Files and folders; else the current folder."),
]
Tool = Annotated[str, typer.Option(help="The linter: ruff.")]
Watch = Annotated[
    bool, typer.Option("--watch", "-w", help="Look again at each change, until Ctrl-C.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="As JSON; with --watch a line for each look that differs.")
]


def lint(
    paths: Paths = None, tool: Tool = "ruff", watch: Watch = False, as_json: AsJson = False
) -> None:
    """Lint with the project's own ruff; findings are an event, python.lint.failed.

    The ruff of the project's .venv, else the one in PATH, with its configuration; nothing is
    changed. The exit code is ruff's: 0 nothing found, 1 something found, 2 it could not look (bad
    configuration): that says nothing about the code, and is no event.

    With --watch an event tells what is new, and python.lint.passed that all is mended.

    Example: opsmesh check lint src tests
    """
    if tool not in TOOLS:
        output.fail(f"--tool: {tool!r} is none of {', '.join(TOOLS)}", code=output.USAGE)
    chosen = [Path(os.path.abspath(path)) for path in paths or [Path()]]  # noqa: PTH100 (no links)
    for path in chosen:
        if not path.exists():
            output.fail(f"{path} is not there", code=output.USAGE)
    if watch:
        _watch(chosen, as_json)
    raise typer.Exit(_once(chosen, as_json))


def _once(paths: list[Path], as_json: bool) -> int:
    from opsmesh.producers import called
    from opsmesh.producers.ruff import findings
    from opsmesh.router import session

    found = _look(paths)
    event = ""
    if found:
        folder = str(paths[0]) if len(paths) == 1 else os.path.commonpath(paths)
        with called.teller(findings.TOOL) as teller:
            event = teller.tell(
                findings.FAILED,
                found.payload(folder=folder),
                workspace=session.workspace(str(paths[0])),
                exit_code=1,
            )
    if as_json:
        output.as_json({**_facts(found), "event": event or None})
    else:
        _show(found)
    return output.FAILED if found else 0


def _watch(paths: list[Path], as_json: bool) -> None:
    """Until Ctrl-C, which is how it is meant to end."""
    from opsmesh.producers import called
    from opsmesh.producers.ruff import findings, program, telling, tree
    from opsmesh.producers.ruff.watching import Watching
    from opsmesh.schemas import times

    before: dict[Path, dict[str, int]] = {}
    blind: set[Path] = set()
    with called.teller(findings.TOOL) as teller:

        def look(path: Path) -> None:
            found, _ = program.look([path], folder=Path.cwd())
            keys = found.keys()
            if keys == before.get(path) and path not in blind:
                return
            blind.discard(path)
            news = telling.news(before.get(path), found, path)
            before[path] = keys
            event = ""
            if news:
                event = teller.tell(news.topic, news.payload, workspace=news.workspace)
            if as_json:
                facts = {"path": str(path), **_facts(found), "event": event or None}
                print(json.dumps(facts, ensure_ascii=False), flush=True)
            else:
                output.note(f"{times.clock(times.now_us())} {path}")
                _show(found)

        def failed(path: Path, error: ProducerError) -> None:
            if isinstance(error, tree.TooMany):
                output.fail(str(error), code=output.USAGE)
            blind.add(path)
            output.note(f"{path} was not linted: {error}")

        output.note(f"watching {', '.join(map(str, paths))}; Ctrl-C ends it")
        try:
            Watching(paths, look=look, failed=failed).run()
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _look(paths: list[Path]) -> Findings:
    """What is found; warnings go where ruff writes them. Ends as ruff does when it cannot look."""
    from opsmesh.producers.ruff import program

    try:
        found, said = program.look(paths, folder=Path.cwd(), nice=0)
    except program.NoRuff as error:
        output.fail(str(error), hint=error.hint, code=output.NOT_FOUND)
    except program.NotLinted as error:
        output.fail(str(error), hint=error.hint, code=error.status)
    if said:
        output.note(said)
    return found


def _show(found: Findings) -> None:
    for line in found.lines(Path.cwd()):
        print(output.shown(line))
    sys.stdout.flush()


def _facts(found: Findings) -> dict[str, Any]:
    return {"tool": "ruff", "count": len(found), "findings": [_row(one) for one in found.found]}


def _row(one: Finding) -> dict[str, Any]:
    return {
        "path": one.filename,
        "line": one.location.row,
        "column": one.location.column,
        "code": one.rule,
        "message": one.message,
        "fixable": one.fixable,
    }
