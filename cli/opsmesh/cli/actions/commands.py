"""`opsmesh action`: list what steps can do, show one, and write a package for one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.actions import describe, template
from opsmesh.cli.actions.describe import About, Key
from opsmesh.schemas import durations
from opsmesh.schemas.nearest import did_you_mean

app = typer.Typer(no_args_is_help=True, help="What a step of a profile can do.")

_Json = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]


@app.command("ls")
def ls(as_json: _Json = False) -> None:
    """List the actions with the package that brings each; exit 1 when a plug-in is broken.

    Example: opsmesh action ls
    """
    known, problems = describe.every()
    if as_json:
        found = [_brief(about) for about in known.values()]
        output.as_json({"actions": found, "problems": problems})
    else:
        output.table(
            [_brief(about) for about in known.values()],
            ("action", "summary", "package"),
            empty="no actions are installed",
        )
        for problem in problems.values():
            output.note(f"broken: {problem}")
    if problems:
        raise typer.Exit(output.FAILED)


@app.command("show")
def show(
    kind: Annotated[str, typer.Argument(help="An action's key, as `opsmesh action ls` has it.")],
    as_json: _Json = False,
) -> None:
    """Show an action's keys with their types and defaults, and an example.

    Example: opsmesh action show notify
    """
    known, problems = describe.every()
    about = known.get(kind)
    if about is None:
        if kind in problems:
            output.fail(problems[kind], hint="the package that brings it has to be mended")
        output.fail(
            f"there is no action {kind!r}{did_you_mean(kind, known)}",
            hint="those that there are: opsmesh action ls",
            code=output.NOT_FOUND,
        )
    if as_json:
        output.as_json(about.as_json())
        return
    _print(about)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The key that steps will write, like `count_lines`.")],
    folder: Annotated[
        Path | None,
        typer.Argument(help="Where; by default a folder with the package's name.", file_okay=False),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Write a package for an action of your own: module, tests, metadata; its tests pass.

    Example: opsmesh action new count_lines
    """
    if not template.valid(name):
        output.fail(
            f"{name!r} is no key for an action",
            hint="2 to 40 of [a-z0-9_] after a letter, and no word of Python",
            code=output.USAGE,
        )
    known, problems = describe.every()
    if name in (*known, *problems, *describe.step_keys()):
        output.fail(
            f"{name!r} means something in a step already", hint="take another", code=output.USAGE
        )
    where = folder or Path(template.package(name))
    if where.exists() and any(where.iterdir()):
        output.fail(f"{where} is not empty", hint="name another folder as the second argument")
    try:
        written = template.write(name, where)
    except OSError as error:
        output.fail(f"cannot write to {where}: {error.strerror}")
    if as_json:
        output.as_json({"action": name, "folder": str(where), "files": [p.name for p in written]})
        return
    for path in written:
        print(path)
    output.note(f"next: pip install -e '{where}[test]' && pytest {where}; docs/actions/writing.md")


def _default(key: Key) -> str:
    if key.default is None:
        return ""
    if isinstance(key.default, float) and key.type.startswith(describe.LIKE):
        return durations.text(key.default)
    return json.dumps(key.default, ensure_ascii=False)


def _brief(about: About) -> dict[str, Any]:
    return {
        "action": about.key,
        "summary": about.summary,
        "package": f"{about.package} {about.version}".strip(),
    }


def _print(about: About) -> None:
    console = output.console()
    console.print(f"[bold]{escape(about.key)}[/]: {escape(about.summary)}")
    console.print(
        f"  [dim]from {escape(about.package)} {escape(about.version)} ({about.target})[/]"
    )
    if about.example:
        console.print(f"\n{escape(about.example)}\n", style="cyan")
    rows = [
        {
            "key": key.name or "(a list)",
            "type": key.type,
            "default": "required" if key.required else _default(key),
            "meaning": key.description,
        }
        for key in about.keys
    ]
    output.table(rows, ("key", "type", "default", "meaning"), empty="it does not say its keys")
    console.print(f"\n[dim]when its outcome is unknown: {about.on_unknown}[/]")
