"""Every mistake of tests/handlers/broken is told at its place, with what to do about it.

A file begins with the findings that are expected of it, all of them in their order, each as
`# expect: LINE:COLUMN: SEVERITY: MESSAGE | HINT`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.lint.finding import Finding
from opsmesh.handlers.profiles.profile import load_file
from opsmesh.schemas.registry import Registry, load_registry

FILES = sorted(Path(__file__).with_name("broken").glob("*.yaml"))
EXPECT = "# expect: "


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The topics of opsmesh."""
    return load_registry()


@pytest.fixture
def programs(tmp_path: Path) -> str:
    """A PATH with df, opsmesh and nothing else."""
    for name in ("df", "opsmesh"):
        (tmp_path / name).touch(mode=0o755)
    return str(tmp_path)


def said(finding: Finding) -> str:
    hint = f" | {finding.hint}" if finding.hint else ""
    place = f"{finding.line}:{finding.column}"
    return f"{place}: {finding.severity}: {finding.message}{hint}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_broken(path: Path, registry: Registry, programs: str) -> None:
    """The file's findings are those that its first lines expect."""
    lines = path.read_text().splitlines()
    expected = [line.removeprefix(EXPECT) for line in lines if line.startswith(EXPECT)]
    found = lint(load_file(path), registry, folder=path.parent, host="laptop", path=programs)
    assert expected, "a broken file expects something"
    assert [said(finding) for finding in found] == expected


def test_there_are_many() -> None:
    """No file was lost on the way here."""
    assert len(FILES) >= 90
