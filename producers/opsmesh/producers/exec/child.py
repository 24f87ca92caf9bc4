"""Runs a command, passes its output through as it comes, and keeps the end of it.

Three ways, after what we were given:
- standard input and output are terminals: the command gets a pseudo terminal of its own;
- only standard input is one: the command stays in our process group, as if run by the shell, for
  it may ask for a password, and a pager behind us must keep the terminal;
- neither: a session of its own, and the signals that we get are passed on to all of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Final

from opsmesh.producers.exec import terminal
from opsmesh.producers.exec.limit import Limit, send
from opsmesh.producers.exec.pump import Pump
from opsmesh.producers.waking import waking

#: Signals that end or steer a command, passed on to it.
PASSED_ON: Final = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
#: Seconds between two looks at what outlives the command after its time limit.
OTHERS: Final = 0.05
#: What a terminal sends for Ctrl-C.
INTERRUPT: Final = b"\x03"
STDIN, STDOUT, STDERR = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the command ended. `status` is its exit code, or minus the signal that ended it.

    `interrupted`: Ctrl-C was the last thing that its user did to it.
    """

    status: int
    duration_ms: float
    pid: int
    output_tail: str
    timed_out: bool = False
    stopped_by: str | None = None
    output_closed: bool = False
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """The exit code for the shell: 124 after a time limit, 128 + n after signal n."""
        if self.timed_out:
            return 124
        return 128 - self.status if self.status < 0 else self.status

    @property
    def signal(self) -> str | None:
        """The signal that ended the command."""
        return signal.Signals(-self.status).name if self.status < 0 else None


def run(
    argv: Sequence[str], *, env: Mapping[str, str], timeout: float | None = None, grace: float = 5.0
) -> Outcome:
    """Run the command to its end. OSError when it cannot be started."""
    pump, started = Pump(), time.monotonic()
    own_tty = _is_ours(STDIN) and os.isatty(STDOUT)
    group = own_tty or not os.isatty(STDIN)
    with contextlib.ExitStack() as stack:
        stack.callback(pump.close)
        child = _start(argv, env, pump, stack, own_tty=own_tty, session=group)
        interrupted = stack.enter_context(_passing_on(child.pid, group=group))
        limit = None
        if timeout is not None:
            limit = Limit(timeout, grace, child.pid, group=group)
            limit.start()
        ended, exited = _exit_pipe(child, stack)
        pump.wake_on(ended)
        while not exited.is_set():
            pump.turn(None)
        if limit is not None:
            limit.ended()
            while limit.waits():
                pump.turn(0)
                time.sleep(OTHERS)
            limit.close()
        pump.drain()  # what it wrote before it ended
    return Outcome(
        status=child.returncode,
        duration_ms=round((time.monotonic() - started) * 1000, 3),
        pid=child.pid,
        output_tail=pump.tail(),
        timed_out=limit is not None and limit.used is not None,
        stopped_by=limit.used.name if limit is not None and limit.used else None,
        output_closed=pump.closed,
        interrupted=bool(interrupted) or pump.last_key == INTERRUPT,
    )


def _is_ours(real: int) -> bool:
    """Whether it is a terminal, and we are in its foreground."""
    return os.isatty(real) and os.tcgetpgrp(real) == os.getpgrp()


def _start(
    argv: Sequence[str],
    env: Mapping[str, str],
    pump: Pump,
    stack: contextlib.ExitStack,
    *,
    own_tty: bool,
    session: bool,
) -> subprocess.Popen[bytes]:
    theirs: list[int] = []
    terminals: list[int] = []

    def output(real: int) -> int:
        if os.isatty(real):
            ours, end = terminal.open_for_output(real)
            terminals.append(ours)
        else:
            ours, end = os.pipe()
        theirs.append(end)
        pump.add(ours, real, keep=True)
        return end

    stdin: int | None = None
    setup = None
    if own_tty:
        ours, end = terminal.open_like(STDIN)
        theirs.append(end)
        terminals.append(ours)
        pump.add(ours, STDOUT, keep=True)
        stdin = stdout = end
        stderr = end if os.isatty(STDERR) else output(STDERR)
        setup = _take_terminal
    else:
        stdout = output(STDOUT)  # one file for both keeps the order of what is written to it
        stderr = stdout if os.path.sameopenfile(STDOUT, STDERR) else output(STDERR)
    try:
        child = subprocess.Popen(
            argv,
            env=dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=session,
            preexec_fn=setup,  # noqa: PLW1509, RUF100 (no thread runs yet)
        )
    finally:
        for end in theirs:
            os.close(end)
    if own_tty:
        stack.enter_context(terminal.raw(STDIN))
        pump.add(STDIN, terminals[0], keep=False)
    for ours in terminals:
        stack.enter_context(
            terminal.following_size(
                STDOUT if os.isatty(STDOUT) else STDERR,
                ours,
                lambda: send(child.pid, signal.SIGWINCH, group=session),
            )
        )
    return child


def _take_terminal() -> None:
    """Make standard input the controlling terminal of the session that has just begun."""
    fcntl.ioctl(STDIN, termios.TIOCSCTTY, 0)


def _exit_pipe(
    child: subprocess.Popen[bytes], stack: contextlib.ExitStack
) -> tuple[int, threading.Event]:
    """A descriptor that can be read, and an event that is set, once the command has ended."""
    ended, tell = os.pipe()
    exited = threading.Event()
    stack.callback(os.close, ended)

    def wait() -> None:
        child.wait()
        exited.set()
        os.close(tell)

    threading.Thread(target=wait, daemon=True).start()
    return ended, exited


@contextlib.contextmanager
def _passing_on(pid: int, *, group: bool) -> Iterator[list[int]]:
    """Pass our signals on to the command; gives the list of the interrupts among them."""
    interrupts: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT:
            interrupts.append(signum)
        # in our own process group, the terminal has told the command by itself
        if group or signum not in (signal.SIGINT, signal.SIGQUIT):
            send(pid, signum, group=group)

    before = {signum: signal.signal(signum, pass_on) for signum in PASSED_ON}
    try:
        with waking():
            yield interrupts
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
