"""A machine with a systemd of its own on which this checkout's opsmesh is installed in /opt, and a
person, ada, whose home outlives a reboot. Nothing of it is a stand-in but the two lines in KMSG.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.house.checkout import ROOTS, SOURCES, TOP
from tests.producers.nspawn import machine as nspawn
from tests.producers.nspawn.machine import Machine

OPSMESH = "/opt/opsmesh/bin/opsmesh"
PYTHON = "/opt/opsmesh/bin/python"
ADA = 1000
HOME = "/home/ada"
#: nspawn covers /proc/kmsg with a file that is unlinked, and over that a user's manager can mount
#: nothing (ProtectKernelLogs=): no other machine has this. The cover goes before one starts.
KMSG = "[Service]\nExecStartPre=+-/bin/umount /proc/kmsg\n"


class Host:
    """The machine, as ada uses it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def ada(self, *command: str, may_fail: bool = False) -> str:
        """Run a command as ada."""
        own = ("env", "-C", HOME, f"HOME={HOME}", *command)
        return self.machine.does_as("ada", ADA, *own, may_fail=may_fail)

    def opsmesh(self, *words: str, may_fail: bool = False) -> str:
        """`opsmesh …` as ada."""
        return self.ada(OPSMESH, *words, may_fail=may_fail)

    def status(self) -> dict[str, Any]:
        """`opsmesh status --json`, whatever its exit code."""
        told = self.opsmesh("status", "--json", may_fail=True)
        return dict(json.loads(told)) if told else {}

    def unit(self, name: str, key: str = "ActiveState") -> str:
        """A property of a unit of ada's."""
        return self.ada("systemctl", "--user", "show", "--value", f"--property={key}", name)

    def kill(self, signal: str, pid: str) -> None:
        """A signal to a process of ada's, by the shell: a minimal Debian has no `kill`."""
        self.ada("sh", "-c", f"kill -{signal} {pid}")

    def events(self, topic: str) -> list[dict[str, Any]]:
        """The events on a topic that the broker has stored."""
        told = self.opsmesh("tail", "--since", "1h", "--no-follow", "--json", "--topic", topic)
        return [json.loads(line) for line in told.splitlines()]


class Disk:
    """What of the machine outlives a reboot."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.state = self.home / ".local/state/opsmesh"
        self.etc = folder / "etc"
        drop_in = self.etc / "systemd/system/user@.service.d"
        drop_in.mkdir(parents=True)
        (drop_in / "kmsg.conf").write_text(KMSG)
        root = nspawn.rootfs()
        for name, line in (
            ("passwd", f"ada:x:{ADA}:{ADA}::{HOME}:/bin/bash"),
            ("group", f"ada:x:{ADA}:"),
            ("shadow", "ada:*:19000::::::"),
        ):
            (self.etc / name).write_text((root / "etc" / name).read_text() + line + "\n")
        for name in ("home", "linger", "opt/bin", "opt/lib"):
            (folder / name).mkdir(parents=True)
        os.chown(self.home, ADA, ADA)
        (folder / "linger/ada").touch()
        self._install()

    def _install(self) -> None:
        """A virtual environment as `python -m venv /opt/opsmesh` makes it, of this one's packages;
        the code is this checkout's."""
        opt, version = self.folder / "opt", f"python{sys.version_info[0]}.{sys.version_info[1]}"
        (opt / "bin/python").symlink_to(version)
        (opt / "bin/python3").symlink_to(version)
        (opt / "bin" / version).symlink_to(f"/opt/python/bin/{version}")
        shutil.copy(TOP / "cli/opsmesh/cli/launcher.sh", opt / "bin/opsmesh")
        (opt / "bin/opsmesh").chmod(0o755)
        shutil.copy(Path(sys.executable).with_name("nats-server"), opt / "bin/nats-server")
        (opt / "pyvenv.cfg").write_text("home = /opt/python/bin\n")
        self.packages = Path("lib", version, "site-packages")
        (opt / self.packages).mkdir(parents=True)
        roots = "\n".join(f"/opt/checkout/{root}" for root in (*ROOTS, *SOURCES))
        (self.folder / "_opsmesh.pth").write_text(roots)

    def binds(self) -> list[str]:
        """How nspawn puts it into the machine."""
        real, into = self.folder, f"/opt/opsmesh/{self.packages}"
        packages = Path(sys.prefix) / self.packages
        base = Path(os.path.realpath(sys.base_prefix))
        # a Python that looks for its library where it was built finds it where all look, then
        shared = [lib for lib in (base / "lib").glob("libpython*.so*") if not lib.is_symlink()]
        return [
            f"--bind-ro={real}/opt:/opt/opsmesh",
            f"--bind-ro={packages}:{into}",
            f"--bind-ro={real}/_opsmesh.pth:{into}/_opsmesh.pth",
            f"--bind-ro={base}:/opt/python",
            *(f"--bind-ro={lib}:/usr/lib/{lib.name}" for lib in shared),
            f"--bind-ro={TOP}:/opt/checkout",
            f"--bind={self.home}:{HOME}",
            f"--bind={real}/linger:/var/lib/systemd/linger",
            f"--overlay=+/etc:{self.etc}:/etc",
        ]


@contextmanager
def booted(disk: Disk) -> Iterator[Host]:
    """The machine, up and running, ada's manager too; it is powered off at the end."""
    with nspawn.booted(disk.folder, binds=disk.binds()) as machine:
        yield Host(machine)


def settled(host: Host) -> Callable[[], bool]:
    """Whether the mesh is well."""
    return lambda: host.status().get("verdict") == "ok"
