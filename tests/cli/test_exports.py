"""What other people's programs make of what is exported: AsyncAPI's own parser, and the language
server that completes YAML in editors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from tests.cli.conftest import Cli

#: Asks the parser, as its documentation has it; prints what it found wrong, and the channels.
PARSE: Final = """
const { Parser } = require(process.argv[1]);
new Parser().parse(require("fs").readFileSync(0, "utf8")).then(({ document, diagnostics }) => {
  const wrong = diagnostics.filter((one) => one.severity < 2).map((one) => one.message);
  console.log(JSON.stringify({ wrong, channels: document ? document.allChannels().length : 0 }));
});
"""


def missing(reason: str) -> NoReturn:
    pytest.skip(reason)


def installed(package: str, version: str) -> Path:
    """The folder of an npm package, installed once into a cache of the user's."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        missing("node and npm are not here")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "opsmesh-tests" / f"{package.rpartition('/')[2]}-{version}"
    found = folder / "node_modules" / package
    if not (found / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        argv = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund"]
        argv.append(f"{package}@{version}")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            missing(f"npm could not install {package}: {done.stderr[-300:]}")
    return found


@pytest.mark.slow
def test_the_standards_parser_takes_the_asyncapi_document(cli: Cli) -> None:
    """It finds nothing wrong, and every topic a channel."""
    argv = ["node", "-e", PARSE, str(installed("@asyncapi/parser", "3.6.6"))]
    document = cli("topics", "export", "--format", "asyncapi").stdout
    done = subprocess.run(
        argv, input=document, capture_output=True, text=True, timeout=180, check=True
    )
    channels = len(json.loads(document)["channels"])
    assert json.loads(done.stdout) == {"wrong": [], "channels": channels}


def test_asyncapi_into_a_folder(cli: Cli, tmp_path: Path) -> None:
    """`--output` names a folder, which is made; what is there is what is printed without it."""
    cli("topics", "export", "--format", "asyncapi", "--output", str(tmp_path / "new"))
    printed = cli("topics", "export", "--format", "asyncapi").stdout
    assert json.loads((tmp_path / "new/asyncapi.json").read_text()) == json.loads(printed)


def profile_file(home: Path, text: str, *, name: str = "profiles.yaml") -> Path:
    path = home / "config/opsmesh" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_profile_files_name_their_schema(cli: Cli, home: Path) -> None:
    """Each gets one line, relative to it; the schema lies beside them; undone, all is as before."""
    main = profile_file(home, "version: 1\nprofiles: {}\n")
    more = profile_file(home, "version: 1\nprofiles: {}\n", name="profiles.d/more.yaml")
    before = {path: path.read_bytes() for path in (main, more)}
    assert cli("install", "profiles-schema", "--yes").exit_code == 0
    schema = main.with_name("profiles.schema.json")
    assert "profiles" in json.loads(schema.read_text())["properties"]
    mark = "  # opsmesh install profiles-schema\n"
    head = "# yaml-language-server: $schema="
    assert main.read_text().startswith(f"{head}profiles.schema.json{mark}")
    assert more.read_text().startswith(f"{head}../profiles.schema.json{mark}")
    assert cli("profile", "validate").exit_code == 0
    assert cli("uninstall", "profiles-schema", "--yes").exit_code == 0
    assert not schema.exists()
    assert {path: path.read_bytes() for path in before} == before


def test_without_a_profile_file_there_is_nothing_to_wire(cli: Cli) -> None:
    """Its absence is the reason, with what makes one."""
    done = cli("install", "profiles-schema", "--yes")
    assert done.exit_code != 0
    assert "opsmesh up writes one" in done.stderr


class LanguageServer:
    """yaml-language-server, as an editor without settings speaks to it (LSP 3.17)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._into, self._out = process.stdin, process.stdout

    def send(self, **message: Any) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._into.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self._into.flush()

    def read(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The next such message; its own questions are answered with nothing."""
        while True:
            size = 0
            while line := self._out.readline().strip():
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            message: dict[str, Any] = json.loads(self._out.read(size))
            if "method" in message and "id" in message:
                items = (message.get("params") or {}).get("items", [])
                self.send(id=message["id"], result=[None for _ in items])
            elif wanted(message):
                return message


@contextmanager
def language_server() -> Iterator[LanguageServer]:
    program = installed("yaml-language-server", "1.19.2") / "bin/yaml-language-server"
    process = subprocess.Popen(
        ["node", str(program), "--stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield LanguageServer(process)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_an_editor_completes_and_checks_profiles(cli: Cli, home: Path) -> None:
    """The real language server, told nothing, finds the schema by that line: it completes a
    profile's keys, and marks a wrong one."""
    text = "version: 1\nprofiles:\n  one:\n    on: [a.b]\n    debunce: 1s\n    \n"
    path = profile_file(home, text)
    cli("install", "profiles-schema", "--yes")
    text = path.read_text()
    document = {"uri": path.as_uri()}
    with language_server() as server:
        capabilities: dict[str, Any] = {
            "textDocument": {"completion": {}, "publishDiagnostics": {}}
        }
        root = {"processId": os.getpid(), "rootUri": None, "capabilities": capabilities}
        server.send(method="initialize", id=1, params=root)
        server.read(lambda message: message.get("id") == 1)
        server.send(method="initialized", params={})
        opened = {**document, "languageId": "yaml", "version": 1, "text": text}
        server.send(method="textDocument/didOpen", params={"textDocument": opened})
        told = server.read(
            lambda message: (
                message.get("method") == "textDocument/publishDiagnostics"
                and message["params"]["diagnostics"]
            )
        )
        assert any("debunce" in one["message"] for one in told["params"]["diagnostics"])
        line = text.splitlines().index("    debunce: 1s") + 1
        asked = {"textDocument": document, "position": {"line": line, "character": 4}}
        server.send(method="textDocument/completion", id=2, params=asked)
        found = server.read(lambda message: message.get("id") == 2)["result"]
    items = found["items"] if isinstance(found, dict) else found
    assert {"debounce", "actions", "where"} <= {item["label"] for item in items}
