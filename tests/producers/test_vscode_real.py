"""The extension in a real VS Code: code-server with a headless Chromium, and a real mesh.

Slow, and only where code-server has been installed (`code_servers`). Screenshots lie in the folder
that OPSMESH_SHOTS names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests import conftest
from tests.conftest import private_folders
from tests.producers import code_servers
from tests.producers.code_servers import Browser

from opsmesh.producers.vscode import places, vsix

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("code-server")]
#: A real editor takes its time.
until = partial(conftest.until, timeout=60)

OPSMESH = Path(sys.executable).with_name("opsmesh")
TASKS = {
    "version": "2.0.0",
    "tasks": [
        {
            "label": "build it",
            "type": "shell",
            "command": "exit 3",
            "group": "build",
            "runOptions": {"runOn": "folderOpen"},
        },
        {
            "label": "unit tests",
            "type": "shell",
            "command": "echo $OPSMESH_EDITOR_SESSION > told; exit 4",
            "group": {"kind": "test", "isDefault": True},
        },
    ],
}
SETTINGS = {"task.allowAutomaticTasks": "on", "workbench.startupEditor": "none"}
PROFILES = """
version: 1
profiles:
  rerun:
    on: [editor.test.failed]
    actions:
      - id: ask
        approve: {prompt: "Run the tests again?", expires: 1h}
      - command: ["true"]
"""
#: Extensions that behave badly: what their activation does.
BAD = "exports.activate = () => { throw new Error('boom at activation'); };"
KILLER = """
const vscode = require('vscode');
exports.activate = (context) => context.subscriptions.push(vscode.commands.registerCommand(
    'killer.do', () => process.kill(process.pid, 'SIGSEGV')));
"""
TESTER = """
const vscode = require('vscode');
exports.activate = (context) => context.subscriptions.push(vscode.commands.registerCommand(
    'tester.do', () => {
        const controller = vscode.tests.createTestController('tester', 'Tester');
        const uri = vscode.Uri.joinPath(vscode.workspace.workspaceFolders[0].uri, 'a.py');
        const [file, one, two] = [['f', 'a.py'], ['o', 'one'], ['t', 'two']].map(
            ([id, label]) => controller.createTestItem(id, label, uri));
        controller.items.add(file);
        file.children.add(one);
        file.children.add(two);
        const run = controller.createTestRun(new vscode.TestRunRequest([file]));
        run.passed(one, 1);
        const message = new vscode.TestMessage('two is wrong');
        message.location = new vscode.Location(uri, new vscode.Position(6, 0));
        run.failed(two, message, 3);
        run.end();
    }));
"""


@dataclass
class Editor:
    """What the tests share."""

    home: Path
    app: Path
    program: Path
    browser: Browser

    def shot(self, name: str) -> None:
        folder = Path(os.environ.get("OPSMESH_SHOTS") or self.home)
        self.browser.do("shot", str(folder / f"{name}.png"))


def opsmesh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    return subprocess.run(
        [OPSMESH, *arguments], capture_output=True, text=True, timeout=180, check=False
    )


def events(topic: str) -> list[dict[str, Any]]:
    """What is stored of a topic."""
    done = opsmesh("tail", "--no-follow", "--since", "1h", "--json", "--topic", topic)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def stranger(folder: Path, name: str, code: str) -> Path:
    """Somebody's extension, packed."""
    (folder / "src").mkdir(parents=True)
    for part in ("README.md", "CHANGELOG.md", "LICENSE"):
        (folder / part).touch()
    (folder / "src/main.js").write_text(code)
    manifest = {
        "name": name,
        "displayName": name,
        "description": name,
        "publisher": "example",
        "engines": {"vscode": "^1.82.0"},
        "main": "./src/main.js",
        "extensionKind": ["workspace"],
        "activationEvents": ["onStartupFinished"],
        "categories": ["Other"],
        "keywords": [],
        "contributes": {"commands": [{"command": f"{name}.do", "title": f"{name.title()}: now"}]},
    }
    (folder / "package.json").write_text(json.dumps(manifest))
    packed = folder.with_suffix(".vsix")
    packed.write_bytes(vsix.pack(folder, release="1.0.0"))
    return packed


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    """code-server in a mesh, with our extension by its command and strangers', open in a page."""
    code_servers.needed()
    home = Path(tempfile.mkdtemp(prefix="vsc"))  # short: VS Code's sockets lie below it
    app = home / "app"
    (app / ".vscode").mkdir(parents=True)
    (app / ".git").mkdir()
    (app / "a.py").write_text("x = 1\n")
    (app / ".vscode/tasks.json").write_text(json.dumps(TASKS))
    with pytest.MonkeyPatch.context() as env:
        private_folders(home, env)
        (home / "bin").mkdir()
        program = code_servers.command(home / "bin")
        env.setenv("HOME", str(home))
        env.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")
        (home / "config/opsmesh").mkdir()
        (home / "config/opsmesh/profiles.yaml").write_text(PROFILES)
        settings = home / "data/code-server/User/settings.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps(SETTINGS))
        try:
            began = opsmesh("up", "--detach")
            assert began.returncode == 0, began.stdout + began.stderr
            done = opsmesh("install", "vscode", "--yes")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "producer vscode runs" in done.stdout
            for name, code in (("bad", BAD), ("killer", KILLER), ("tester", TESTER)):
                packed = stranger(home / name, name, code)
                subprocess.run([program, "--install-extension", packed], check=True)
            with code_servers.serving(program, app, home / "server.log") as address:
                browser = Browser(address)
                try:
                    yield Editor(home, app, program, browser)
                finally:
                    browser.close()
        finally:
            opsmesh("down")
    shutil.rmtree(home, ignore_errors=True)


def test_a_task_that_fails(editor: Editor) -> None:
    """A task of the folder that fails is stored, with its session and its project."""
    [event] = until(lambda: events("editor.task.failed"))
    payload = event["payload"]
    assert payload.pop("duration_ms") > 0
    assert payload == {
        "task": "build it",
        "exit_code": 3,
        "group": "build",
        "command": "exit 3",
        "cwd": str(editor.app),
        "editor": "vscode",
    }
    assert event["workspace"] == str(editor.app)
    assert event["session_id"].startswith("vscode:")
    editor.shot("1-task")


def test_an_extension_that_cannot_be_activated(editor: Editor) -> None:
    """A stranger's extension that throws when it is activated is told, with its error."""
    found = until(lambda: events("editor.extension.crashed"))
    assert found[0]["payload"]["extension"] == "example.bad"
    assert found[0]["payload"]["message"] == "Error: boom at activation"
    assert found[0]["workspace"] == str(editor.app)


def test_a_test_task_that_fails_asks_and_is_answered(editor: Editor) -> None:
    """A failing task of the test group is told, and knows its session; the question of a profile
    that listens to it shows in the status bar, and is answered there."""
    editor.browser.do("text", '.statusbar-item:has-text("opsmesh")')
    editor.browser.do("palette", "Tasks: Run Test Task")
    [event] = until(lambda: events("editor.test.failed"))
    assert event["payload"]["exit_code"] == 4
    assert event["session_id"] == (editor.app / "told").read_text().strip()
    editor.browser.do("text", '.statusbar-item:has-text("opsmesh 1")')
    editor.shot("2-question")
    editor.browser.do("palette", "OpsMesh: Answer approval")
    editor.browser.do("row", "approve")
    editor.shot("3-choices")
    editor.browser.do("pick", "approve")
    editor.browser.do("input", "once more")
    [granted] = until(lambda: events("automation.approval.granted"))
    assert granted["payload"]["via"] == "vscode"
    assert granted["payload"]["comment"] == "once more"
    until(lambda: events("automation.run.succeeded"))
    editor.browser.do("gone", '.statusbar-item:has-text("opsmesh 1")')


def test_recent_events_and_status_are_shown(editor: Editor) -> None:
    """The commands of the palette show what the command opsmesh says."""
    editor.browser.do("palette", "OpsMesh: Recent events")
    editor.browser.do("row", "automation.")
    editor.shot("4-events")
    editor.browser.do("type", "editor.task")
    editor.browser.do("row", "editor.task.failed")
    editor.shot("5-found")
    editor.browser.do("press", "Escape")
    editor.browser.do("palette", "OpsMesh: Status")
    editor.browser.do("row", "The agent: connected")
    editor.shot("6-status")
    editor.browser.do("press", "Escape")


def test_a_profile_is_triggered(editor: Editor) -> None:
    """A profile runs at one command, with where the person is."""
    editor.browser.do("palette", "OpsMesh: Trigger profile")
    editor.browser.do("pick", "rerun")
    [click] = until(lambda: events("shell.action.invoked"))
    assert click["source"] == "vscode"
    assert click["payload"]["detail"] == {"profile": "rerun", "args": {"folder": str(editor.app)}}
    editor.browser.do("text", '.statusbar-item:has-text("opsmesh 1")')
    editor.shot("7-triggered")


def test_what_the_test_explorer_saw_fail(editor: Editor) -> None:
    """code-server grants the proposed API: a test that failed in the explorer is told."""
    editor.browser.do("palette", "Tester: now")

    def told() -> list[dict[str, Any]]:
        return [e["payload"] for e in events("editor.test.failed") if "nodeid" in e["payload"]]

    [payload] = until(told)
    assert payload == {
        "nodeid": "Tester › a.py › two",
        "message": "two is wrong",
        "path": str(editor.app / "a.py"),
        "line": 7,
        "duration_ms": 3,
        "failed": 1,
        "editor": "vscode",
    }


def test_a_save(editor: Editor) -> None:
    """A file that is saved is told."""
    editor.browser.do("click", '.explorer-folders-view .monaco-list-row:has-text("a.py")')
    editor.browser.do("text", '.tab:has-text("a.py")')
    editor.browser.do("click", ".view-lines")
    editor.browser.do("type", "# more")
    editor.browser.do("press", "Control+S")
    [event] = until(lambda: events("editor.save"))
    assert event["payload"] == {
        **{"path": str(editor.app / "a.py"), "language": "python", "lines": 2, "editor": "vscode"},
    }


def test_an_extension_host_that_dies(editor: Editor) -> None:
    """A host that is killed is told with its signal; the next one takes leave when the page is
    loaded anew, which is nobody's news."""
    before = len(list(places.hosts().glob("*.json")))
    assert before == 1
    editor.browser.do("palette", "Killer: now")

    def died() -> list[dict[str, Any]]:
        return [e for e in events("editor.extension.crashed") if "signal" in e["payload"]]

    [event] = until(died)
    assert event["payload"]["signal"] == "SIGSEGV"
    assert "exited with code: null, signal: SIGSEGV" in event["payload"]["message"]
    assert "extension" not in event["payload"]
    [second] = until(lambda: list(places.hosts().glob("*.json")))
    editor.shot("8-died")
    editor.browser.do("reload")
    until(lambda: [path for path in places.hosts().glob("*.json") if path != second])
    until(lambda: not second.exists())
    assert len(died()) == 1


def listed(editor: Editor) -> str:
    """The extensions that the editor has."""
    return subprocess.check_output([editor.program, "--list-extensions"], text=True)


def test_the_extension_is_removed(editor: Editor) -> None:
    """`uninstall` takes the extension out of the editor again."""
    assert vsix.IDENTITY in listed(editor)
    done = opsmesh("uninstall", "vscode", "--yes")
    assert done.returncode == 0, done.stderr
    assert vsix.IDENTITY not in listed(editor)
