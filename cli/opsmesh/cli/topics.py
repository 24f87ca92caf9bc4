"""`opsmesh topics`: what topics there are, what their payloads hold, and their JSON Schema."""

from __future__ import annotations

import json
import shlex
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from opsmesh.cli import output
from opsmesh.router import paths
from opsmesh.router.release import version
from opsmesh.schemas import asyncapi
from opsmesh.schemas import export as schema_export
from opsmesh.schemas.registry import Registry, Topic, load_registry
from opsmesh.schemas.topics import VERSION_KEY

app = typer.Typer(help="The topics this mesh knows.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]

_COLOURS = {"warn": "yellow", "error": "red", "critical": "bold red"}


@app.command("ls")
def list_topics(
    pattern: Annotated[
        str, typer.Argument(help="Part of a name, or a pattern like 'service.*'.")
    ] = "",
    as_json: _Json = False,
) -> None:
    """List topics with owner, default severity and meaning."""
    registry = _registry()
    rows = [_row(topic) for topic in registry if _matches(topic.name, pattern)]
    if as_json:
        output.as_json(rows)
        return
    output.table(
        rows,
        ("topic", "severity", "owner", "description"),
        empty=f"no topic matches {pattern!r}",
        style=lambda name, value: _COLOURS.get(value, "") if name == "severity" else "",
    )


@app.command("show")
def show_topic(
    topic: Annotated[str, typer.Argument(help="Name of the topic.")], as_json: _Json = False
) -> None:
    """Show a topic's fields, an example, and a command that emits one."""
    registry = _registry()
    found = registry.get(topic)
    if found is None:
        similar = registry.nearest(topic)
        hint = f"did you mean {similar}? " if similar else ""
        output.fail(
            f"no topic {topic!r} is registered",
            hint=hint + "`opsmesh topics ls` lists them all",
            code=output.NOT_FOUND,
        )
    fields = [field._asdict() for field in found.fields()]
    if as_json:
        output.as_json(
            {**_row(found), "fields": fields, "example": found.example, "emit": emit_line(found)}
        )
        return
    typer.echo(f"{found.name}  (version {found.version}, {found.severity}, owner {found.owner})")
    typer.echo(f"{found.description}\n")
    rows = [{**field, "required": "yes" if field["required"] else ""} for field in fields]
    output.table(rows, ("name", "type", "required", "meaning"), empty="(no fields)")
    typer.echo(f"\nexample payload:\n{json.dumps(found.example, indent=2, ensure_ascii=False)}")
    typer.echo(f"\ntry it:\n{emit_line(found)}")


@app.command("export")
def export_topics(
    format_: Annotated[
        Literal["jsonschema", "asyncapi"], typer.Option("--format", help="What to write.")
    ] = "jsonschema",
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="Folder to write to: TOPIC.json of each, or asyncapi.json.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Write what events look like: JSON Schema, or the mesh as an AsyncAPI 3.0 document.

    One document to standard output; with --output, files in a folder.

    Examples: opsmesh topics export --output schemas/
              opsmesh topics export --format asyncapi >asyncapi.json
    """
    topics = list(_registry())
    if format_ == "asyncapi":
        _asyncapi(topics, output_dir)
        return
    if output_dir is None:
        output.as_json(schema_export.json_schema_all(topics))
        return
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for topic in topics:
            text = json.dumps(schema_export.json_schema(topic), indent=2, ensure_ascii=False)
            (output_dir / f"{topic.name}.json").write_text(text + "\n")
    except OSError as error:
        output.fail(f"cannot write to {output_dir}: {error.strerror}")
    output.note(f"{len(topics)} schemas written to {output_dir}")


def _asyncapi(topics: list[Topic], folder: Path | None) -> None:
    document = asyncapi.document(topics, version=version())
    if folder is None:
        output.as_json(document)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (folder / "asyncapi.json").write_text(text + "\n")
    except OSError as error:
        output.fail(f"cannot write to {folder}: {error.strerror}")
    output.note(f"{len(topics)} topics written to {folder / 'asyncapi.json'}")


def emit_line(topic: Topic) -> str:
    """A command line that emits the topic's example, with the required fields alone."""
    required = [field.name for field in topic.fields() if field.required] or list(topic.example)
    if topic.version > 1:
        required.append(VERSION_KEY)
    words = ["opsmesh", "emit", topic.name]
    words += [f"{name}={_word(topic.example[name])}" for name in required]
    return shlex.join(words)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _registry() -> Registry:
    registry = load_registry(Path(paths.config_dir()) / "topics.yaml")
    for problem in registry.problems:
        output.note(f"warning: {problem}")
    return registry


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) if any(c in pattern for c in "*?[") else pattern in name


def _row(topic: Topic) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "severity": topic.severity,
        "owner": topic.owner,
        "version": topic.version,
        "description": topic.description,
    }
