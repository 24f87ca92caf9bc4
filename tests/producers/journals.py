"""Real journal files, made of a capture by systemd-journal-remote."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

REMOTE = Path("/lib/systemd/systemd-journal-remote")
EXPORT = Path(__file__).parent / "data/sample.export"


def missing() -> str | None:
    """The tool that is needed and not here; None when journals can be made and read."""
    tools = ("journalctl", str(REMOTE))
    return next((tool for tool in tools if shutil.which(tool) is None), None)


def make(folder: Path) -> Path:
    """A folder with a journal that holds the capture."""
    folder.mkdir()
    add(folder, EXPORT.read_bytes())
    return folder


def add(folder: Path, export: bytes) -> None:
    command = [str(REMOTE), "-o", str(folder / "made.journal"), "-"]
    subprocess.run(command, input=export, check=True, capture_output=True)


def later(unit: str, *, boot: str = "", at_us: int = 0) -> bytes:
    """A failure of `unit`, logged an hour after the capture or at `at_us`, in another `boot`."""
    blocks = EXPORT.read_bytes().split(b"\n\n")
    [failed] = [b for b in blocks if b"Failed with result" in b and b"UNIT=t-fail.service" in b]
    lines = []
    for line in failed.replace(b"t-fail.service", unit.encode()).splitlines():
        name, equals, value = line.partition(b"=")
        if name in (b"__REALTIME_TIMESTAMP", b"__MONOTONIC_TIMESTAMP"):
            value = str(int(value) + 3_600_000_000).encode()
        if at_us and name == b"__REALTIME_TIMESTAMP":
            value = str(at_us).encode()
        if boot and name == b"__MONOTONIC_TIMESTAMP":
            value = b"9000000"
        if boot and name == b"_BOOT_ID":
            value = boot.encode()
        if name == b"INVOCATION_ID":
            value = os.urandom(16).hex().encode()
        if name != b"__CURSOR":
            lines.append(name + equals + value)
    return b"\n".join(lines) + b"\n\n"
