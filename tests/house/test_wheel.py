"""Our wheels in a strange environment: what they bring there, and what they leave alone.

The environment has a Python, pytest, and the wheels installed without what else opsmesh depends on,
as a user's project has that never meant to run a mesh.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import pytest

from opsmesh.producers.vscode import vsix
from tests.house.checkout import ROOTS, SOURCES, TOP, files
from tests.producers.agent import until

# One build of each and one environment serve all tests here, so one worker runs them.
pytestmark = pytest.mark.xdist_group("wheel")

#: pytest and what it is made of; linked into the strange environment, so that nothing is fetched.
PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")

#: Names that users give their own packages, and that our top folders have too.
THEIRS = ("handlers", "schemas", "router", "producers", "cli")


class Strange:
    """A virtual environment that has never heard of this checkout."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True, with_pip=False)
        self.python = folder / "bin" / "python"
        self.site = Path(
            sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
        )
        for name in PYTEST:
            distribution = metadata.distribution(name)
            for top in {file.parts[0] for file in distribution.files or ()} - {".."}:
                if top != "__pycache__" and not (self.site / top).exists():
                    (self.site / top).symlink_to(str(distribution.locate_file(top)))

    def install(self, *wheels: Path) -> set[str]:
        """Install wheels without their dependencies; the names new in site-packages."""
        before = {path.name for path in self.site.iterdir()}
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet"]
        quiet = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
        subprocess.run([*pip, *quiet, *map(str, wheels)], check=True)
        return {path.name for path in self.site.iterdir()} - before

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run this environment's Python in a folder; the mesh's folders lie there too."""
        keep = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(cwd)}
        return subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env=keep
            | {"XDG_STATE_HOME": str(cwd / ".state"), "XDG_RUNTIME_DIR": str(cwd / ".run")},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheels of this checkout, built by the backend itself, so that nothing is fetched."""
    folder = tmp_path_factory.mktemp("dist")
    for package in (TOP, *((TOP / source).parent for source in SOURCES)):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
            cwd=package,
            check=True,
            capture_output=True,
        )
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Strange:
    """An environment with pytest alone."""
    return Strange(tmp_path_factory.mktemp("strange") / "venv")


@pytest.fixture(scope="module")
def brought(strange: Strange, wheels: list[Path]) -> set[str]:
    """The names in site-packages that came with the wheels, now installed there."""
    return strange.install(*wheels)


def test_top_level_names(strange: Strange, brought: set[str]) -> None:
    """Each wheel brings one name and its own record, and opsmesh's one command."""
    records = {name for name in brought if name.endswith(".dist-info")}
    names = {name.split("-")[0] for name in records}
    assert names == {"opsmesh", "marimo_opsmesh", "pytest_opsmesh"}
    assert brought == names | records
    paths = [
        Path(row.rsplit(",", 2)[0])
        for record in records
        for row in (strange.site / record / "RECORD").read_text(encoding="utf-8").splitlines()
    ]
    outside = {path.name for path in paths if path.parts[0] == ".."}
    assert {path.parts[0] for path in paths} - {".."} == brought
    assert outside == {"opsmesh"}
    assert {path.parts[1] for path in paths if path.parts[0] == "opsmesh"} == set(ROOTS)


def test_every_file_is_brought(strange: Strange, brought: set[str]) -> None:
    """Every file of the roots is in a wheel, also the tools' own halves that are not Python."""
    assert brought
    shipped = [
        path.relative_to(TOP / root)
        for root in (*ROOTS, *SOURCES)
        for path in files()
        if path.is_relative_to(TOP / root)
    ]
    assert [str(path) for path in shipped if not (strange.site / path).is_file()] == []


def test_the_extension_for_vs_code_is_brought(
    strange: Strange, brought: set[str], tmp_path: Path
) -> None:
    """The extension is packed from the wheel as from the checkout, without anything else."""
    assert brought
    ran = strange.run("-m", "opsmesh.producers.vscode.vsix", str(tmp_path), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.strip()).read_bytes() == vsix.pack()


def project(folder: Path) -> Path:
    """A user's project with packages of its own under the names of our top folders."""
    for name in THEIRS:
        package = folder / name
        package.mkdir()
        (package / "__init__.py").write_text(f"OWNER = 'the user: {name}'\n")
        (package / "checks.py").write_text("def same(a, b):\n    assert a == b\n")
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\nfilterwarnings = error\n")
    return folder


def test_names_stay_the_users(strange: Strange, brought: set[str], tmp_path: Path) -> None:
    """A user's `handlers`, `schemas`, `router`, `producers` and `cli` are theirs, beside ours."""
    assert brought
    code = f"""
import importlib
from opsmesh.router import paths
from opsmesh.schemas import ids
for name in {THEIRS!r}:
    assert importlib.import_module(name).OWNER == "the user: " + name
print(ids.uuid7(), paths.state_dir())
"""
    ran = strange.run("-c", code, cwd=project(tmp_path))
    assert ran.returncode == 0, ran.stderr


def test_assertion_rewriting_stays_the_users(
    strange: Strange, brought: set[str], tmp_path: Path
) -> None:
    """pytest explains assertions in the user's modules where the user asks for it, and only there.

    A plugin inside a namespace package would make pytest claim all of `handlers`, `schemas`, …:
    rewritten unasked, with a warning for each that was imported before.
    """
    assert brought
    folder = project(tmp_path)
    (folder / "conftest.py").write_text(
        "import pytest\n"
        "import router\n"
        "pytest.register_assert_rewrite('schemas.checks', 'cli.checks')\n"
    )
    (folder / "test_theirs.py").write_text(
        "import importlib\n"
        "import pytest\n"
        f"@pytest.mark.parametrize('name', {THEIRS!r})\n"
        "def test_claimed(request, name):\n"
        "    assert request.config.pluginmanager.has_plugin('pytest_opsmesh')\n"
        "    checks = importlib.import_module(name + '.checks')\n"
        "    with pytest.raises(AssertionError) as failure:\n"
        "        checks.same(1, 2)\n"
        "    asked = name in ('schemas', 'cli')\n"
        "    assert ('assert 1 == 2' in str(failure.value)) is asked\n"
        "def test_own(request):\n"
        "    with pytest.raises(AssertionError) as failure:\n"
        "        assert [1] == [2]\n"
        "    assert 'assert [1] == [2]' in str(failure.value)\n"
    )
    ran = strange.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(THEIRS) + 1} passed" in ran.stdout


def test_plugin_needs_the_standard_library_alone(
    strange: Strange, brought: set[str], tmp_path: Path
) -> None:
    """The pytest plugin brings in no module but the standard library's and pytest's own."""
    assert brought
    code = f"""
import sys
import pytest
before = set(sys.modules)
import pytest_opsmesh
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(new - sys.stdlib_module_names - {{"pytest_opsmesh", "_pytest"}} - set({PYTEST!r})))
"""
    ran = strange.run("-c", code, cwd=tmp_path)
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr


def test_emit_costs_no_site(strange: Strange, brought: set[str], tmp_path: Path) -> None:
    """The command finds its Python through a link too, and what hooks call starts it without
    `site`."""
    assert brought
    link = tmp_path / "bin" / "opsmesh"
    link.parent.mkdir()
    link.symlink_to(strange.python.with_name("opsmesh"))
    marker = tmp_path / "site ran"
    # not a sitecustomize: Debian's Python has one of its own, which comes before
    custom = strange.site / "marker.pth"
    custom.write_text(f"import os; open({str(marker)!r}, 'w').close()\n")
    folders = {
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": f"{tmp_path}/state",
        "PATH": "/usr/bin:/bin",
    }
    try:
        for command, arguments, given in (
            (link, ["emit", "a.b", "k=two words", "-q"], ""),
            (strange.python.with_name("opsmesh"), ["emit", "a.b", "k=two words", "-q"], ""),
            (link, ["agent-hook"], '{"hook_event_name":"Stop","session_id":"s"}'),
            (link, ["lsp", "--", "cat"], _save(tmp_path)),
        ):
            ran = subprocess.run(
                [command, *arguments],
                env=folders,
                input=given,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (ran.returncode, ran.stderr) == (0, "")
        assert not marker.exists()
        strange.run("-c", "pass", cwd=tmp_path)
        assert marker.exists()  # or the check above could not have failed
    finally:
        custom.unlink()
    spool = tmp_path / "state/opsmesh/spool"
    until(lambda: len(list(spool.glob("[!.]*.spool"))) == 4)


def _save(folder: Path) -> str:
    """What an editor says to a language server when a file is saved."""
    about = {"textDocument": {"uri": (folder / "a.py").as_uri()}}
    body = json.dumps({"method": "textDocument/didSave", "params": about})
    return f"Content-Length: {len(body)}\r\n\r\n{body}"


def test_the_command_takes_nothing_from_the_working_folder(
    strange: Strange, brought: set[str], tmp_path: Path
) -> None:
    """A user's module in the working folder is never taken for one of ours or Python's."""
    assert brought
    (tmp_path / "os.py").write_text("raise SystemExit('theirs')\n")
    (tmp_path / "opsmesh.py").write_text("raise SystemExit('theirs')\n")
    for arguments in (["emit", "a.b", "-q"], ["--version"]):
        ran = subprocess.run(
            [strange.python.with_name("opsmesh"), *arguments],
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "theirs" not in ran.stderr
    # the others need what the wheel depends on, which this environment does not have
    assert "No module named 'typer'" in ran.stderr
