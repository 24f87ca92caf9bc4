"""Bundles as tests make them: the action itself, with a context of a test's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tests.conftest import run
from tests.handlers.conftest import EVENT

from opsmesh.handlers.actions.collect import Collect
from opsmesh.handlers.actions.contract import StepContext, StepResult

Context = Callable[..., StepContext]


@dataclass
class Made:
    """A bundle that was made."""

    result: StepResult
    folder: Path
    manifest: dict[str, Any]

    def entry(self, key: str) -> dict[str, Any]:
        """What the manifest says of a piece, by its key."""
        [found] = [one for one in self.manifest["files"] if one["key"] == key]
        return dict(found)

    def text(self, key: str) -> str:
        """A piece's text."""
        return Path(self.folder, str(self.entry(key)["name"])).read_text()

    def error(self, key: str) -> str:
        """Why there is no piece."""
        return str(self.entry(key)["error"])

    def facts(self, key: str) -> dict[str, Any]:
        """A piece's facts."""
        return dict(self.entry(key)["facts"])


def collect(
    context: Context, items: Any, payload: Mapping[str, Any] | None = None, **changes: Any
) -> Made:
    """The bundle of these items for an event with this payload."""
    event = EVENT if payload is None else msgspec.structs.replace(EVENT, payload=dict(payload))
    event = changes.pop("event", event)
    result = run(Collect.parse(items).run(context(event=event, **changes)))
    assert result.ok
    folder = Path(result.evidence_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    return Made(result=result, folder=folder, manifest=manifest)


def git(folder: Path, *arguments: str) -> str:
    """git, as nobody's own settings."""
    done = subprocess.run(
        [
            *("git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"),
            # newer ones leave a process behind that looks after the repository
            *("-c", "commit.gpgsign=false", "-c", "maintenance.auto=false", *arguments),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return str(done.stdout).strip()


def repository(folder: Path) -> Path:
    """A repository with one commit."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "a.txt").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder
