"""`opsmesh secret`: keep, list, remove and check secrets. No command ever prints a value, and none
takes one as an argument."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from opsmesh.cli import output
from opsmesh.handlers.errors import HandlersError, SecretMissing
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.secrets import mentions, reference, store
from opsmesh.handlers.secrets.sources import MAX_SIZE, Files, Keyring
from opsmesh.router import paths
from opsmesh.router.settings import Settings, config_file
from opsmesh.schemas.exact import Known

app = typer.Typer(help="Secrets that profiles and settings refer to by name.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help='As in ${{ secret("NAME") }}.')]
Place = Annotated[
    Literal["file", "keyring"],
    typer.Option("--in", help="A private file (0600), or the desktop's keyring."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


# what stands behind the name is refused with its reason, not as a slip
@app.command("set", context_settings={"allow_extra_args": True})
def set_(context: typer.Context, name: Name, place: Place = "file") -> None:
    """Keep a secret: from standard input, or asked for where that is a terminal.

    The line break at its end does not count. One that was kept under the name is replaced.

    Example: pass show forge/token | opsmesh secret set forge_token
    """
    name = _name(name)
    if context.args:
        output.fail(
            "a secret is no argument: it would be in your shell's history, and every process "
            "could read it",
            hint=f"opsmesh secret set {name}, and type it, or pipe it in; change this one",
            code=output.USAGE,
        )
    given = _asked(name) if _on_a_terminal() else _read()
    try:
        Known().learn(given)
    except ValueError as error:
        output.fail(f"{error}: a shorter one could not be kept out of what programs print")
    if "\0" in given:
        output.fail("it holds a NUL byte, which no program can be given")
    _source(place).write(name, given)
    output.note(f"{name} is kept: {_source(place).where(name)}")
    order = Settings().secrets.order
    if place not in order:
        output.note(f"it is not looked for there: secrets.order is {', '.join(order)}")
    for before in store.load(Settings().secrets, Known()).sources:
        if before.kind == place:
            break
        if _has(before, name):
            output.note(f"{before.where(name)} is asked before, and has that name too")


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """The secrets that are kept, where, and who refers to them; a keyring does not list its own.

    Example: opsmesh secret ls
    """
    used = _mentioned()
    rows: list[dict[str, Any]] = []
    for source in store.load(Settings().secrets, Known()).sources:
        names = source.names()
        if source.kind == "keyring":
            names = [name for name in used if _has(source, name)]
        rows += [
            {
                "name": name,
                "from": source.kind,
                "where": source.where(name),
                "used_by": used.get(name, []),
            }
            for name in names
        ]
    rows.sort(key=lambda row: row["name"])
    if as_json:
        output.as_json(rows)
        return
    shown = [{**row, "used_by": ", ".join(row["used_by"])} for row in rows]
    output.table(shown, ["name", "from", "where", "used_by"], empty="no secret is kept")


@app.command("rm")
def rm(name: Name, place: Place = "file") -> None:
    """Forget a secret. What refers to it fails from then on.

    Example: opsmesh secret rm forge_token
    """
    name = _name(name)
    if not _source(place).remove(name):
        output.fail(
            f"there is no secret {name!r} in the {place}",
            hint="opsmesh secret ls",
            code=output.NOT_FOUND,
        )
    for who in _mentioned().get(name, []):
        output.note(f"{who} refers to it")


@app.command("check")
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Only these; all that are referred to unless given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Whether each secret that profiles and settings refer to can be had, without showing it.

    What systemd hands to the handlers (credentials) is seen by their process alone. Exit code 1:
    one cannot be had.

    Example: opsmesh secret check
    """
    used = _mentioned()
    kept = store.load(Settings().secrets, Known())
    rows: list[dict[str, Any]] = []
    for name in map(_name, names or used):
        try:
            kept.get(name)
            rows.append({"name": name, "ok": True, "problem": None, "used_by": used.get(name, [])})
        except SecretMissing as missing:
            problem = missing.reason or "there is none"
            rows.append(
                {"name": name, "ok": False, "problem": problem, "used_by": used.get(name, [])}
            )
    if as_json:
        output.as_json(rows)
    else:
        shown = [
            {**row, "ok": "yes" if row["ok"] else "no", "used_by": ", ".join(row["used_by"])}
            for row in rows
        ]
        output.table(
            shown, ["name", "ok", "problem", "used_by"], empty="nothing refers to a secret"
        )
    if not all(row["ok"] for row in rows):
        raise typer.Exit(output.FAILED)


def _name(name: str) -> str:
    try:
        return reference.checked(name)
    except ValueError as error:
        output.fail(str(error), code=output.USAGE)


def _source(place: str) -> Files | Keyring:
    return Files() if place == "file" else Keyring()


def _has(source: Any, name: str) -> bool:
    try:
        return source.find(name) is not None
    except HandlersError:
        return True


def _mentioned() -> dict[str, list[str]]:
    return mentions.mentions(load_profiles(Path(paths.config_dir())), config_file())


def _on_a_terminal() -> bool:
    return sys.stdin.isatty()


def _asked(name: str) -> str:
    text: str = typer.prompt(name, hide_input=True, confirmation_prompt=True, err=True)
    return text


def _read() -> str:
    data = sys.stdin.buffer.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        output.fail(f"it has more than {MAX_SIZE} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        output.fail("it is not UTF-8", hint="keep a key file's text, or its base64")
    return text[:-1] if text.endswith("\n") else text
