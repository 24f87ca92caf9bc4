"""Asking ruff. What is no answer about the code (no ruff, a configuration that it refuses) is an
error here, never a finding, and never "nothing found".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opsmesh.producers import ask, environments
from opsmesh.producers.errors import ProducerError
from opsmesh.producers.ruff import findings
from opsmesh.producers.ruff.findings import Findings

#: Seconds that a look may take.
LIMIT: Final = 120.0
#: ruff's exit codes: nothing was found, something was.
PASSED, FAILED = 0, 1
#: Lines of an error of ruff's that are shown.
SAID: Final = 12


class NoRuff(ProducerError):
    """No ruff is here."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"no ruff: not in a .venv of {folder}, not in PATH")
        self.hint = "pip install ruff, into the project's .venv or anywhere in PATH"


class NotLinted(ProducerError):
    """ruff did not get as far as the code; `status` is its exit code, 2 for bad configuration."""

    def __init__(self, reason: str, *, status: int = 2) -> None:
        super().__init__(reason)
        self.status = status
        self.hint = "this says nothing about the code: mend it, and ask again"


def find(folder: Path) -> Path:
    """The project's own ruff, or the one in PATH. NoRuff."""
    found = environments.program("ruff", folder)
    if found is None:
        raise NoRuff(folder)
    return found


def look(
    paths: Sequence[Path], *, folder: Path, cache: Path | None = None, nice: int = ask.NICE
) -> tuple[Findings, str]:
    """What ruff finds, asked in `folder`, and its warnings; with its configuration, and nothing
    is changed. NoRuff, NotLinted."""
    argv = [
        *(str(find(paths[0] if paths else folder)), "check", "--output-format=json", "--no-fix"),
        *((f"--cache-dir={cache}",) if cache else ()),
        *("--", *map(str, paths)),
    ]
    try:
        answer = ask.ask(argv, cwd=str(folder), limit=LIMIT, nice=nice)
        if answer.status not in (PASSED, FAILED):
            said = "\n".join(answer.said.strip().splitlines()[:SAID])
            raise NotLinted(said or f"ruff ended with {answer.status}", status=answer.status)
        return findings.decode(answer.output), answer.said.strip()
    except ask.NoAnswer as error:
        raise NotLinted(f"no answer: {error}") from error
    except ValueError as error:
        raise NotLinted(f"{os.path.basename(argv[0])}: {error}") from error  # noqa: PTH119
