"""The pages on actions: their profiles load, their settings are valid, and their code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.handlers.test_profiles_page import errors
from tests.house.checkout import TOP

from opsmesh.handlers.actions import registry
from opsmesh.router import paths
from opsmesh.router.settings import Settings

PAGES = ("notify", "trigger", "wait", "emit")
TEXTS = {
    name: (TOP / "docs" / "actions" / f"{name}.md").read_text(encoding="utf-8")
    for name in (*PAGES, "writing")
}


def blocks(name: str, language: str) -> list[str]:
    """The page's blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXTS[name], re.DOTALL)


@pytest.mark.parametrize("name", PAGES)
def test_profiles_have_no_error(name: str, tmp_path: Path) -> None:
    """Every profile loads, and `validate` finds no error in it."""
    found = [block for block in blocks(name, "yaml") if "\nprofiles:" in block]
    assert found
    for block in found:
        assert errors(block, tmp_path) == []


def test_settings(home: Path) -> None:
    """The settings of the page are valid."""
    [block] = [block for block in blocks("notify", "yaml") if "\nprofiles:" not in block]
    file = Path(paths.config_dir(), "config.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(block)
    assert set(Settings().notify.targets) == {"phone", "chat", "mail"}


def test_an_action_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The action of the page is one, and its test passes."""
    scope: dict[str, Any] = {}
    for block in blocks("writing", "python"):
        exec(compile(block, "writing.md", "exec", dont_inherit=True), scope)
    ours = registry.discover()
    found = registry.Found({**ours.actions, "greet": scope["Greet"]}, {})
    monkeypatch.setattr(registry, "discover", lambda: found)
    scope["test_greets"](tmp_path)


@pytest.mark.parametrize("name", PAGES)
def test_keys_are_on_the_page(name: str) -> None:
    """Every key of the action has its line."""
    spec = registry.discover().actions[name].spec  # type: ignore[attr-defined]
    assert [key for key in spec.model_fields if f"| `{key}` |" not in TEXTS[name]] == []
