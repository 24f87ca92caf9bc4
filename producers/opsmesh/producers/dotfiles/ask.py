"""A question to a tool: in the background, with a time limit, in nobody's way.

Such a child has no terminal and no standard input, so it cannot ask back; git takes no lock for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: Seconds that an answer may take.
LIMIT: Final = 60.0
#: Nice value of a question asked in the background.
NICE: Final = 19
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


def ask(argv: Sequence[str], *, cwd: str | None = None, limit: float = LIMIT) -> Answer:
    """Run a tool to its end; NoAnswer when it cannot be started or takes too long."""
    env = {**os.environ, **ENVIRONMENT}
    for name in GIT_VARIABLES:
        env.pop(name, None)
    try:
        child = subprocess.Popen(
            ["nice", "-n", str(NICE), *argv],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise NoAnswer(f"{argv[0]}: {error.strerror or error}") from error
    try:
        output, said = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{argv[0]} gave no answer within {limit:g} s") from None
    finally:
        if child.poll() is None:  # its time is over, or we are being stopped
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for pipe in (child.stdout, child.stderr):
                if pipe:
                    pipe.close()
    return Answer(
        status=child.returncode, output=output, said=said.decode("utf-8", "backslashreplace")
    )
