"""Whose terminal a process is in: real processes, on a real terminal and without one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from opsmesh.producers.agents import lineage

#: Says which session it is in, as a hook of an agent would.
ASKS = "import os; from opsmesh.producers.agents.lineage import session_of"
SAYS = f"{ASKS}; print(session_of(os.getpid(), os.environ), flush=True)"
#: The same, of a process that has left everybody: a daemon.
DAEMON = f"""
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
while os.getppid() not in (1, *{{reapers}}):
    pass
{ASKS}
print(session_of(os.getpid(), os.environ), flush=True)
"""
IN_TMUX = {"TERM": "tmux-256color", "TMUX": "/tmp/tmux-0/work,1,3", "XDG_SESSION_ID": "7"}


def reapers() -> list[int]:
    """Those of this process's ancestors that may take over an orphan."""
    found, pid = [], os.getpid()
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPSMESH_")}
    for name in ("STY", "ZELLIJ_SESSION_NAME", "KITTY_WINDOW_ID", "WEZTERM_PANE"):
        kept.pop(name, None)
    return {**kept, **IN_TMUX, **more}


def test_a_process_on_a_terminal_is_in_its_session() -> None:
    """With a terminal the environment says which session it is."""
    pid, terminal = pty.fork()
    if not pid:
        os.execve(sys.executable, [sys.executable, "-c", SAYS], environment())
    with os.fdopen(terminal, "rb", buffering=0) as file:
        assert file.readline().decode().strip() == "tmux:work:$3"
    os.waitpid(pid, 0)


def test_a_daemon_is_in_nobodys_terminal() -> None:
    """What was started by another terminal's program, long ago, is of the login session, unless a
    person has said which it is."""
    code = DAEMON.format(reapers=reapers())
    for more, session in (({}, "7"), ({"OPSMESH_SESSION": "desk"}, "desk")):
        if any(lineage.has_terminal(pid) for pid in reapers()[-1:]):
            pytest.skip("the first process here has a terminal itself")
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(**more),
            capture_output=True,
            text=True,
            timeout=180,
            check=True,
        )
        assert done.stdout.strip() == session, done.stderr


def test_who_has_a_file_open(tmp_path: Path) -> None:
    """A process is found by a file that it has open, and by its name."""
    path = tmp_path / "file"
    name = Path("/proc/self/comm").read_text().strip()
    with path.open("w"):
        assert lineage.holder(str(path), (name,)) == os.getpid()
        assert lineage.holder(str(path), ("codex",)) is None
    assert lineage.holder(str(path), (name,)) is None


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    """An environment that cannot be read is empty."""
    process = subprocess.Popen(["true"])
    process.wait()
    assert lineage.environment(process.pid) == {}
    assert not lineage.has_terminal(process.pid)
