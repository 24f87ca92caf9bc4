"""Running programs: limits, groups, cancellation."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, limited, run

from opsmesh.handlers import process
from opsmesh.handlers.errors import Unstartable

ENV = process.minimal_environment()


def gone(pid: int) -> bool:
    """Whether the process has ended; one that only waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def sh(script: str, **options: Any) -> process.ProcessResult:
    result = run(process.run(["sh", "-c", script], env=ENV, **options))
    assert isinstance(result, process.ProcessResult)
    return result


def test_result() -> None:
    """A program's exit code, output and time are told."""
    result = sh("echo out; echo err >&2; exit 3")
    assert (result.exit_code, result.signal, result.timed_out) == (3, None, False)
    assert (result.stdout_tail, result.stderr_tail) == ("out\n", "err\n")
    assert result.duration_ms > 0
    assert not result.ok


def test_signal() -> None:
    """A program that a signal ended has its name and no exit code."""
    result = sh("kill -USR1 $$")
    assert (result.exit_code, result.signal) == (None, "SIGUSR1")


def test_time_limit() -> None:
    """A program over its time limit is stopped, and did not end well."""
    result = sh("exec sleep 60", timeout=0.1)
    assert (result.timed_out, result.ok, result.exit_code) == (True, False, None)
    assert result.signal == "SIGTERM"


@pytest.mark.parametrize(
    "deaf",
    [
        "trap '' TERM; echo begun; sleep 60 & wait",
        "(until grep -q '^State:.T' /proc/$$/status; do :; done; echo begun) & kill -STOP $$",
    ],
    ids=["ignores it", "stopped"],
)
def test_time_limit_of_the_deaf(deaf: str) -> None:
    """A program that ignores TERM, or is stopped and cannot hear it, is killed."""
    result = limited(
        lambda seconds: sh(deaf, timeout=seconds, grace=0.05), lambda one: one.stdout_tail
    )
    assert (result.timed_out, result.signal) == (True, "SIGKILL")
    assert result.stdout_tail == "begun\n"


def test_children_left_behind() -> None:
    """A child that outlives its program is killed, and its open pipe is not waited for."""
    result = sh("sleep 60 & echo $!")
    assert result.ok
    run(eventually(lambda: gone(int(result.stdout_tail))))


def test_stranger_with_the_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that left for a session of its own cannot keep the run from ending."""
    monkeypatch.setattr(process, "DRAIN_S", 0.05)
    pid = tmp_path / "pid"
    result = sh(f"setsid sh -c 'echo $$ > {pid}; exec sleep 60' & until [ -s {pid} ]; do :; done")
    assert result.ok
    os.kill(int(pid.read_text()), signal.SIGKILL)


async def cancelled(script: str, ready: Path, *, grace: float = process.GRACE_S) -> None:
    """Run a script, cancel it when it has made the file, and wait until it gives up."""
    task = asyncio.create_task(process.run(["sh", "-c", script], env=ENV, grace=grace))
    await eventually(ready.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_cancellation(tmp_path: Path) -> None:
    """A cancelled run ends its whole group, also who ignores TERM."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"
    run(cancelled(script, pids, grace=0.05))
    for pid in pids.read_text().split():
        run(eventually(lambda pid=pid: gone(int(pid))))


def test_who_cancels_may_insist(tmp_path: Path) -> None:
    """A run that is cancelled again and again, as tasks that do not end at once are, still ends its
    whole group."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"

    async def body() -> None:
        running = process.run(["sh", "-c", script], env=ENV, grace=0.5)
        task = asyncio.create_task(running)
        await eventually(pids.exists)
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.05)
        assert task.cancelled()

    run(body())
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_term_comes_first(tmp_path: Path) -> None:
    """A program may clean up after TERM before its run gives up."""
    ready, cleaned = tmp_path / "ready", tmp_path / "cleaned"
    run(cancelled(f"trap 'touch {cleaned}; exit' TERM; touch {ready}; sleep 60 & wait", ready))
    assert cleaned.exists()


def test_output_limit() -> None:
    """Of output over the limit the end is kept, and the program is not held up."""
    result = sh("head -c 5000000 /dev/zero; echo end", output_limit=100)
    assert len(result.stdout) == 100
    assert result.stdout.endswith(b"\0end\n")
    assert result.truncated
    assert result.ok


def test_closed_output() -> None:
    """A program that closes its output early is waited for all the same."""
    result = sh("exec >&- 2>&-; sleep 0.3; exit 5")
    assert result.exit_code == 5
    assert result.duration_ms >= 300


def test_flood() -> None:
    """A gigabyte of output costs no more memory than a megabyte."""
    script = """
import asyncio, resource, sys
from opsmesh.handlers import process
shell = "head -c {0} /dev/zero; head -c {0} /dev/zero >&2; echo end".format(sys.argv[1])
result = asyncio.run(process.run(["sh", "-c", shell], env=process.minimal_environment()))
assert result.ok and result.truncated and result.stdout.endswith(b"\\0end\\n")
print(len(result.stdout), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for amount in ("1M", "512M"):
        done = subprocess.run(
            [sys.executable, "-c", script, amount], check=True, capture_output=True, text=True
        )
        kept, peak = map(int, done.stdout.split())
        assert kept == process.OUTPUT_LIMIT
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 4 * 1024  # KiB


def test_stdin(tmp_path: Path) -> None:
    """A program reads the given file, and nothing without one."""
    file = tmp_path / "in"
    file.write_bytes(b"hello")
    assert run(process.run(["cat"], env=ENV, stdin=file)).stdout == b"hello"
    assert run(process.run(["cat"], env=ENV)).stdout == b""


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program sees neither our secrets nor the mesh's address."""
    monkeypatch.setenv("API_TOKEN", "x")
    monkeypatch.setenv("NATS_URL", "x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp/x")
    env = process.minimal_environment()
    assert "API_TOKEN" not in env
    assert "NATS_URL" not in env
    assert env["XDG_RUNTIME_DIR"] == "/tmp/x"


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["no-such-command-here"], "command 'no-such-command-here' is not found in PATH"),
        (["/no/such"], "command '/no/such' is not found at that path"),
        (["/"], "command '/' is not executable"),
        (["echo", "a\0b"], "argument 1 holds a NUL byte"),
        ([], "the argument list is empty"),
    ],
)
def test_unstartable(argv: list[str], reason: str) -> None:
    """A program that cannot be started is an error with its reason."""
    with pytest.raises(Unstartable) as caught:
        run(process.run(argv, env=ENV))
    assert caught.value.reason.startswith(reason)
