"""What this host can confine a program with. Found out by doing it, once a process.

A service manager that cannot make a namespace leaves the setting out in silence, and a kernel may
refuse to whom it likes: that a program is there says nothing. So each sandbox is tried with a
program that looks around.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

#: Seconds that a try may take.
TRY_S: Final = 10.0


@functools.cache
def bwrap() -> str:
    """Why bubblewrap cannot be used here; "" when it can."""
    if shutil.which("bwrap") is None:
        return "bwrap is not in PATH (package bubblewrap)"
    tried = run(
        [
            "bwrap",
            "--unshare-all",
            "--ro-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "true",
        ]
    )
    return (
        "" if tried == (0, "") else f"bwrap cannot make a sandbox here: {tried[1] or 'it failed'}"
    )


@functools.cache
def manager() -> str | None:
    """How systemd-run reaches a manager: `--user`, or `--system` for root without one; None: not at
    all."""
    if shutil.which("systemd-run") is None or shutil.which("systemctl") is None:
        return None
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime, "systemd/private").exists():
        return "--user"
    if os.geteuid() == 0 and Path("/run/systemd/private").exists():
        return "--system"
    return None


NO_MANAGER: Final = "no systemd manager answers here (systemd-run)"


@functools.cache
def systemd_version() -> int:
    """Of systemd-run; 0 when it does not say."""
    found = re.match(r"systemd (\d+)", run(["systemd-run", "--version"])[1])
    return int(found[1]) if found else 0


@functools.cache
def controllers() -> frozenset[str]:
    """What the manager can limit: cpu, memory, pids. A user's manager has what was delegated to
    it."""
    if (how := manager()) is None:
        return frozenset()
    code, text = run(
        ["systemctl", how, "show", "--property=ControlGroup,DelegateControllers", "--value"]
    )
    group = text.splitlines()[0] if code == 0 and text else ""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        try:
            return frozenset(Path(f"{root}{group}/cgroup.controllers").read_text().split())
        except OSError:
            continue
    return frozenset()


def forget() -> None:
    """Try everything again: for tests, and for whoever installed what was missing."""
    for one in (bwrap, manager, systemd_version, controllers):
        getattr(one, "cache_clear", lambda: None)()


def run(argv: list[str]) -> tuple[int, str]:
    """A try's exit code, and what it said."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TRY_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, type(error).__name__
    return done.returncode, done.stdout.decode(errors="replace").strip()[:4000]
