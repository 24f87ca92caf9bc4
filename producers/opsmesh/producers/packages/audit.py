"""The question what is known to be vulnerable, put to the distribution's own tool.

The tool runs beside the loop, in the background and with a time limit: both fetch their data over
the network. A tool that fails has found nothing out: that is never taken for "clean".
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from opsmesh.producers.packages import advisories
from opsmesh.producers.packages.advisories import Found

#: Seconds that a tool may take.
LIMIT: Final = 120.0
#: Bytes of an answer, at most: debsecan's of a whole Debian has some megabytes.
MOST: Final = 64 << 20
#: Where arch-audit looks unless it is told otherwise.
PACMAN_DB: Final = "/var/lib/pacman"
#: arch-audit(1) and debsecan(1).
TOOLS: Final[dict[str, list[str]]] = {
    "arch-audit": ["--json"],
    "debsecan": ["--format", "detail"],
}


class AuditError(Exception):
    """The tool could not say; its own words say why."""


def tool() -> str | None:
    """The tool that is here."""
    return next((name for name in TOOLS if shutil.which(name)), None)


class Audit:
    """One question under way. Readable (`fileno`) when `read` has something to do."""

    def __init__(self, name: str, options: Sequence[str] = (), *, limit: float = LIMIT) -> None:
        """Ask; `options`: arguments for the tool. AuditError when it cannot be started."""
        self._name = name
        self._options = list(options) or (_debian() if name == "debsecan" else [])
        self._output = bytearray()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with `close`)
        self.deadline = time.monotonic() + limit
        try:
            self._child = subprocess.Popen(
                ["nice", "-n", "19", name, *TOOLS[name], *self._options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": ""},
                start_new_session=True,
            )
            if self._child.stdout is None:
                raise OSError("no pipe")  # noqa: TRY301
            self._answer = self._child.stdout
        except OSError as error:
            self._said.close()
            raise AuditError(f"{name}: {error}") from error

    def fileno(self) -> int:
        """For select."""
        return self._answer.fileno()

    def read(self) -> Found | None:
        """Take what is there; the answer once it is complete. AuditError when there is none."""
        if part := os.read(self.fileno(), 1 << 16):
            self._output += part
            if len(self._output) > MOST:
                raise AuditError(f"{self._name}: its answer is longer than {MOST} bytes")
            return None
        try:
            status = self._child.wait(max(0.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.expired()
        if status:
            raise AuditError(f"{self._name}: {self._last_words() or f'exit code {status}'}")
        text = self._output.decode("utf-8", "replace")
        if self._name == "debsecan":
            return advisories.of_debsecan(text)
        try:
            return advisories.of_arch_audit(text, installed(Path(_db(self._options))))
        except (ValueError, RecursionError, OSError) as error:
            raise AuditError(f"{self._name}: its answer is of no use: {error}") from error

    def expired(self) -> None:
        """AuditError: its time is over."""
        raise AuditError(f"{self._name} gave no answer in time")

    def close(self) -> None:
        """End the tool, whatever it is doing."""
        if self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        self._answer.close()
        self._said.close()

    def _last_words(self) -> str:
        self._said.seek(0)
        words = self._said.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
        return words[-1][:300] if words else ""


def installed(database: Path) -> dict[str, str]:
    """Versions by package, of pacman's local database: a folder `NAME-VERSION-RELEASE` for each."""
    parts = (path.name.rsplit("-", 2) for path in (database / "local").iterdir() if path.is_dir())
    return {part[0]: f"{part[1]}-{part[2]}" for part in parts if len(part) == 3}


def _db(options: Sequence[str]) -> str:
    """The database that arch-audit was told to look at."""
    for word, value in zip(options, [*options[1:], ""], strict=True):
        if word in ("-b", "--dbpath"):
            return value
        if word.startswith("--dbpath="):
            return word.partition("=")[2]
    return PACMAN_DB


def _debian() -> list[str]:
    """What can be mended: a Debian has some thousand known issues that wait for a fix."""
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release()
        if release.get("ID") == "debian" and (codename := release.get("VERSION_CODENAME")):
            return ["--suite", codename, "--only-fixed"]
    return []
