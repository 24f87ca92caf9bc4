"""`opsmesh profile validate`: what is wrong with profile files, before they are in force."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.router import paths

if TYPE_CHECKING:
    from opsmesh.handlers.lint.finding import Finding
    from opsmesh.handlers.profiles.profile import ProfileSet

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


def validate(
    where: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER|FILE",
            help="A configuration folder, or one profile file; your own folder unless given.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 for warnings too, as in CI.")
    ] = False,
) -> None:
    """Check profiles: their form, fields and types, topics, loops, and programs.

    Exit code 0: nothing is wrong; 1: errors, or warnings with --strict; 3: there is no such file.

    Example: opsmesh profile validate ./profiles.yaml --strict
    """
    from opsmesh.handlers.lint.check import lint
    from opsmesh.handlers.profiles.profile import load_file, load_profiles
    from opsmesh.router.settings import Settings
    from opsmesh.schemas.registry import load_registry

    chosen = where or Path(paths.config_dir())
    if where is not None and not where.exists():
        output.fail(
            f"{where}: no such file or folder",
            hint="opsmesh profile validate without it checks your own profiles",
            code=output.NOT_FOUND,
        )
    folder = chosen.parent if chosen.is_file() else chosen
    registry = load_registry(_topics(folder))
    found = load_file(chosen) if chosen.is_file() else load_profiles(chosen)
    settings = Settings()
    findings = lint(
        found,
        registry,
        folder=folder,
        host=settings.host,
        strict=strict,
        strict_topics=settings.strict_topics,
        servers=settings.mcp_servers,
        agents=settings.a2a_agents,
    )
    problems = [*found.problems, *registry.problems]
    if as_json:
        output.as_json(_as_dict(found, findings, problems))
    else:
        _show(found, findings, problems)
    failing = {"error", "warning"} if strict else {"error"}
    if any(finding.severity in failing for finding in findings) or (strict and problems):
        raise typer.Exit(output.FAILED)


def _topics(folder: Path) -> Path:
    """The user's topics: those beside the profiles, or else those of the configuration folder."""
    beside = folder / "topics.yaml"
    return beside if beside.exists() else Path(paths.config_dir(), "topics.yaml")


def _as_dict(found: ProfileSet, findings: list[Finding], problems: list[str]) -> dict[str, Any]:
    rows = [
        {
            "severity": finding.severity,
            "file": finding.file,
            "line": finding.line,
            "column": finding.column,
            "message": finding.message,
            "hint": finding.hint,
        }
        for finding in findings
    ]
    return {
        "profiles": sorted(found.profiles),
        "errors": [row for row in rows if row["severity"] == "error"],
        "warnings": [row for row in rows if row["severity"] == "warning"],
        "notes": [row for row in rows if row["severity"] == "note"],
        "problems": problems,
    }


def _show(found: ProfileSet, findings: list[Finding], problems: list[str]) -> None:
    console = output.console()
    for finding in findings:
        place = f"{finding.file}:{finding.line}:{finding.column}"
        colour = _COLOURS[finding.severity]
        console.print(
            f"{escape(place)}: [{colour}]{finding.severity}:[/] {escape(finding.message)}"
        )
        if finding.hint:
            console.print(f"    [dim]{escape(finding.hint)}[/]")
    speaker = Console(stderr=True, soft_wrap=True, highlight=False)
    for problem in problems:
        speaker.print(f"warning: {escape(problem)}")
    speaker.print(_summary(found, findings))


def _summary(found: ProfileSet, findings: list[Finding]) -> str:
    counts = Counter(finding.severity for finding in findings)
    if not counts:
        names = ", ".join(found.profiles) or "none yet"
        return f"{_count(len(found.profiles), 'profile')}, nothing wrong: {names}"
    parts = [_count(counts[one], one) for one in ("error", "warning", "note") if counts[one]]
    return f"{', '.join(parts)}; {_count(len(found.profiles), 'profile')} can be loaded"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
