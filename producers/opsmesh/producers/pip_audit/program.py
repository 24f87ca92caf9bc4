"""Asking pip-audit about a list of packages. It sees nothing of the project but that list, runs
none of its code and resolves nothing: the list is handed over as a lock file (PEP 751) of our own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from opsmesh.producers import ask, environments
from opsmesh.producers.errors import ProducerError
from opsmesh.producers.pip_audit import answer, project
from opsmesh.producers.pip_audit.answer import TOOL, Audited
from opsmesh.producers.pip_audit.locks import Pin
from opsmesh.producers.pip_audit.project import Dependencies

#: Seconds that an audit may take: it asks the network for each package.
LIMIT: Final = 600.0
#: What uv is told to fetch: a version that reads lock files of PEP 751.
WANTED: Final = "pip-audit>=2.9,<3"


class NoPipAudit(ProducerError):
    """No pip-audit is here."""

    hint = "pipx install pip-audit, or pip install it into the project's .venv; uv brings it too"

    def __init__(self) -> None:
        super().__init__("no pip-audit: not in PATH, not in the project's .venv; no uvx either")


class NoDependencies(ProducerError):
    """Nothing says what a project depends on."""

    def __init__(self, folder: Path) -> None:
        names = ", ".join((*project.LOCKS[:4], "requirements*.txt", project.PYPROJECT))
        super().__init__(f"{folder} has none of {names}, and no .venv")
        self.hint = "name the project's folder: opsmesh check deps FOLDER"


class NotAudited(ProducerError):
    """pip-audit gave no answer: nothing is known."""

    hint = "this does not mean that nothing is vulnerable: ask again when it can answer"


def find(folder: Path) -> list[str]:
    """How to call pip-audit: PATH's, the one beside us, the project's own, or by uvx. It is asked
    about a list, so any will do; the project's comes late, for a check should not be run by what it
    checks. NoPipAudit."""
    beside = Path(sys.executable).with_name(TOOL)
    own = environments.environment(folder)
    for found in (shutil.which(TOOL), beside, own / "bin" / TOOL if own else None):
        if found and os.access(found, os.X_OK):
            return [str(found)]
    if uvx := shutil.which("uvx"):
        return [uvx, "--quiet", "--from", WANTED, TOOL]
    raise NoPipAudit


def audit(
    folder: Path, wanted: Dependencies, options: Sequence[str] = (), *, nice: int = ask.NICE
) -> Audited:
    """What is known about what a project depends on; `options` are pip-audit's. NoDependencies,
    NoPipAudit, NotAudited."""
    if not wanted.sources and not wanted.unknown:
        raise NoDependencies(folder)
    if not wanted.pins:
        return Audited(vulnerabilities=[], unknown=wanted.unknown, judged=0)
    call = [*find(folder), "--locked", "--format=json", "--progress-spinner=off", *options]
    try:
        with tempfile.TemporaryDirectory(prefix="opsmesh-audit-") as listed:
            Path(listed, "pylock.toml").write_text(lock(wanted.pins))
            said = ask.ask([*call, listed], cwd=listed, limit=LIMIT, nice=nice)
    except (OSError, ask.NoAnswer) as error:
        raise NotAudited(f"{TOOL}: {error}") from error
    try:
        return answer.decode(said.output, wanted.pins, wanted.unknown)
    except ValueError as error:
        raise NotAudited(f"{TOOL}: {_last_words(said.said) or error}") from error


def lock(pins: Iterable[Pin]) -> str:
    """A lock file with these packages; JSON's strings are TOML's."""
    rows = (
        f"[[packages]]\nname = {json.dumps(pin.name)}\nversion = {json.dumps(pin.version)}\n"
        for pin in sorted(pins)
    )
    return 'lock-version = "1.0"\ncreated-by = "opsmesh"\n' + "".join(rows)


def _last_words(said: str) -> str:
    """What went wrong: the last line, and the one before where the last is only advice."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    advice = bool(lines) and "Tip: " in lines[-1]
    return " ".join(lines[-2:] if advice else lines[-1:])[:400]
