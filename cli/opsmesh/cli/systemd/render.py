"""The units' texts, made of the templates beside this file, which are the one source of them.

The one rule: what is put into them is written so that systemd reads it back as it was.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from opsmesh.router import paths
from opsmesh.router.units.names import Manager

UNITS: Final = (
    "opsmesh.target",
    "opsmesh-plan.service",
    "opsmesh-broker.service",
    "opsmesh-agent.socket",
    "opsmesh-agent.service",
    "opsmesh-handlers.service",
    "opsmesh-sink.service",
    "opsmesh-component@.service",
    "opsmesh-producer@.service",
    "opsmesh-producers.service",
    "opsmesh-producers.timer",
)
HEADER: Final = (
    "# Written by `opsmesh install {tool}`, and written anew by the next one.\n"
    "# What you want otherwise belongs into a drop-in: {edit} UNIT"
)
#: What no path in a unit may hold: it would be a variable, the end of a quote, or of the line.
SPECIAL: Final = ("$", '"', "\\", "\n")
#: Folders of the shared mesh, by the variables that name them.
SHARED: Final = {
    "HOME": "/var/lib/opsmesh",
    "XDG_CONFIG_HOME": "/etc",
    "XDG_STATE_HOME": "/var/lib",
    "XDG_RUNTIME_DIR": "/run",
}
_XDG: Final = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")
_PLACE: Final = re.compile(r"@([A-Z_]+)@")


def quoted(text: str) -> str:
    """One word, as systemd reads it: it splits at spaces, and takes % for its own."""
    text = text.replace("%", "%%")
    return f'"{text}"' if re.search(r"[\s;#']", text) else text


def search_path(kept: str | None) -> str:
    """Where tools are looked for: what the units have, so that a second call in another shell
    changes nothing, or else this shell's own folders."""
    if kept is not None:
        return kept
    folders = [one for one in os.environ.get("PATH", "").split(":") if one.startswith("/")]
    usable = [one for one in folders if not any(special in one for special in SPECIAL)]
    return ":".join(dict.fromkeys(usable)) or "/usr/local/bin:/usr/bin:/bin"


def units(manager: Manager, tool: str, *, kept_path: str | None = None) -> dict[str, str]:
    """Each unit's text by its name."""
    values = _values(manager, tool, kept_path)
    return {name: _filled(_template(name), values) for name in UNITS}


def more(tool: str) -> dict[str, str]:
    """What a shared mesh needs beside its units, by the template's name."""
    values = _values("system", tool, None)
    names = ("sysusers.conf", "tmpfiles.conf", "opsmesh-shared")
    return {name: _filled(_template(name), values) for name in names}


def program() -> Path:
    """The command `opsmesh` of the installation that runs this."""
    return Path(sys.executable).with_name("opsmesh")


def _values(manager: Manager, tool: str, kept_path: str | None) -> Mapping[str, str]:
    user = manager == "user"
    state = paths.state_dir() if user else paths.state_dir(SHARED)
    edit = "systemctl --user edit" if user else "sudo systemctl edit"
    parts = {
        name.upper(): _template(f"part.{name}.{manager}.conf")
        for name in ("tight", "producer", "handlers", "plan", "socket")
    }
    return {
        **parts,
        "HEADER": HEADER.format(tool=tool, edit=edit),
        "PYTHON": quoted(sys.executable),
        "OPSMESH": shlex.quote(str(program())),
        "MANAGER": manager,
        "WANTED_BY": "default.target" if user else "multi-user.target",
        "AS_ROOT": "" if user else "+",
        "STATE": quoted(state),
        "KEYS": quoted(f"-{state}/auth/keys.json"),
        "CONFIG": quoted(paths.config_dir()),
        "RUNTIME": "%t/opsmesh",
        "ENVIRONMENT": _environment(manager, kept_path),
        "RESTART": _template("part.restart.conf"),
        "KERNEL": _template("part.kernel.conf"),
        "ACCOUNT": _template("part.account.conf"),
    }


def _environment(manager: Manager, kept_path: str | None) -> str:
    """Folders as they are for whoever installs, and where tools are; a file may say otherwise."""
    if manager == "system":
        env: Mapping[str, str] = SHARED
        file = "/etc/default/opsmesh"  # root's: root's own steps see it, too
    else:
        told = {name: os.environ.get(name, "") for name in _XDG}
        env = {name: value for name, value in told.items() if value.startswith("/")}
        env["PATH"] = search_path(kept_path)
        file = f"{paths.config_dir()}/environment"
    lines = [f"Environment={quoted(f'{name}={value}')}" for name, value in env.items()]
    return "\n".join([*lines, f"EnvironmentFile=-{file.replace('%', '%%')}"])


def _template(name: str) -> str:
    return files("opsmesh.cli.systemd").joinpath("templates", name).read_text("utf-8").rstrip("\n")


def _filled(text: str, values: Mapping[str, str]) -> str:
    """A part may hold places itself."""
    while _PLACE.search(text):
        text = _PLACE.sub(lambda place: values[place[1]], text)
    return text + "\n"
