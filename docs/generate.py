"""Write the pages that are made from the code: docs/cli.md and docs/topics.md.

`make docs` runs it; with `--check` nothing is written, and the exit code is 1 when a page is stale.
Only what this checkout ships is listed: plug-ins of the environment would make the pages differ
from machine to machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from opsmesh.cli.main import COMMANDS
from opsmesh.schemas.payloads import TOPICS
from opsmesh.schemas.topics import Topic

DOCS = Path(__file__).resolve().parent

#: Options that typer gives to every app, told once by `opsmesh --help`.
EVERYWHERE = {"--help", "--install-completion", "--show-completion"}

#: Stands at the top of each page.
NOTICE = "<!-- Made by `make docs` from the code: change it there. -->\n"


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them; the exit code."""
    # Help texts are wrapped to the width of the terminal, and coloured where it can show colours.
    os.environ.update({"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"})
    try:
        pages = {"cli.md": cli_page(), "topics.md": topics_page()}
    except typer.Exit as ending:  # a command cannot be loaded; it has said why
        return ending.exit_code
    stale = []
    for name, text in pages.items():
        page = DOCS / name
        if page.is_file() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(f"docs/{name}")
        if "--check" not in arguments:
            page.write_text(text, encoding="utf-8")
    if "--check" in arguments and stale:
        print(f"stale: {', '.join(stale)}; run: make docs", file=sys.stderr)
        return 1
    print(f"wrote {', '.join(stale)}" if stale else "docs are up to date")
    return 0


def cli_page() -> str:
    """Every command that help shows, with its arguments and options."""
    parts = ["# Command line\n", NOTICE]
    shown = {name: lazy for name, lazy in COMMANDS.items() if not lazy.hidden}
    for panel in dict.fromkeys(lazy.panel for lazy in shown.values()):
        parts.append(f"## {panel}\n")
        for name, lazy in shown.items():
            if lazy.panel != panel:
                continue
            if lazy.raw:
                parts += [f"### opsmesh {name}\n", f"{lazy.help}\n", own_help(name)]
            else:
                parts += command(f"opsmesh {name}", lazy.load(name), level=3)
    return "\n".join(parts)


def own_help(name: str) -> str:
    """What a command with its own argument parser says of itself."""
    argv = [sys.executable, "-m", "opsmesh.cli.entry", name, "--help"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True)
    return f"```text\n{said.stdout.strip()}\n```\n"


def command(path: str, found: Any, *, level: int) -> Iterator[str]:
    """One command's section, then those of its subcommands."""
    context = typer.Context(found, info_name=path)
    yield f"{'#' * level} {path}\n"
    if found.help:
        yield from map(paragraph, found.help.strip().split("\n\n"))
    yield f"```text\n{found.get_usage(context).removeprefix('Usage: ')}\n```\n"
    records = [
        record
        for parameter in found.get_params(context)
        if EVERYWHERE.isdisjoint(parameter.opts) and (record := parameter.get_help_record(context))
    ]
    if records:
        rows = [f"| `{cell(names)}` | {cell(meaning)} |" for names, meaning in records]
        yield "\n".join(["| | |", "|---|---|", *rows]) + "\n"
    for name, below in getattr(found, "commands", {}).items():
        if not below.hidden:
            yield from command(f"{path} {name}", below, level=level + 1)


def paragraph(text: str) -> str:
    """A paragraph of a help text; one whose lines stand as they are keeps them on the page."""
    lines = text.strip("\n")
    if lines.startswith("\b\n") or (lines.startswith("Example") and "\n" in lines):
        return "```text\n" + lines.removeprefix("\b\n") + "\n```\n"
    return lines + "\n"


def topics_page() -> str:
    """Every topic that opsmesh brings, with its payload and an example."""
    parts = ["# Topics\n", NOTICE]
    topics = sorted(TOPICS, key=lambda topic: topic.name)
    for area, members in groupby(topics, key=lambda topic: topic.name.partition(".")[0]):
        parts.append(f"## {area}\n")
        parts += [topic_section(topic) for topic in members]
    return "\n".join(parts)


def topic_section(topic: Topic) -> str:
    """One topic: what it says, who emits it, its fields, an example payload."""
    rows = [
        f"| `{field.name}` | {cell(field.type)} | {'yes' if field.required else ''} "
        f"| {cell(field.meaning)} |"
        for field in topic.fields()
    ]
    table = ["| field | type | required | meaning |", "|---|---|---|---|", *rows]
    facts = f"Emitted by {topic.owner}; severity {topic.severity}; version {topic.version}."
    example = json.dumps(topic.example, indent=2, ensure_ascii=False)
    return (
        f"### {topic.name}\n\n{topic.description}\n\n{facts}\n\n"
        + "\n".join(table)
        + f"\n\n```json\n{example}\n```\n"
    )


def cell(text: str) -> str:
    """Text that does not end its table cell."""
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
