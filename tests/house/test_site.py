"""The documentation as a site: every page has its place, and none needs the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from opsmesh.handlers.profiles.profile import load_profiles
from tests.house.checkout import TOP

DOCS = TOP / "docs"


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, in which mkdocs allows names of Python objects."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda *anything: None)


def pages(found: Any) -> Iterator[str]:
    """Every page of a table of contents."""
    for one in found if isinstance(found, list) else found.values():
        yield from [one] if isinstance(one, str) else pages(one)


def test_every_page_has_its_place() -> None:
    """The table of contents names each page of docs once, and no other; decisions come by
    themselves (`docs/site_hooks.py`)."""
    text = (TOP / "mkdocs.yml").read_text(encoding="utf-8")
    contents = yaml.load(text, Loader=_Loader)["nav"]
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    decisions = {page for page in there if page.startswith("adr/")}
    assert sorted(pages(contents)) == sorted([*(there - decisions), "adr/"])


def test_profile_of_the_first_page(tmp_path: Path) -> None:
    """The profile of the five minutes loads as it stands."""
    [block] = re.findall(
        r"```yaml\n(.+?)```", (DOCS / "index.md").read_text(encoding="utf-8"), re.DOTALL
    )
    (tmp_path / "profiles.yaml").write_text(block)
    found = load_profiles(tmp_path)
    assert (list(found.profiles), found.errors) == (["tell-me"], [])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not here: make .venv/.docs")
def test_builds_without_a_broken_link_and_needs_no_network(tmp_path: Path) -> None:
    """The site builds with no warning (links, anchors, forgotten pages), and no page loads anything
    from an outside address."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=TOP, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loads = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^\"]*\"")
    made = list(tmp_path.rglob("*.html"))
    assert len(made) > 100
    assert {found for path in made for found in loads.findall(path.read_text("utf-8"))} == set()
