"""The process of a stdio server: how it is started, what is kept of it, and how it ends.

A server outlives the step that asked for it, so it is on no step's leash but on one of its own,
named after this process: what a killed handlers process left behind is ended by the next one
(`sweep`). Its own child dies with it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from opsmesh.handlers import leash
from opsmesh.handlers.errors import Unstartable
from opsmesh.handlers.leash import Leash
from opsmesh.handlers.process import signal_name, startable
from opsmesh.handlers.procfs import proc
from opsmesh.router import paths

#: Bytes kept of standard error, for the text of errors.
STDERR_LIMIT: Final = 8 * 1024
#: Characters of its last line that an error quotes.
QUOTED: Final = 300
#: Seconds for each of: to end when its input ends, after TERM, after KILL.
GRACE_S: Final = 1.0
#: Bytes read at a time, and seconds of rest after a full read of standard error: what floods is
#: slowed down, and does not take the handlers' time.
CHUNK: Final = 64 * 1024
REST_S: Final = 0.01

_LOOK_S: Final = 0.02
#: prctl(2)
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

_numbers = itertools.count(1)


def folder() -> Path:
    """Where the leashes of servers are."""
    return Path(paths.state_dir(), "work", "mcp")


class Program:
    """One running server; its output is read by `mcp.stdio`."""

    def __init__(self, process: subprocess.Popen[bytes], tie: Leash) -> None:
        self._process = process
        self._leash = tie
        self._said: deque[bytes] = deque()
        self._kept = 0
        self._listening: asyncio.Task[None] | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self.pid = process.pid

    @classmethod
    def start(cls, name: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Program:
        """Start it; Unstartable when that cannot be."""
        words = tuple(argv)
        if any("\0" in word for word in words):
            raise Unstartable(words, "an argument holds a NUL byte, which no program can take")
        if not cwd.is_dir():
            raise Unstartable(words, f"the working directory {str(cwd)!r} is not there")
        tie = Leash(folder() / f"{_me()}.{name}.{next(_numbers)}")
        try:
            with tie.starting() as held:
                process = _popen(words, env=env, cwd=cwd, held=held)
                tie.started(held, process.pid)
        except Unstartable:
            tie.path.unlink(missing_ok=True)
            raise
        return cls(process, tie)

    async def pipes(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Its standard output and input; standard error is read from now on."""
        loop = asyncio.get_running_loop()
        output, said = asyncio.StreamReader(CHUNK), asyncio.StreamReader(CHUNK)
        for reader, pipe in ((output, self._process.stdout), (said, self._process.stderr)):
            transport, _ = await loop.connect_read_pipe(
                lambda reader=reader: asyncio.StreamReaderProtocol(reader),  # type: ignore[misc]
                pipe,
            )
            self._transports.append(transport)
        way, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), self._process.stdin
        )
        self._transports.append(way)
        self._listening = asyncio.create_task(self._listen(said), name=f"mcp stderr {self.pid}")
        return output, asyncio.StreamWriter(way, protocol, None, loop)

    async def _listen(self, said: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while chunk := await said.read(CHUNK):
                self._said.append(chunk[-STDERR_LIMIT:])
                self._kept += len(self._said[-1])
                while self._kept - len(self._said[0]) >= STDERR_LIMIT:
                    self._kept -= len(self._said.popleft())
                if len(chunk) >= CHUNK // 2:
                    await asyncio.sleep(REST_S)

    @property
    def stderr(self) -> str:
        """The end of what it wrote to standard error."""
        return b"".join(self._said)[-STDERR_LIMIT:].decode(errors="replace")

    def last_line(self) -> str:
        """The last line of that, cut off."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return lines[-1].strip()[:QUOTED] if lines else ""

    def ended(self, otherwise: str = "wrote nothing more, and did not end") -> str:
        """How it ended, with its last words."""
        code = self._code()
        if code is None:
            how = otherwise
        elif code < 0:
            how = f"was killed by {signal_name(-code)}"
        else:
            how = f"ended with exit code {code}"
        said = self.last_line()
        return f"{how}: {said}" if said else how

    async def gone(self, seconds: float) -> bool:
        """Whether it has ended, within so many seconds. It stays unreaped: its group is its own."""
        until = asyncio.get_running_loop().time() + seconds
        while self._code() is None:
            if asyncio.get_running_loop().time() >= until:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    async def last_said(self, seconds: float) -> None:
        """Return when it has ended and its last words are read, or after so many seconds each."""
        if await self.gone(seconds) and self._listening is not None:
            await asyncio.wait([self._listening], timeout=seconds)

    async def stop(self, *, at_once: bool = False) -> None:
        """End it and all of its group, and let go of its pipes. Its input has been closed before.

        The order is the protocol's: https://modelcontextprotocol.io/specification/2025-11-25/basic/lifecycle#shutdown
        """
        try:
            if not at_once and not await self.gone(GRACE_S):
                self._signal(signal.SIGTERM)
                await self.gone(GRACE_S)
        finally:
            self._signal(signal.SIGKILL)
            with contextlib.suppress(asyncio.CancelledError):
                await self.gone(GRACE_S)
            self._process.poll()
            if self._listening is not None:
                self._listening.cancel()
            for transport in self._transports:
                transport.close()
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:  # one that was never given to the loop is still ours
                    with contextlib.suppress(OSError):
                        pipe.close()
            self._leash.path.unlink(missing_ok=True)

    def _code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self._process.returncode is not None:
            return self._process.returncode
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return 0
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


async def sweep(where: Path) -> None:
    """End the servers of handlers that are gone."""
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(where.iterdir()):
            pid, _, rest = path.name.partition(".")
            owner = proc(int(pid)) if pid.isdigit() else None
            if owner is not None and rest.startswith(f"{owner.start}."):
                continue
            with contextlib.suppress(OSError, ValueError):
                await leash.clear(path, spare=os.getpid())
                path.unlink(missing_ok=True)


def _me() -> str:
    found = proc(os.getpid())
    return f"{os.getpid()}.{found.start if found else 0}"


def _popen(
    argv: tuple[str, ...], *, env: Mapping[str, str], cwd: Path, held: int
) -> subprocess.Popen[bytes]:
    with startable(argv, env):
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            bufsize=0,
            start_new_session=True,
            pass_fds=(held,),
            preexec_fn=_in_child(os.getpid()),
        )


def _in_child(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before prctl could take effect
            os._exit(1)

    return prepare
