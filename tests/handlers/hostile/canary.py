"""How it shows when a payload has had its way.

Programs with the names that payloads call stand first in PATH and leave a mark when they run; a
mark is also the file that payloads would make with the system's own programs, a precious file that
has changed, and a secret's text in what a step gives back.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

#: Names that payloads call.
TRIPWIRES: Final = (
    *("touch", "rm", "cat", "curl", "wget", "python3", "python", "perl", "sh", "bash", "echo"),
    *("id", "reboot", "calc", "nc", "eval", "exec", "xterm", "notify-send", "gdbus", "ssh"),
)
SECRET: Final = "the-lamp-is-" + "in-the-hall"
PRIVATE: Final = "only-the-profile-" + "may-say-this"


@dataclass(frozen=True)
class Canary:
    """The folder with tripwires, marks, and what is precious."""

    folder: Path

    @property
    def tools(self) -> Path:
        """First in PATH."""
        return self.folder / "tools"

    @property
    def marks(self) -> Path:
        """Where whatever runs leaves something."""
        return self.folder / "marks"

    def armed(self, text: str) -> str:
        """A payload that aims at this canary."""
        return (
            text.replace("@MARK@", f"{self.marks}/made")
            .replace("@DENT@", f"{self.folder}/dent")
            .replace("@SECRET@", f"{self.folder}/secret")
        )

    def sings(self) -> list[str]:
        """What has happened that must not."""
        found = [
            f"{mark.name}: {mark.read_text(errors='replace')[:500]}"
            for mark in sorted(self.marks.iterdir())
        ]
        dent = self.folder / "dent"
        if not dent.is_file() or dent.read_text() != "whole":
            found.append("the precious file was touched")
        return found

    def quiet(self, *said: Any, payload: str) -> None:
        """Nothing was run or touched, and nothing of `said` holds what the payload asked for."""
        assert not self.sings(), f"{payload!r:.300} has had its way: {self.sings()}"
        text = repr(said)
        for word in (SECRET, PRIVATE):
            assert word not in text, f"{payload!r:.300} was told {word!r}"


def placed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Canary:
    """A canary whose tripwires are first in PATH."""
    canary = Canary(folder)
    canary.tools.mkdir(parents=True)
    canary.marks.mkdir()
    (folder / "dent").write_text("whole")
    (folder / "secret").write_text(SECRET)
    for name in TRIPWIRES:
        write_tool(canary.tools / name, f'printf "%s\\n" "$0 $*" >>"{canary.marks}/{name}"')
    monkeypatch.setenv("PATH", f"{canary.tools}:{os.environ['PATH']}")
    return canary


def write_tool(path: Path, script: str) -> None:
    """A program."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
