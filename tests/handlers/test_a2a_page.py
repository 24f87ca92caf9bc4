"""The pages on A2A, and the example: what they show can be loaded, and has no error in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tests.house.checkout import TOP

from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.router.settings import Settings
from opsmesh.schemas.registry import load_registry

PAGES = ("docs/actions/a2a.md", "docs/a2a-serve.md")
EXAMPLE = TOP / "docs" / "examples" / "two-meshes"
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"```yaml\n(.*?)```", (TOP / page).read_text("utf-8"), re.DOTALL)
]
PROFILES = [block for block in BLOCKS if "profiles:" in block] + [
    file.read_text("utf-8") for file in sorted(EXAMPLE.glob("*/profiles.yaml"))
]
SETTINGS = [block for block in BLOCKS if "profiles:" not in block] + [
    file.read_text("utf-8") for file in sorted(EXAMPLE.glob("*/config.yaml"))
]


def test_there_are_examples() -> None:
    """The pages and the example have what the others are about."""
    assert (len(PROFILES), len(SETTINGS)) == (4, 4)


@pytest.mark.parametrize("text", PROFILES)
def test_profiles(text: str, tmp_path: Path) -> None:
    """Every profile loads, and no error is found in it."""
    (tmp_path / "profiles.yaml").write_text(text)
    found = load_profiles(tmp_path)
    assert found.errors == []
    assert found.profiles
    findings = lint(found, load_registry(), folder=tmp_path, host="laptop", path="")
    assert [finding for finding in findings if finding.severity == "error"] == []


@pytest.mark.parametrize("text", SETTINGS)
def test_settings(text: str, home: Path) -> None:
    """Every piece of settings is taken."""
    found = yaml.safe_load(text.replace("4d…", "4d" * 32))
    assert Settings(**found).model_fields_set >= found.keys()
