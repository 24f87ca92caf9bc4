"""The layout of ADR 0001, and the tools that are told of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mypy.config_parser import parse_config_file
from mypy.find_sources import create_source_list
from mypy.options import Options

from tests.house.checkout import ROOTS, SOURCES, TOP, files, pyproject


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
    names = {
        path.relative_to(TOP / root).parts for path in files() if path.is_relative_to(TOP / root)
    }
    assert {parts[0] for parts in names} == {"opsmesh"}
    assert {parts[1] for parts in names if len(parts) > 1} == {root}


def packages() -> set[str]:
    """What is imported of the packages for other people's environments."""
    return {path.parent.name for source in SOURCES for path in (TOP / source).glob("*/py.typed")}


def test_every_package_is_known() -> None:
    """Each folder of packages/ is a package with one name of its own, which the guards look at."""
    found = {
        f"packages/{path.parent.name}/src" for path in (TOP / "packages").glob("*/pyproject.toml")
    }
    assert found == set(SOURCES)
    assert len(packages()) == len(SOURCES)


def test_packages_have_the_version_of_opsmesh() -> None:
    """What is published together has one version, and opsmesh asks for exactly that one."""
    project = pyproject()["project"]
    for source in SOURCES:
        own = pyproject((TOP / source).parent)["project"]
        assert own["version"] == project["version"]
        assert own["license"] == project["license"]
        assert (TOP / source).with_name("LICENSE").read_bytes() == (TOP / "LICENSE").read_bytes()
        assert f"{own['name']}=={project['version']}" in project["dependencies"]


def test_packages_know_sessions_as_opsmesh_does() -> None:
    """The rule of sessions and workspaces is there byte for byte: copy it where it was changed."""
    ours = (TOP / "router/opsmesh/router/session.py").read_bytes()
    assert (TOP / "packages/pytest-opsmesh/src/pytest_opsmesh/mesh/session.py").read_bytes() == ours


def test_one_way_imports() -> None:
    """No module imports from a layer above its own."""
    script = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run(
        [script, "--no-logo", "--no-cache"], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_layers_are_the_roots() -> None:
    """The import contracts name every root and every package, so that none escapes them."""
    settings = pyproject()["tool"]["importlinter"]
    named = {f"opsmesh.{root}" for root in ROOTS}
    assert set(settings["root_packages"]) == named | packages()
    contract, apart, *_ = settings["contracts"]
    layers = {part.strip() for layer in contract["layers"] for part in layer.split("|")}
    assert (contract["type"], layers) == ("layers", named)
    assert apart["type"] == "forbidden"
    assert set(apart["source_modules"]) == packages()
    assert set(apart["forbidden_modules"]) == named


def test_every_file_is_type_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """mypy reads every Python file of the checkout, each under a module name of its own."""
    assert "packages" not in pyproject()["tool"]["mypy"]
    monkeypatch.chdir(TOP)
    options = Options()
    parse_config_file(options, lambda: None, "pyproject.toml", stderr=sys.stderr)
    sources = create_source_list(options.files or [], options)
    seen = {Path(source.path).resolve() for source in sources if source.path}
    unseen = [path for path in files(".py", ".pyi") if path.resolve() not in seen]
    assert [str(path.relative_to(TOP)) for path in unseen] == []
    assert len({source.module for source in sources}) == len(sources)
    assert {source.module for source in sources} >= {f"opsmesh.{root}" for root in ROOTS}


def test_images_hold_every_package() -> None:
    """What is installed in a container is opsmesh with all that it asks for from this checkout."""
    said = (TOP / "deploy" / "Dockerfile").read_text()
    for source in SOURCES:
        assert f" ./{Path(source).parent} " in said
