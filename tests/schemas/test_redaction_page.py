"""docs/redaction.md keeps its word: a stranger checks an opening, and its settings are valid."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tests.house.checkout import TOP

from opsmesh.cli.config import mistakes
from opsmesh.router import redaction
from opsmesh.router.settings import Settings
from opsmesh.schemas import commitments
from opsmesh.schemas.commitments import MARK, Place

PAGE = (TOP / "docs" / "redaction.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.+?)```", PAGE, re.DOTALL)
    return str(found)


def test_check_of_a_stranger() -> None:
    """The page's few lines of Python tell the original from anything else."""
    names: dict[str, Any] = {}
    exec(block("python"), names)
    opens: Callable[[str, str, str], bool] = names["opens"]
    key, place = bytes(32), Place("event", "$.payload.a", 0)
    made = MARK.fullmatch(commitments.mark("rule", "the original é", place, key))
    assert made is not None
    salt = commitments.text(commitments.salt(key, place))
    assert opens(made["commitment"], salt, "the original é")
    assert not opens(made["commitment"], salt, "another")


def test_settings(home: Path) -> None:
    """The page's settings are valid as they stand, and take out what it says."""
    file = home / "config" / "opsmesh" / "config.yaml"
    file.parent.mkdir()
    file.write_text(block("yaml"))
    assert mistakes() == []
    assert yaml.safe_load(block("yaml")).keys() == {"redact"}
    payload: dict[str, Any] = {
        "badgeNumber": 7,
        "a": "TCK-1234 at db.corp.example.org",
        "password": "test-me",
    }
    clean, _ = redaction.load(Settings()).redact(payload)
    assert clean["badgeNumber"].startswith("[redacted:badge_number:")
    assert re.fullmatch(r"TCK-\[redacted:ticket:.+\] at \[redacted:internal_host:.+\]", clean["a"])
    assert clean["password"] == "test-me"


def test_marks_of_the_page() -> None:
    """The marks that the page shows are marks."""
    assert [found["rule"] for found in MARK.finditer(PAGE)] == ["github_token", "github_token"]
