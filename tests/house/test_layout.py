"""The layout of ADR 0001, and the tools that are told of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mypy.config_parser import parse_config_file
from mypy.find_sources import create_source_list
from mypy.options import Options

from tests.house.checkout import ROOTS, TOP, files, pyproject


@pytest.mark.parametrize("root", ROOTS)
def test_namespace(root: str) -> None:
    """A root holds no `opsmesh/__init__.py`, which would hide every other root."""
    assert (TOP / root / "opsmesh" / root / "__init__.py").is_file()
    assert not (TOP / root / "opsmesh" / "__init__.py").exists()
    assert not (TOP / root / "__init__.py").exists()


@pytest.mark.parametrize("root", ROOTS)
def test_typed(root: str) -> None:
    """Each portion of the namespace tells type checkers that it is typed."""
    assert (TOP / root / "opsmesh" / root / "py.typed").is_file()


@pytest.mark.parametrize("root", ROOTS)
def test_one_name_a_root(root: str) -> None:
    """A root holds its own portion, and nothing else that could be imported."""
    alone = {"pytest_opsmesh.py"} if root == "producers" else set()
    names = {
        path.relative_to(TOP / root).parts for path in files() if path.is_relative_to(TOP / root)
    }
    assert {parts[0] for parts in names} <= {"opsmesh"} | alone
    assert {parts[1] for parts in names if len(parts) > 1} == {root}


def test_one_way_imports() -> None:
    """No module imports from a layer above its own."""
    script = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run(
        [script, "--no-logo", "--no-cache"], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_layers_are_the_roots() -> None:
    """The import contract names every root, so that none escapes it."""
    settings = pyproject()["tool"]["importlinter"]
    named = {f"opsmesh.{root}" for root in ROOTS}
    assert set(settings["root_packages"]) == named
    (contract,) = settings["contracts"]
    layers = {part.strip() for layer in contract["layers"] for part in layer.split("|")}
    assert (contract["type"], layers) == ("layers", named)


def test_every_file_is_type_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """mypy reads every Python file of the checkout, each under a module name of its own."""
    assert "packages" not in pyproject()["tool"]["mypy"]
    monkeypatch.chdir(TOP)
    options = Options()
    parse_config_file(options, lambda: None, "pyproject.toml", stderr=sys.stderr)
    sources = create_source_list(options.files or [], options)
    seen = {Path(source.path).resolve() for source in sources if source.path}
    assert [str(path.relative_to(TOP)) for path in files(".py", ".pyi") if path not in seen] == []
    assert len({source.module for source in sources}) == len(sources)
    assert {source.module for source in sources} >= {f"opsmesh.{root}" for root in ROOTS}
