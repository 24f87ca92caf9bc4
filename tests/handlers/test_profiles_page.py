"""The page on profiles: what it shows can be loaded, and `validate` finds no error in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.house.checkout import TOP

from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.lint.finding import Finding
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.schemas.registry import load_registry

BLOCKS = {
    name: re.findall(r"```yaml\n(.*?)```", (TOP / name).read_text(encoding="utf-8"), re.DOTALL)
    for name in ("docs/profiles.md", "README.md")
}


@pytest.mark.parametrize("block", [block for blocks in BLOCKS.values() for block in blocks])
def test_example_has_no_error(block: str, tmp_path: Path) -> None:
    """Every example loads, and no error is found in it."""
    assert errors(block, tmp_path) == []


def errors(block: str, folder: Path) -> list[Finding]:
    """What is wrong with an example."""
    (folder / "profiles.yaml").write_text(block)
    found = load_profiles(folder)
    findings = lint(found, load_registry(), folder=folder, host="laptop", path="")
    assert found.profiles, findings
    return [finding for finding in findings if finding.severity == "error"]


def test_there_are_examples() -> None:
    """The pages have the examples that the others are about."""
    assert [len(blocks) for blocks in BLOCKS.values()] == [8, 1]
