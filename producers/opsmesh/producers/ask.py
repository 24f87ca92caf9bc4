"""A question to a tool: with a time limit, in the background unless told otherwise.

Such a child has no terminal and no standard input, so it cannot ask back; git takes no lock for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Final, NoReturn

from opsmesh.producers.waking import waking

#: Seconds that an answer may take.
LIMIT: Final = 60.0
#: Nice value of a question asked in the background.
NICE: Final = 19
#: Signals that end a program which does not handle them.
SILENT: Final = (signal.SIGTERM, signal.SIGHUP)
#: What every tool is asked with. GIT_OPTIONAL_LOCKS: `git status` does not refresh the index.
ENVIRONMENT: Final[Mapping[str, str]] = {
    "LC_ALL": "C.UTF-8",
    "LANGUAGE": "",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
}
#: Variables that would turn git to another repository.
GIT_VARIABLES: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a tool said; `said`: its standard error."""

    status: int
    output: bytes
    said: str


class NoAnswer(Exception):
    """A tool could not be asked, or did not answer in time."""


def ask(
    argv: Sequence[str], *, cwd: str | None = None, limit: float = LIMIT, nice: int = NICE
) -> Answer:
    """Run a tool to its end; NoAnswer when it cannot be started or takes too long. `nice`: 0 when
    somebody waits for it."""
    env = {**os.environ, **ENVIRONMENT}
    for name in GIT_VARIABLES:
        env.pop(name, None)
    with waking(), _ended_with_us():
        return _ask(argv, cwd=cwd, env=env, limit=limit, nice=nice)


def _ask(
    argv: Sequence[str], *, cwd: str | None, env: Mapping[str, str], limit: float, nice: int
) -> Answer:
    child = None
    try:
        with _held():
            child = subprocess.Popen(
                ["nice", "-n", str(nice), *argv],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        output, said = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{argv[0]} gave no answer within {limit:g} s") from error
    except OSError as error:
        raise NoAnswer(f"{argv[0]}: {error.strerror or error}") from error
    finally:
        if child is not None and child.poll() is None:  # its time is over, or we are being stopped
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for pipe in (child.stdout, child.stderr):
                if pipe:
                    pipe.close()
    return Answer(
        status=child.returncode, output=output, said=said.decode("utf-8", "backslashreplace")
    )


@contextlib.contextmanager
def _ended_with_us() -> Iterator[None]:
    """A signal that would end us without a word raises SystemExit, so that the tool ends too: it
    is in a session of its own, and hears nothing of what our group is told."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    ends = [one for one in SILENT if signal.getsignal(one) is signal.SIG_DFL]
    for one in ends:
        signal.signal(one, _end)
    try:
        yield
    finally:
        for one in ends:
            signal.signal(one, signal.SIG_DFL)


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


@contextlib.contextmanager
def _held() -> Iterator[None]:
    """What would end us waits until the child is known: one that nobody knows would go on alone."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    caught: list[int] = []
    ends = (*SILENT, signal.SIGINT)
    before = {one: signal.signal(one, lambda signum, frame: caught.append(signum)) for one in ends}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for signum in caught:
            os.kill(os.getpid(), signum)
