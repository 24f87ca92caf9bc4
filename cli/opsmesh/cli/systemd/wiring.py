"""systemd's half: units of the user's own manager, or of a shared host's.

A unit finds the `opsmesh` that installed it, by the path of its Python. Drop-ins are the user's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opsmesh.cli.systemd import render
from opsmesh.producers.errors import NotNow
from opsmesh.producers.wiring import OwnFile, Piece
from opsmesh.router import paths, supervisor_state, user
from opsmesh.router.units import names
from opsmesh.router.units.names import Manager

#: Where an administrator's units lie, and what else a shared mesh needs.
SYSTEM: Final = Path("/etc/systemd/system")
MORE: Final = {
    "sysusers.conf": Path("/etc/sysusers.d/opsmesh.conf"),
    "tmpfiles.conf": Path("/etc/tmpfiles.d/opsmesh.conf"),
    "opsmesh-shared": Path("/usr/local/bin/opsmesh-shared"),
}
#: Folders that ProtectHome=yes empties.
HIDDEN: Final = (Path("/home"), Path(pwd.getpwuid(0).pw_dir), Path("/run/user"))
_PATH: Final = "Environment=PATH="


class _Units:
    topics: Sequence[str] = ()
    producer: str | None = None
    name: str
    manager: Manager

    def reload(self) -> Sequence[Sequence[str]]:
        """See `wiring.Switched`."""
        return [names.systemctl(self.manager, "daemon-reload")]

    def switch_off(self) -> Sequence[Sequence[str]]:
        """See `wiring.Switched`."""
        return [names.stop(self.manager), names.systemctl(self.manager, "disable", names.TARGET)]

    def _missing(self) -> str | None:
        if shutil.which("systemctl") is None:
            return "systemctl is not on PATH"
        for path in (sys.executable, paths.state_dir(), paths.config_dir()):
            if any(special in path for special in render.SPECIAL):
                return f"a unit cannot name {path!r}"
        return None


class UserUnits(_Units):
    """See `wiring.Wiring`."""

    name = "systemd"
    description = "systemd: the mesh as units of your own, instead of opsmesh up"
    manager: Manager = "user"

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        if why := self._missing():
            return why
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        if not Path(runtime, "systemd/private").exists():
            return (
                "no systemd --user runs for you (nothing answers in XDG_RUNTIME_DIR); "
                "log in anew, or use opsmesh up --detach"
            )
        return None

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`. What the units have as PATH they keep."""
        folder = _user_folder()
        texts = render.units("user", self.name, kept_path=_kept_path(folder))
        return [OwnFile(path=folder / name, text=text) for name, text in texts.items()]

    def switch_on(self) -> Sequence[Sequence[str]]:
        """See `wiring.Switched`."""
        state = supervisor_state.running()
        if state is not None:
            raise NotNow(
                f"opsmesh up runs here (pid {state.pid}), and units would be a second mesh",
                hint="opsmesh down, then call this again",
            )
        ask = names.systemctl
        return [ask("user", "enable", names.TARGET), ask("user", "restart", names.TARGET)]

    def after(self) -> str:
        """See `wiring.Wiring`."""
        lines = ["next: opsmesh status · journalctl --user --unit='opsmesh*' --follow"]
        if not Path("/var/lib/systemd/linger", user.name()).exists():
            lines.append("it ends when you log out; if it shall stay: loginctl enable-linger")
        told = sorted(name for name in os.environ if name.startswith("OPSMESH_"))
        if told:
            file = f"{paths.config_dir()}/environment"
            seen = ", ".join(told)
            lines.append(f"the units do not see {seen} of this shell: config.yaml, or {file}")
        return "\n".join(lines)


class SystemUnits(_Units):
    """See `wiring.Wiring`."""

    name = "systemd-system"
    description = "systemd: one mesh for everybody on this host, with an account of its own"
    manager: Manager = "system"

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        if why := self._missing():
            return why
        if not Path("/run/systemd/system").is_dir():
            return "this machine was not booted by systemd"
        for path in (Path(sys.executable), Path(__file__)):
            if closed := closed_to_all(path):
                return (
                    f"units of the system do not see {closed}: install opsmesh where everybody "
                    "can, like python3 -m venv /opt/opsmesh"
                )
        return None

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        units = render.units("system", self.name)
        more = render.more(self.name)
        return [
            *(
                OwnFile(path=path, text=more[name], root=True, mode=_mode(name))
                for name, path in MORE.items()
            ),
            *(OwnFile(path=SYSTEM / name, text=text, root=True) for name, text in units.items()),
        ]

    def switch_on(self) -> Sequence[Sequence[str]]:
        """See `wiring.Switched`."""
        ask = names.systemctl
        return [
            ["systemd-sysusers", str(MORE["sysusers.conf"])],
            ["systemd-tmpfiles", "--create", str(MORE["tmpfiles.conf"])],
            ask("system", "enable", names.TARGET),
            ask("system", "restart", names.TARGET),
        ]

    def after(self) -> str:
        """See `wiring.Wiring`."""
        return (
            "next: sudo opsmesh-shared status · journalctl --unit='opsmesh*' --follow\n"
            "who may send events: sudo usermod -aG opsmesh NAME; they call opsmesh-shared emit"
        )


def _mode(name: str) -> int:
    return 0o755 if name == "opsmesh-shared" else 0o644


def _user_folder() -> Path:
    told = os.environ.get("XDG_CONFIG_HOME", "")
    config = Path(told) if told.startswith("/") else Path.home() / ".config"
    return config / "systemd/user"


def _kept_path(folder: Path) -> str | None:
    """The PATH of units that are installed."""
    try:
        text = (folder / "opsmesh-plan.service").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    for line in text.splitlines():
        if line.replace('"', "").startswith(_PATH):
            return line.replace('"', "").removeprefix(_PATH).replace("%%", "%")
    return None


def closed_to_all(path: Path) -> Path | None:
    """The first folder on the way, links followed, that others may not enter, or that is hidden
    from the units (ProtectHome=)."""
    for one in (path, path.resolve()):
        for folder in reversed(one.parents):
            if folder in HIDDEN or not folder.stat().st_mode & 0o001:
                return folder
    return None
