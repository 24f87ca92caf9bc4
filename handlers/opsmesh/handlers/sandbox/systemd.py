"""systemd-run's command lines: a service that is confined, or a scope that is only limited.

What an event holds must not be read by systemd: `$` would name a variable (systemd.service(5),
"Command lines"), and variables go by a file that only this process has open, not by `--setenv`,
which every process could read in the arguments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from opsmesh.handlers.errors import Unstartable
from opsmesh.handlers.sandbox import host
from opsmesh.handlers.sandbox.confinement import Confinement, Shown
from opsmesh.handlers.sandbox.units import Unit

#: systemd-run(1): the option is there since 254; before it, services expand and scopes do not.
_HAS_EXPAND: Final = 254
#: systemd.exec(5), for every confined service. A user's manager can do most of it only with user
#: namespaces, which PrivateUsers= makes.
PROPERTIES: Final = (
    "PrivateUsers=yes",
    "ProtectSystem=strict",
    "ProtectHome=tmpfs",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    # ProtectKernelTunables=, without the files in /proc that not every kernel can cover
    "ReadOnlyPaths=-/proc/sys -/proc/sysrq-trigger -/sys",
    "ProtectControlGroups=yes",
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictSUIDSGID=yes",
    "KeyringMode=private",
    # sockets of session bus, managers, containers: who reaches one is outside
    "TemporaryFileSystem=/run",
    # PrivateDevices= leaves the host's, where others keep files and shared memory
    "TemporaryFileSystem=/dev/shm:mode=1777",
    "BindReadOnlyPaths=-/run/current-system",
)
_UNFIT = re.compile(r'[%"\\:\x00-\x1f\x7f]')
#: What env_value_is_valid() of systemd drops in silence.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
#: Each of them with a backslash before it.
BACK: Final = r"\\\1"
_QUOTED = re.compile(r'(["\\`$])')


def service(
    argv: Sequence[str],
    *,
    unit: Unit,
    confinement: Confinement,
    shown: Shown,
    hidden: Sequence[Path],
    workdir: Path,
    cwd: Path,
    environment: str,
    unset: Sequence[str],
    limit_s: float | None,
    grace_s: float,
) -> list[str]:
    """The command line that runs `argv` as a confined service and waits for it. `environment` is
    the file of its variables, `unset` the manager's own."""
    for place, argument in enumerate(argv):
        _text(argument, f"argument {place}")
    line = ["systemd-run", unit.manager, "--quiet", "--pipe", "--wait", "--collect"]
    line += ["--service-type=exec", f"--unit={unit.name}", f"--working-directory={cwd}"]
    properties = [*PROPERTIES, *_limits(confinement)]
    properties += [f"TimeoutStopSec={max(grace_s, 0.1):g}", f"EnvironmentFile={environment}"]
    if unset:
        properties.append(f"UnsetEnvironment={' '.join(unset)}")
    if limit_s is not None:  # nobody may be left to stop it
        properties.append(f"RuntimeMaxSec={limit_s + grace_s:g}")
    if confinement.network:
        properties.append("BindReadOnlyPaths=-/run/systemd/resolve")
    else:
        properties.append("PrivateNetwork=yes")
    properties += [f"InaccessiblePaths=-{_path(path)}" for path in hidden]
    properties += [f"BindReadOnlyPaths={_path(path)}" for path in shown.read]
    properties += [f"BindPaths={_path(path)}" for path in (*shown.write, workdir)]
    for one in properties:
        line += ["-p", one]
    if host.systemd_version() >= _HAS_EXPAND:
        return [*line, "--expand-environment=no", "--", *argv]
    return [*line, "--", *(argument.replace("$", "$$") for argument in argv)]


def scope(argv: Sequence[str], *, unit: Unit, confinement: Confinement) -> list[str]:
    """The command line that runs `argv` as our own child within limits."""
    line = ["systemd-run", unit.manager, "--quiet", "--scope", "--collect", f"--unit={unit.name}"]
    for one in _limits(confinement):
        line += ["-p", one]
    if host.systemd_version() >= _HAS_EXPAND:
        line.append("--expand-environment=no")
    return [*line, "--", *argv]


def variables(env: Mapping[str, str]) -> bytes:
    """An EnvironmentFile= (systemd.exec(5)) that gives these values and no others."""
    lines = []
    for name, value in env.items():
        if _CONTROL.search(value):
            raise Unstartable(
                (),
                f"the variable {name} holds a control character, which systemd does not hand on; "
                "give it in stdin, or use the sandbox bwrap",
            )
        lines.append(f'{name}="{_QUOTED.sub(BACK, _text(value, f"the variable {name}"))}"\n')
    return "".join(lines).encode()


def _text(value: str, what: str) -> str:
    """A text that systemd takes; it drops a variable, and refuses an argument, that is none."""
    if any(_is_none(character) for character in value):
        raise Unstartable((), f"{what} holds what is no character to systemd")
    return value


def _is_none(character: str) -> bool:
    # unichar_is_valid() of systemd: no surrogates, and none of Unicode's noncharacters
    code = ord(character)
    return 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE


def _limits(confinement: Confinement) -> list[str]:
    found = []
    if confinement.memory is not None:
        found += [f"MemoryMax={confinement.memory}", "MemorySwapMax=0"]
    if confinement.cpu is not None:
        found.append(f"CPUQuota={confinement.cpu:g}%")
    if confinement.tasks is not None:
        found.append(f"TasksMax={confinement.tasks}")
    return found


def _path(path: Path) -> str:
    """A path in a list of them; Unstartable for one that systemd would read as something else."""
    text = str(path)
    if _UNFIT.search(text):
        raise Unstartable((), f"{text!r} holds a character that has a meaning to systemd")
    return f'"{text}"' if " " in text or "'" in text else text
