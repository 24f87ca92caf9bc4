"""The rule of session and workspace, by the table that every port of it is held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from opsmesh.router import session

TABLE: Final[dict[str, Any]] = json.loads(
    Path(__file__).parents[1].joinpath("data/sessions.json").read_text()
)


def whats(cases: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(case, id=case["what"]) for case in cases]


def make(root: Path, made: list[str]) -> None:
    """Files, folders and links as the table writes them."""
    (root / "home").mkdir(exist_ok=True)
    for entry in made:
        name, arrow, target = entry.partition(" -> ")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            path.symlink_to(target)
        elif name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.touch()


@pytest.mark.parametrize("case", whats(TABLE["session"]))
def test_session(case: dict[str, Any]) -> None:
    """An environment has the session that the table says."""
    assert session.of_environment(case["env"]) == case["is"]


@pytest.mark.parametrize("case", whats(TABLE["workspace"]))
def test_workspace(case: dict[str, Any], tmp_path: Path) -> None:
    """A path has the workspace that the table says."""
    make(tmp_path, case["made"])
    env = {"HOME": str(tmp_path / "home"), **case["env"]}
    wanted = case["is"]
    expected = wanted[1:] if wanted.startswith("=") else str(tmp_path / wanted)
    assert session.workspace(str(tmp_path / case["path"]), env) == expected


@pytest.mark.parametrize("path", ["", "/no\0path"])
def test_a_path_that_is_none(path: str) -> None:
    """A path that names nothing is its own workspace: no tool fails for it."""
    assert session.workspace(path, {"HOME": "/"}) == path


def test_the_table_covers_the_variables() -> None:
    """Every variable that the rule reads stands in the table, so that every port reads it."""
    used = {
        name for part in ("session", "workspace") for case in TABLE[part] for name in case["env"]
    }
    assert set(session.VARIABLES) <= used
