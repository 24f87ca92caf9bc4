"""The LSP proxy before real servers of several makers, each installed once into a cache of the
user's; and before a whole mesh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from tests.conftest import mesh_client, run
from tests.producers.agent import StandInAgent, spooled, until
from tests.producers.lsp_client import LSP, editing
from tests.router.agent_process import agent as agent_process

from opsmesh.router.scan import scan

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("lsp_servers")]

#: What npm installs: the packages, and their versions.
NPM: Final = {
    "pyright": "1.1.414",
    "bash-language-server": "5.8.1",
    "@biomejs/biome": "2.6.8",
}
PYLSP: Final = "python-lsp-server[pycodestyle,pyflakes,autopep8]==1.15.0"


def cached(name: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "opsmesh-tests" / name


def missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def npm() -> Path:
    """The folder of programs that npm installed."""
    folder = cached("lsp-servers-1")
    programs = folder / "node_modules/.bin"
    names = ("pyright-langserver", "bash-language-server", "biome")
    if not all((programs / name).exists() for name in names):
        if not shutil.which("npm") or not shutil.which("node"):
            missing("node and npm are not here")
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [f"{name}@{version}" for name, version in NPM.items()]
        argv = ["npm", "install", "--no-audit", "--no-fund", *wanted]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=600)
        if not all((programs / name).exists() for name in names):
            missing(f"npm could not install {', '.join(wanted)}: {done.stderr[-300:]}")
    return programs


@pytest.fixture(scope="module")
def pylsp() -> Path:
    """python-lsp-server's program."""
    folder = cached("pylsp-1.15.0")
    program = folder / "bin/pylsp"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=180)
        argv = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", PYLSP]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
        if not program.exists():
            missing(f"pip could not install {PYLSP}: {done.stderr[-300:]}")
    return program


@pytest.fixture
def project(home: Path) -> Path:
    """A repository."""
    (home / "project/.git").mkdir(parents=True)
    return home / "project"


def told(agent: StandInAgent, topic: str) -> dict[str, Any]:
    """The first event on this topic, once it is there."""
    events = agent.wait_for(lambda events: any(one["topic"] == topic for one in events))
    return next(one for one in events if one["topic"] == topic)


def test_pylsp(agent: StandInAgent, project: Path, home: Path, pylsp: Path) -> None:
    """python-lsp-server, which escapes slashes and answers a format request for broken code with
    an empty list."""
    path = project / "ok.py"
    with editing([*LSP, "--", str(pylsp)], home / "log") as editor:
        sync = editor.begin(project)["textDocumentSync"]
        assert sync["save"] == {"includeText": True}
        editor.open(path, "python", "def f(:\n  pass\n")
        editor.save(path)
        assert told(agent, "editor.save")["payload"]["path"] == str(path)
        error = told(agent, "editor.lsp.diagnostic.error")
        assert "syntax" in error["payload"]["message"]
        assert error["payload"]["server"] == "pylsp"
        assert not editor.format(path)["result"]
        assert told(agent, "editor.format.failed")["payload"]["inferred"] is True
        editor.change(path, 2, "x = 1\n")
        told(agent, "editor.lsp.diagnostic.cleared")
        assert editor.end() == 0


def test_pyright(agent: StandInAgent, project: Path, home: Path, npm: Path) -> None:
    """pyright, which says no name of its own, pushes errors, and cannot format at all."""
    path = project / "ok.py"
    command = [*LSP, "--", str(npm / "pyright-langserver"), "--stdio"]
    with editing(command, home / "log") as editor:
        editor.begin(project)
        editor.open(path, "python", "def f(:\n  pass\n")
        error = told(agent, "editor.lsp.diagnostic.error")
        assert error["component"] == "pyright-langserver"
        assert error["payload"]["line"] == 1
        assert editor.format(path)["error"]["code"] == -32601
        failed = told(agent, "editor.format.failed")["payload"]
        assert (failed["code"], failed["method"]) == (-32601, "textDocument/formatting")
        editor.change(path, 2, "x = 1\n")
        told(agent, "editor.lsp.diagnostic.cleared")
        editor.end()


def test_bash_language_server(agent: StandInAgent, project: Path, home: Path, npm: Path) -> None:
    """bash-language-server, whose only word of a format that fails is a log message."""
    shfmt = home / "shfmt"
    shfmt.write_text("#!/bin/sh\necho 'ok.sh:2:1: `if` must end with `fi`' >&2; exit 1\n")
    shfmt.chmod(0o755)  # a stand-in for the formatter, not for the server
    path = project / "ok.sh"
    command = [*LSP, "--", str(npm / "bash-language-server"), "start"]
    os.environ["SHFMT_PATH"] = str(shfmt)
    try:
        with editing(command, home / "log") as editor:
            editor.begin(project)
            editor.open(path, "shellscript", "if true; then\necho hi\n")
            assert not editor.format(path)["result"]
            failed = told(agent, "editor.format.failed")["payload"]
            editor.end()
    finally:
        del os.environ["SHFMT_PATH"]
    assert "formatting" in failed["message"]
    assert "inferred" not in failed


def test_biome(agent: StandInAgent, project: Path, home: Path, npm: Path) -> None:
    """biome, which warns of a format that it gives up."""
    path = project / "ok.json"
    with editing([*LSP, "--", str(npm / "biome"), "lsp-proxy"], home / "log") as editor:
        editor.begin(project, formatting={"dynamicRegistration": True})
        editor.open(path, "json", '{"a":\n')
        while not editor.until("textDocument/publishDiagnostics")["params"]["diagnostics"]:
            pass  # it asks its editor things first, and tells of nothing meanwhile
        error = told(agent, "editor.lsp.diagnostic.error")
        assert error["payload"]["code"] == "parse"
        editor.format(path)
        told(agent, "editor.format.failed")
        editor.change(path, 2, '{"a": 1}\n')
        told(agent, "editor.lsp.diagnostic.cleared")
        editor.end()
    subprocess.run([npm / "biome", "stop"], check=False, capture_output=True, timeout=180)


@pytest.mark.usefixtures("nats_server")
def test_what_waited_is_stored_in_order(project: Path, home: Path) -> None:
    """With the agent down, saves, errors and formatting wait in the spool; they are stored in their
    order once it is up, and what is told then comes after them."""

    async def topics() -> list[str]:
        async with mesh_client() as client:
            found = [message.subject.split(".", 2)[2] async for message in scan(client, "EVENTS")]
            return [topic for topic in found if topic.startswith("editor.")]

    ruff = [*LSP, "--", str(Path(sys.executable).with_name("ruff")), "server"]
    path = project / "ok.py"
    with editing(ruff, home / "log") as editor:
        editor.begin(project)
        editor.open(path, "python", "def f(:\n")
        editor.until("textDocument/publishDiagnostics")
        editor.save(path)
        assert editor.format(path)["result"] is None
        until(lambda: len(spooled(home)) == 3)
        with agent_process(home):
            until(lambda: len(run(topics())) == 3)
            editor.change(path, 2, "x = 1\n")
            until(lambda: len(run(topics())) == 4)
        assert editor.end() == 0
        assert run(topics()) == [
            "editor.lsp.diagnostic.error",
            "editor.save",
            "editor.format.failed",
            "editor.lsp.diagnostic.cleared",
        ]
