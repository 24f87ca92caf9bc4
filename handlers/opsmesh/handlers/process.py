"""Running one program: its own process group, a time limit, an output limit.

Whatever way `run` ends, nothing of the group is left: the whole group is killed after the time
limit, on cancellation, and when the program ends but has left children behind. A child that moved
to a session of its own (`setsid`) is out of reach here, unless it is in a unit or a sandbox. What
a step starts is on its leash, so that it is found also when this process ends before it can do any
of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sysconfig
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from opsmesh.handlers import leash
from opsmesh.handlers.errors import Unstartable
from opsmesh.handlers.sandbox import units
from opsmesh.handlers.sandbox.units import Unit

#: Seconds between TERM and KILL.
GRACE_S: Final = 2.0
#: Bytes kept of each of standard output and standard error.
OUTPUT_LIMIT: Final = 64 * 1024
#: Seconds to wait for a killed program to be gone.
KILL_WAIT_S: Final = 5.0
#: Seconds to go on reading after the group is dead: a stranger may still hold the pipe.
DRAIN_S: Final = 1.0

_PASSED: Final = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER"),
    *("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"),
)


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """How a program ended. A program killed by a signal has no exit code."""

    exit_code: int | None
    signal: str | None
    timed_out: bool
    duration_ms: float
    stdout: bytes
    stderr: bytes
    truncated: bool

    @property
    def ok(self) -> bool:
        """Ended by itself with exit code 0."""
        return self.exit_code == 0 and not self.timed_out

    @property
    def stdout_tail(self) -> str:
        """What was kept of standard output, as text."""
        return self.stdout.decode(errors="replace")

    @property
    def stderr_tail(self) -> str:
        """What was kept of standard error, as text."""
        return self.stderr.decode(errors="replace")


def minimal_environment(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a program needs to find its user, session and tools, and nothing that holds a secret."""
    found = {k: v for k, v in env.items() if k in _PASSED or k.startswith("XDG_")}
    # last: a step can call `opsmesh`, wherever it is, and nothing else of ours is preferred
    scripts = sysconfig.get_path("scripts")
    path = found.get("PATH", os.defpath)
    if scripts not in path.split(os.pathsep):
        found["PATH"] = f"{path}{os.pathsep}{scripts}"
    return found


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: Path | bytes | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 (the limit is the program's, not this call's)
    output_limit: int = OUTPUT_LIMIT,
    grace: float = GRACE_S,
    unit: Unit | None = None,
) -> ProcessResult:
    """Run `argv` to its end, or to `timeout` seconds; Unstartable when it cannot be started.

    `stdin` is a file, or what the program reads; without it, it reads nothing. `unit`
    is what the program of `argv` starts, or becomes: nothing of it is left either.
    """
    started = time.monotonic()
    process = _start(tuple(argv), env=env, cwd=cwd, stdin=stdin, unit=unit)
    ended = _ended(process.pid)
    tails: list[_Tail] = []
    timed_out = False
    try:
        for stream in (process.stdout, process.stderr):
            tails.append(await _Tail.of(stream, output_limit))  # noqa: PERF401 (kept when cancelled)
        async with asyncio.timeout(timeout):
            await asyncio.shield(ended)
    except TimeoutError:
        timed_out = True
    finally:
        await _uninterrupted(_stop(process, ended, tails, grace, unit))
    code = process.returncode
    out, err = tails
    return ProcessResult(
        exit_code=code if code is not None and code >= 0 else None,
        signal=signal_name(-code) if code is not None and code < 0 else None,
        timed_out=timed_out,
        duration_ms=round((time.monotonic() - started) * 1000, 3),
        stdout=out.kept(),
        stderr=err.kept(),
        truncated=out.truncated or err.truncated,
    )


def _start(
    argv: tuple[str, ...],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    stdin: Path | bytes | None,
    unit: Unit | None,
) -> subprocess.Popen[bytes]:
    if not argv:
        raise Unstartable(argv, "the argument list is empty")
    for index, argument in enumerate(argv):
        if "\0" in argument:
            raise Unstartable(argv, f"argument {index} holds a NUL byte, which no program can take")
    if cwd is not None and not cwd.is_dir():
        raise Unstartable(argv, f"the working directory {str(cwd)!r} is not there")
    with contextlib.ExitStack() as stack:
        tie = leash.current()
        held = None if tie is None else stack.enter_context(tie.starting())
        if tie is not None and held is not None and unit is not None:
            tie.unit(held, unit)  # before there is one: we may not live to tell
        process = _popen(
            argv, env=env, cwd=cwd, stdin=stdin, pass_fds=() if held is None else (held,)
        )
        if tie is not None and held is not None:
            tie.started(held, process.pid)
        return process


@contextlib.contextmanager
def startable(argv: tuple[str, ...], env: Mapping[str, str]) -> Iterator[None]:
    """Unstartable, with the reason, for whatever keeps a program from being started in here."""
    try:
        yield
    except FileNotFoundError as error:
        where = f"in PATH {env.get('PATH', '')!r}" if "/" not in argv[0] else "at that path"
        raise Unstartable(argv, f"command {argv[0]!r} is not found {where}") from error
    except PermissionError as error:
        raise Unstartable(argv, f"command {argv[0]!r} is not executable") from error
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise Unstartable(argv, f"command {argv[0]!r} cannot be started: {error}") from error


def _popen(
    argv: tuple[str, ...],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    stdin: Path | bytes | None,
    pass_fds: tuple[int, ...],
) -> subprocess.Popen[bytes]:
    # Not asyncio's subprocess: its wait() goes on, in Python 3.11, while a grandchild holds a pipe.
    with startable(argv, env), contextlib.ExitStack() as stack:
        source = subprocess.DEVNULL if stdin is None else stack.enter_context(_input(stdin))
        return subprocess.Popen(
            argv,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            bufsize=0,
            start_new_session=True,
            pass_fds=pass_fds,
        )


def _input(stdin: Path | bytes) -> IO[bytes]:
    if isinstance(stdin, Path):
        return stdin.open("rb")
    # no pipe, which would have to be fed, and nothing on a disk
    file = os.fdopen(os.memfd_create("stdin", os.MFD_CLOEXEC), "w+b")
    file.write(stdin)
    file.seek(0)
    return file


def _ended(pid: int) -> asyncio.Future[None]:
    """Done when the process has ended. It stays unreaped: its process group's id stays its own."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def done() -> None:
        if not future.done():
            future.set_result(None)

    def wait() -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed, nobody asks any more
            loop.call_soon_threadsafe(done)

    threading.Thread(target=wait, name=f"wait-{pid}", daemon=True).start()
    return future


async def _stop(
    process: subprocess.Popen[bytes],
    ended: asyncio.Future[None],
    tails: list[_Tail],
    grace: float,
    unit: Unit | None,
) -> None:
    """End what is left of the group, then the reading of its output."""
    if unit is not None:
        left = await asyncio.to_thread(units.pids, unit.name)
        if left or not ended.done():
            await unit.stop(grace)
    if not ended.done():
        _signal_group(process.pid, signal.SIGTERM)
        await asyncio.wait([ended], timeout=grace)
    _signal_group(process.pid, signal.SIGKILL)
    # A program of another user (sudo) cannot be killed; it is left, and reported as timed out.
    await asyncio.wait([ended], timeout=KILL_WAIT_S)
    process.poll()
    reading = [tail.closed for tail in tails if not tail.closed.done()]
    if reading:
        await asyncio.wait(reading, timeout=DRAIN_S)
    for tail in tails:
        tail.stop()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Finish `work` even when the task is cancelled meanwhile; then pass the cancellation on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:  # perhaps not the first: who cancels may insist
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def signal_name(number: int) -> str:
    """A signal as people know it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Tail(asyncio.Protocol):
    """The last `limit` bytes of a pipe, in memory bounded by twice that and one read."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.ReadTransport | None = None
        self._data = bytearray()

    @classmethod
    async def of(cls, pipe: IO[bytes] | None, limit: int) -> _Tail:
        loop = asyncio.get_running_loop()
        tail = cls(limit)
        tail._transport, _ = await loop.connect_read_pipe(lambda: tail, pipe)
        return tail

    def data_received(self, data: bytes) -> None:
        self.total += len(data)
        self._data += data
        if len(self._data) > 2 * self.limit:
            del self._data[: len(self._data) - self.limit]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def kept(self) -> bytes:
        return bytes(self._data[max(0, len(self._data) - self.limit) :])

    @property
    def truncated(self) -> bool:
        return self.total > self.limit
