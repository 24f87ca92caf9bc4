"""A machine with a systemd of its own: a Debian, bootstrapped once, booted by systemd-nspawn.

The root file system is kept in $XDG_CACHE_HOME/opsmesh-tests and never written to: what the machine
changes lies in memory. Its journal lies in a folder of the test's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.producers.agent import until

HERE = Path(__file__).parent
SCRIPTS = Path("/usr/share/debootstrap/scripts")
#: systemd-coredump stays out: installing it rewrites the host's core_pattern.
PACKAGES = "systemd,systemd-sysv,dbus,libpam-systemd"
#: What is bootstrapped where the host is no Debian or Ubuntu itself.
RELEASE = "bookworm"


def missing() -> str | None:
    """Why no machine can be had here; None when one can."""
    if os.geteuid() != 0:
        return "needs root (systemd-nspawn)"
    tools = ("debootstrap", "systemd-nspawn", "journalctl", "nsenter")
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        return f"{absent[0]} is not installed (Debian: debootstrap systemd-container)"
    return None


def rootfs() -> Path:
    """The root file system; bootstrapped when it is not there yet, which takes minutes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name, mirror = release()
    kept = cache / "opsmesh-tests" / f"nspawn-{name}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = kept.with_name(f"{kept.name}.{os.getpid()}")
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", name, str(made)]
        done = subprocess.run([*command, *mirror], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        made.rename(kept)
    return kept


def release() -> tuple[str, list[str]]:
    """The release that this machine's own apt knows, and its mirror; else debootstrap's choice."""
    if shutil.which("apt-get"):
        ask = ["apt-get", "indextargets", "--format", "$(COMPONENT) $(RELEASE) $(REPO_URI)"]
        answer = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        for line in answer.splitlines():
            component, _, rest = line.partition(" ")
            name, _, mirror = rest.partition(" ")
            if component == "main" and (SCRIPTS / name).exists():
                return name, [mirror]
    return RELEASE, []


class Machine:
    """A booted machine; `journal` is the folder of its journal."""

    def __init__(self, leader: int, journal: Path) -> None:
        self._leader = leader
        self.journal = journal

    def does(self, *command: str, may_fail: bool = False) -> str:
        """Run a command in there, as root."""
        enter = ["nsenter", "-t", str(self._leader), "-m", "-p", "-u", "-i", "-n", "--"]
        done = subprocess.run(
            [*enter, *command], capture_output=True, text=True, timeout=180, check=False
        )
        assert may_fail or done.returncode == 0, (command, done.stdout[-2000:], done.stderr)
        return done.stdout.strip()

    def does_as(self, user: str, uid: int, *command: str, may_fail: bool = False) -> str:
        """Run a command in there as a user, who can reach a manager of their own."""
        own = ["env", f"XDG_RUNTIME_DIR=/run/user/{uid}"]
        return self.does("runuser", "-u", user, "--", *own, *command, may_fail=may_fail)


@contextmanager
def booted(folder: Path, *, binds: Sequence[str] = ()) -> Iterator[Machine]:
    """A machine with the units beside this file, up and running; what lies in `folder` from an
    earlier boot is there again. `binds`: further options of systemd-nspawn."""
    journal, console = folder / "journal", folder / "console"
    journal.mkdir(exist_ok=True)
    command = [
        "systemd-nspawn",
        "--quiet",
        f"--directory={rootfs()}",
        "--volatile=overlay",
        "--boot",
        "--private-network",
        "--register=no",
        "--keep-unit",
        f"--machine=opsmesh-test-{os.getpid()}",
        "--console=pipe",
        f"--bind={journal}:/var/log/journal",
        f"--bind-ro={HERE / 'system'}:/usr/local/lib/systemd/system",
        f"--bind-ro={HERE / 'user'}:/usr/local/lib/systemd/user",
        *binds,
    ]
    with console.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:

        def machine_is_up() -> bool:
            assert process.poll() is None, console.read_text(errors="replace")
            found = children.read_text().split()  # a helper of nspawn's own comes and goes first
            if len(found) != 1:
                return False
            ask = Machine(int(found[0]), journal).does
            return ask("systemctl", "is-system-running", may_fail=True) == "running"

        until(machine_is_up)
        machine = Machine(int(children.read_text()), journal)
        yield machine
        machine.does("systemctl", "poweroff", may_fail=True)
        process.wait(60)
    finally:
        if process.poll() is None:
            # the machine would outlive nspawn: what ends all of it is the end of its first process
            for leader in children.read_text().split():
                os.kill(int(leader), signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            process.wait()
