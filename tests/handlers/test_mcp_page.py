"""The page on the action `mcp`: what it shows can be loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.handlers.mcp_servers import configure
from tests.house.checkout import TOP

from opsmesh.handlers.actions.mcp import OnSpec
from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.router.settings import Settings
from opsmesh.schemas.registry import load_registry

PAGE = (TOP / "docs" / "actions" / "mcp.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("home")
def test_examples(tmp_path: Path) -> None:
    """Settings and profile of the page are valid, and go together."""
    servers, profiles = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    configure().write_text(servers)
    (tmp_path / "profiles.yaml").write_text(profiles)
    found = load_profiles(tmp_path)
    known = Settings().mcp_servers
    findings = lint(found, load_registry(), folder=tmp_path, host="x", path="", servers=known)
    assert [one.message for one in findings if one.severity == "error"] == []
    assert not any("mcp_servers" in one.message for one in findings)


def test_kinds() -> None:
    """The table of failures has every kind, with what becomes of it unless the profile says."""
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (retry|fail|dlq) \|$", PAGE, re.MULTILINE))
    assert rows == OnSpec().model_dump()
