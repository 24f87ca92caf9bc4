"""`opsmesh check deps`: what a project depends on, as pip-audit knows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from opsmesh.cli import output

if TYPE_CHECKING:
    from opsmesh.producers.pip_audit.answer import Audited
    from opsmesh.producers.pip_audit.project import Dependencies

#: Exit code: nothing is known to be vulnerable, but of something nobody knows.
UNKNOWN: Final = 4

Folder = Annotated[Path, typer.Argument(metavar="PATH", help="The project's folder.")]
Options = Annotated[
    list[str] | None,
    typer.Argument(metavar="-- OPTIONS", help="Arguments for pip-audit."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


def deps(path: Folder = Path(), options: Options = None, as_json: AsJson = False) -> None:
    """Audit what a Python project depends on; what is vulnerable is an event.

    Its lock files say what that is (uv.lock, poetry.lock, pdm.lock, pylock.toml), else its
    requirements, and for what names no version the .venv. pip-audit asks PyPI about each name and
    version; nothing of the project is run. What was told once, here or by the producer pip-audit,
    is not told again.

    Exit codes: 0 all are known to be well, 1 something is vulnerable, 4 something could not be
    judged (which is not well), 3 there is no pip-audit, or nothing to audit.

    Example: opsmesh check deps ~/work/app

    Example: opsmesh check deps . -- -s osv --ignore-vuln PYSEC-2026-12
    """
    from opsmesh.producers.pip_audit import program, project

    folder = Path(os.path.abspath(path))  # noqa: PTH100 (no links)
    if not folder.is_dir():
        output.fail(f"{folder} is no folder", code=output.USAGE)
    asked, wanted = project.state(folder), project.read(folder)
    try:
        if wanted.pins:
            output.note(f"asking pip-audit about {len(wanted.pins)} packages …")
        audited = program.audit(folder, wanted, options or (), nice=0)
    except (program.NoPipAudit, program.NoDependencies) as error:
        output.fail(str(error), hint=error.hint, code=output.NOT_FOUND)
    except program.NotAudited as error:
        output.fail(f"not audited: {error}", hint=error.hint, code=UNKNOWN)
    new = _tell(folder, audited, asked)
    if as_json:
        output.as_json(_facts(folder, wanted, audited, new))
    else:
        _show(wanted, audited, new)
    raise typer.Exit(_code(audited))


def _tell(folder: Path, audited: Audited, asked: str) -> int:
    from opsmesh.producers import called
    from opsmesh.producers.pip_audit import answer, telling

    try:
        with called.teller(answer.TOOL) as teller:
            return telling.tell(folder, audited, teller.emit, asked=asked)
    except called.LOST as error:
        called.not_kept(error)
        return 0


def _code(audited: Audited) -> int:
    if audited.vulnerabilities:
        return output.FAILED
    return UNKNOWN if audited.unknown else 0


def _show(wanted: Dependencies, audited: Audited, new: int) -> None:
    if audited.vulnerabilities:
        rows = [
            {
                "package": one.package,
                "version": one.version,
                "vulnerability": one.vuln_id,
                "mended_in": ", ".join(one.fix_versions) or "nothing yet",
                "from": one.requirement,
            }
            for one in audited.vulnerabilities
        ]
        output.table(rows, ("package", "version", "vulnerability", "mended_in", "from"), empty="")
    for name, why in sorted(audited.unknown.items()):
        output.note(f"unknown: {name}: {why}")
    output.note(_verdict(audited, new))
    output.note(f"read: {', '.join(wanted.sources) or 'nothing'}")


def _verdict(audited: Audited, new: int) -> str:
    vulnerable = {(one.package, one.version) for one in audited.vulnerabilities}
    parts = [f"{len(vulnerable)} of {audited.judged} packages vulnerable"]
    if not audited.judged:
        parts = ["nothing could be judged" if audited.unknown else "no dependencies"]
    if audited.unknown:
        parts.append(f"{len(audited.unknown)} unknown, which does not mean clean")
    if audited.vulnerabilities:
        parts.append(f"{new} told as new" if new else "all told before")
    return "; ".join(parts)


def _facts(folder: Path, wanted: Dependencies, audited: Audited, new: int) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "verdict": ("clean", "vulnerable")[_code(audited)] if _code(audited) < 2 else "unknown",
        "sources": wanted.sources,
        "judged": audited.judged,
        "vulnerabilities": [one.payload(str(folder)) for one in audited.vulnerabilities],
        "unknown": audited.unknown,
        "new": new,
    }
