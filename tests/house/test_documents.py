"""The documents, compared with what they describe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.schemas.envelope import decode
from tests.house.checkout import TOP, files, pyproject
from tests.house.test_front_door import TARGETS

#: What a changelog fragment is called.
FRAGMENT = re.compile(r"[a-z0-9-]+\.(added|changed|fixed|removed|security)\.md")


def test_real_targets() -> None:
    """Every `make …` in the documents is a target of the front door."""
    call = re.compile(r"(?:`|^\$ |^)make ([a-z][a-z-]*)", re.MULTILINE)
    named = {
        (str(path.relative_to(TOP)), target)
        for path in files(".md")
        for target in call.findall(path.read_text(encoding="utf-8"))
    }
    assert {pair for pair in named if pair[1] not in TARGETS} == set()


def test_links() -> None:
    """Every relative link in the documents leads to a file of the checkout."""
    broken = [
        f"{path.relative_to(TOP)}: {link}"
        for path in files(".md")
        for link in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", path.read_text(encoding="utf-8"))
        if not (path.parent / link).exists()
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("heading", "extra"),
    [
        ("At run time", None),
        ("SQL over the evidence", "query"),
        ("Metrics", "metrics"),
        ("The documentation as a site", "docs"),
        ("Traces", "otel"),
        ("For development", "dev"),
    ],
)
def test_dependencies(heading: str, extra: str | None) -> None:
    """Each dependency has its line in docs/dependencies.md, and no line is left of one gone."""
    project = pyproject()["project"]
    declared = project["optional-dependencies"][extra] if extra else project["dependencies"]
    page = (TOP / "docs" / "dependencies.md").read_text(encoding="utf-8")
    (section,) = (part for part in page.split("\n## ") if part.startswith(heading))
    explained = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert explained == [re.split(r"[^\w.-]", text)[0] for text in declared]


def test_fragments() -> None:
    """Each changelog fragment has a known kind, and holds list items alone."""
    for path in (TOP / "changelog.d").iterdir():
        if path.name != "README.md":
            assert FRAGMENT.fullmatch(path.name)
            assert all(line.startswith("- ") for line in path.read_text().splitlines())


def test_generated_pages_are_current() -> None:
    """docs/cli.md and docs/topics.md are what `make docs` writes today."""
    command = [sys.executable, str(TOP / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def blocks(language: str) -> list[str]:
    """The README's examples in this language."""
    text = (TOP / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.+?)```", text, re.DOTALL)


def test_readme_profiles_are_valid(tmp_path: Path) -> None:
    """The README's profile loads as it stands, and the error that it shows is the real one."""
    (example,) = blocks("yaml")
    file = tmp_path / "profiles.yaml"
    file.write_text(example)
    assert load_profiles(tmp_path).errors == []
    file.write_text(example.replace("debounce:", "debunce:"))
    (error,) = load_profiles(tmp_path).errors
    assert str(error) in (TOP / "README.md").read_text(encoding="utf-8")


def test_readme_envelope_is_an_event() -> None:
    """The README's bare envelope is accepted as it stands."""
    (example,) = blocks("json")
    assert decode(example.encode()).topic == "build.finished"
