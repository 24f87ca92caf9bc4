"""A real `systemd --user` of a test's own, with control groups and a mount namespace of its own.

It needs root (or CAP_SYS_ADMIN) and cgroup v2 in the kernel. Nothing of the machine's own systemd,
if there is one, is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from opsmesh.handlers.sandbox import prepare

SYSTEMD = Path("/lib/systemd/systemd")

#: $1: the name of a control group, $2: the manager.
_BEGIN = """
set -e
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$1/manager"
echo $$ >"/sys/fs/cgroup/$1/manager/cgroup.procs"
# sd_booted(3) looks for it
mount -t tmpfs none /run/systemd
mkdir /run/systemd/system
exec "$2" --user
"""
_END = """
mount -t cgroup2 none /sys/fs/cgroup
for n in 1 2 3 4 5 6 7 8 9 10; do
    for p in $(find "/sys/fs/cgroup/$1" -name cgroup.procs -exec cat {} +); do kill -9 "$p"; done
    find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} + 2>/dev/null && exit 0
    sleep 0.1
done
"""


class CannotStart(Exception):
    """Why there is no manager here."""


@contextlib.contextmanager
def user_manager(runtime: Path) -> Iterator[None]:
    """A manager that `systemd-run --user` finds while $XDG_RUNTIME_DIR is `runtime`."""
    if not SYSTEMD.exists() or shutil.which("systemd-run") is None:
        raise CannotStart("systemd is not installed")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise CannotStart("a manager of a test's own needs root")
    group = f"opsmesh-test-{os.getpid()}"
    within = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c"]
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("DBUS_", "NOTIFY_"))},
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",  # a test's own may hold tripwires
    }
    manager = subprocess.Popen(
        [*within, _BEGIN, "sh", group, str(SYSTEMD)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 15
        while not _answers(env):
            if manager.poll() is not None or time.monotonic() > until:
                raise CannotStart("systemd --user does not start here")
            time.sleep(0.05)
        prepare.forget()
        yield
    finally:
        prepare.forget()
        with contextlib.suppress(ProcessLookupError):
            manager.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            manager.wait(5)
        manager.kill()
        manager.wait()
        subprocess.run([*within, _END, "sh", group], env=env, check=False, capture_output=True)


def _answers(env: dict[str, str]) -> bool:
    if not Path(env["XDG_RUNTIME_DIR"], "systemd/private").exists():
        return False
    asked = ["systemctl", "--user", "show", "--property=Version"]
    return subprocess.run(asked, env=env, check=False, capture_output=True).returncode == 0
