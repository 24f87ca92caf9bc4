"""`opsmesh install vscode`, with a stand-in for the editor's command that notes what it is told.

The real one, code-server's, is in tests/producers/test_vscode_real.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Cli

from opsmesh.producers.vscode import places, vsix


@pytest.fixture
def editor(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with `code` in it; what that is told is in the file `said` beside it."""
    folder = home / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    program = folder / "code"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> "{folder}/said"\nexit "$(cat "{folder}/code.exit")"\n'
    )
    program.chmod(0o755)
    (folder / "code.exit").write_text("0")
    return folder


def said(editor: Path) -> list[str]:
    path = editor / "said"
    return path.read_text().splitlines() if path.exists() else []


def state(cli: Cli) -> str:
    [row] = json.loads(cli("install", "--check", "vscode", "--json").stdout)
    return str(row["state"])


def test_the_extension_is_shown_written_and_handed_to_the_editor(cli: Cli, editor: Path) -> None:
    """What is written is shown by its size, the editor's command installs it, and removes it."""
    shown = cli("install", "vscode", "--dry-run")
    assert f"Binary files /dev/null and {places.vsix()} differ" in shown.stdout
    assert f"then: code --install-extension {places.vsix()} --force" in shown.stdout
    assert said(editor) == []
    done = cli("install", "vscode", "--yes")
    assert done.exit_code == 0
    assert places.vsix().read_bytes() == vsix.pack()
    assert said(editor) == [f"--install-extension {places.vsix()} --force"]
    assert state(cli) == "wired"
    assert "nothing to do" in cli("install", "vscode", "--yes").stdout
    assert cli("uninstall", "vscode", "--yes").exit_code == 0
    assert said(editor)[1:] == ["--uninstall-extension opsmesh.opsmesh"]
    assert not places.vsix().exists()


def test_an_older_extension_is_stale_and_replaced(
    cli: Cli, editor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade of opsmesh the extension is stale, and `install` brings the new one."""
    new = vsix.pack()
    monkeypatch.setattr(vsix, "pack", lambda: b"PK\0old")
    cli("install", "vscode", "--yes")
    monkeypatch.setattr(vsix, "pack", lambda: new)
    assert state(cli) == "stale"
    assert cli("install", "vscode", "--yes").exit_code == 0
    assert places.vsix().read_bytes() == new
    assert len(said(editor)) == 2


def test_an_editor_that_fails(cli: Cli, editor: Path) -> None:
    """What is left to do is said when the editor's command fails."""
    (editor / "code.exit").write_text("7")
    done = cli("install", "vscode", "--yes")
    assert done.exit_code == 1
    assert "--install-extension" in done.stderr


def test_no_editor(cli: Cli, editor: Path) -> None:
    """Without an editor the commands that were looked for are named, and nothing is written."""
    (editor / "code").unlink()
    done = cli("install", "vscode", "--yes")
    assert done.exit_code == 1
    assert "codium" in done.stderr
    assert not places.vsix().exists()
