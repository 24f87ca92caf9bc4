"""`opsmesh redact`: what is taken out of events, why something is left, and openings of marks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from opsmesh.cli import output
from opsmesh.cli.events import not_before
from opsmesh.cli.redact.explain import explain
from opsmesh.handlers.bundles import folders
from opsmesh.handlers.evidence import reader
from opsmesh.router import redaction
from opsmesh.router.settings import Settings
from opsmesh.schemas import commitments, openings
from opsmesh.schemas.envelope import decode
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.openings import Opening

app = typer.Typer(help="What is taken out of events, and what a mark stands for.")

#: Characters of a text that was left which people are shown.
SHOWN = 40

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.callback(invoke_without_command=True)
def redact(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Option(
            "--explain", metavar="FILE", help="Text, an event, or JSON lines; - is standard input."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What is taken out of events, and what a mark stands for.

    With --explain: what would be taken out of a file, where and by which rule, and what looks like
    a secret and is left, with the reason. The file stays as it is. Exit code 0: nothing is found;
    1: something is.

    Example: opsmesh redact --explain build.log
    """
    if context.invoked_subcommand is not None:
        return
    if file is None:
        output.fail(
            "say what to look into: opsmesh redact --explain FILE",
            hint="or open a mark: opsmesh redact open EVENT",
            code=output.USAGE,
        )
    found, kept = explain(_read(file), redaction.redactor(Settings().redact))
    if as_json:
        output.as_json({"file": file, "found": found, "kept": kept})
    else:
        output.table(
            found, ["where", "path", "rule", "size"], empty=f"nothing is taken out of {file}"
        )
        if kept:
            output.note("left as it is:")
            rows = [{**row, "text": _short(row["text"])} for row in kept]
            output.table(rows, ["where", "path", "rule", "text", "why"], empty="")
    raise typer.Exit(output.FAILED if found else 0)


@app.command("open")
def open_(
    target: Annotated[
        str, typer.Argument(metavar="EVENT", help="An event's id, or the folder of a bundle.")
    ],
    file: Annotated[
        Path | None, typer.Option(help="The event's JSON, where the archive is not at hand.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the opening of each mark: with it and the original anybody can check the commitment.

    The salts are made from this host's key: for marks that another host made, run it there.

    Example: opsmesh redact open 019ab3c4-…
    """
    key = redaction.existing_key()
    if Path(target, folders.MANIFEST).is_file():
        found = _of_bundle(Path(target), key)
    else:
        data = file.read_bytes() if file is not None else _archived(target)
        found = list(openings.of(_json(data), key, context=target))
    if as_json:
        output.as_json([msgspec.to_builtins(one) for one in found])
        return
    rows = [msgspec.to_builtins(one) for one in found]
    output.table(
        rows, ["path", "rule", "commitment", "salt"], empty=f"{target} holds no mark to open"
    )


@app.command("check")
def check(
    commitment: Annotated[str, typer.Argument(help="What the mark holds after its rule.")],
    salt: Annotated[str, typer.Argument(help="What `opsmesh redact open` says.")],
) -> None:
    """Whether standard input is what was removed; its last line break does not count.

    Exit code 0: it is; 1: it is not.

    Example: opsmesh redact check COMMITMENT SALT <original.txt
    """
    try:
        raw = commitments.from_text(salt)
    except ValueError:
        output.fail(f"the salt {salt!r} is no base64url", code=output.USAGE)
    original = sys.stdin.buffer.read().decode(errors="surrogateescape")
    texts = {original, original.removesuffix("\n")}
    if not any(commitments.opens(commitment.partition("~")[0], raw, text) for text in texts):
        output.fail(
            "this is not what was removed there",
            hint="it takes all of it, as it stood: no quotes, nothing before or after",
        )
    print("this is what was removed there")


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        output.fail(f"{file} cannot be read: {error.strerror}", code=output.NOT_FOUND)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="surrogateescape")


def _of_bundle(folder: Path, key: bytes) -> list[Opening]:
    """Those in its files; the event's own are opened by the event's id."""
    manifest = folders.read_manifest(folder)
    context = str(manifest.get("redaction_context", ""))
    found: list[Opening] = []
    for entry in manifest.get("files", []):
        name = entry["name"]
        # marks that are the same in every bundle are of no place in this one
        if entry.get("redacted") and name != folders.EVENT and not entry.get("steady_marks"):
            text = (folder / name).read_bytes().decode(errors="surrogateescape")
            found += openings.of(text, key, context=context, path=name)
    return found


def _archived(event_id: str) -> bytes:
    folder = Settings().evidence_dir
    for item in reader.read(folder, since_us=not_before(event_id)):
        # An event stored without an id has one that every reader derives.
        if event_id.encode() not in item.data and b'"id"' in item.data:
            continue
        try:
            event = decode(item.data, stored=(item.stream, item.seq, item.time_us))
        except SchemaError:
            continue
        if event.id == event_id:
            return item.data
    return output.fail(
        f"event {event_id} is not in the archive",
        hint="it may be younger: opsmesh show ID --json >event.json, and --file event.json",
        code=output.NOT_FOUND,
    )
