"""bubblewrap's command line: a program that sees its system's programs, its own folder and little
else. Pure but for looking which of the system's folders there are.

No home, no runtime folder (session bus, service manager, agents of keys), a /tmp of its own, no
process but its own, no network unless declared; no variable that only means something outside.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from opsmesh.handlers.sandbox.confinement import Confinement, Shown

#: Programs and what they are linked to.
SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
#: What programs look up: names of users and services, certificates, time zone, dynamic linking.
ETC: Final = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols"),
    *("/etc/localtime", "/etc/timezone", "/etc/os-release"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/pki"),
)
#: And how names of hosts are resolved.
ETC_NETWORK: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf")
#: The home inside.
HOME: Final = "/tmp"  # noqa: S108 (a folder of the sandbox's own)
#: Variables that mean something inside too.
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "TZ", "USER")


def command(
    argv: list[str], *, confinement: Confinement, shown: Shown, workdir: Path, cwd: Path
) -> list[str]:
    """The command line that runs `argv` confined."""
    line = ["bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    if confinement.network:
        line.append("--share-net")
    for folder in SYSTEM:
        line += _system(folder)
    for file in (*ETC, *(ETC_NETWORK if confinement.network else ())):
        line += ["--ro-bind-try", os.path.realpath(file), file]
    line += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/run"]  # noqa: S108
    binds = [(path, "--ro-bind") for path in shown.read]
    binds += [(path, "--bind") for path in (*shown.write, workdir)]
    for path, bind in sorted(binds, key=lambda one: len(one[0].parts)):  # what lies in another last
        line += [bind, str(path), str(path)]
    return [*line, "--chdir", str(cwd), "--", *argv]


def environment(env: Mapping[str, str], own: frozenset[str]) -> dict[str, str]:
    """What is left of a program's environment. `own` are the names that the step itself sets."""
    kept = {name: value for name, value in env.items() if name in _KEPT or name in own}
    return {"HOME": HOME, **kept}


def sees(program: Path, shown: Shown) -> bool:
    """Whether a program's file is there inside."""
    return any(program.is_relative_to(path) for path in SYSTEM) or shown.has(program)


def _system(path: str) -> list[str]:
    """/bin and its like are links into /usr on most systems, and folders on others."""
    if not os.path.lexists(path):
        return []
    if Path(path).is_symlink():
        return ["--symlink", str(Path(path).readlink()), path]
    return ["--ro-bind", path, path]
