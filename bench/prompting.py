"""What a prompt costs with the shell's hook: real interactive shells on a pseudo terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import shutil
import time
from pathlib import Path
from typing import Final

from figure import Figure, FigureError, Target
from lab import Lab
from opsmesh.producers.shell.wiring import hook

#: How each shell is started, without anything of this machine's or this user's own.
START: Final = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "-N", "-i"],
}
#: Seconds that all prompts of one side may take.
LIMIT: Final = 60.0
#: What is printed when the last prompt is through; typed in two parts, so that its echo is none.
END: Final = b"all-through"


async def prompts(lab: Lab) -> list[Figure]:
    """Milliseconds that the hook adds to a prompt: after a command that succeeds, and a failed."""
    amount = lab.amount(1000, least=50)
    figures = []
    for shell in START:
        if shutil.which(shell) is None:
            continue
        for command, what in (("true", "success"), ("false", "failure")):
            ours, plain = [], []
            for n in range(lab.rounds):
                home = lab.folder / f"{shell}-{what}-{n}"
                inbox = home / "opsmesh/producers/shell/inbox"
                inbox.mkdir(parents=True)
                bare = _seconds(shell, command, amount, home, hooked=False)
                await asyncio.sleep(0)
                full = _seconds(shell, command, amount, home, hooked=True)
                await asyncio.sleep(0)
                if (command == "false") != any(inbox.glob("*.jsonl")):
                    raise FigureError(f"{shell}: the hook did not do what it is for")
                ours.append(full / amount * 1e3)
                plain.append(bare / amount * 1e3)
            added = [full - bare for full, bare in zip(ours, plain, strict=True)]
            figures.append(
                Figure(
                    name=f"shell_prompt_{shell}_{what}",
                    what=f"{shell}: what the hook adds to a prompt after a {what}",
                    unit="ms",
                    ours=added,
                    target=Target(of="value", at="most", limit=1.0),
                    details={"prompts": amount, "with": ours, "without": plain},
                )
            )
    if not figures:
        raise FigureError("none of bash, zsh, fish is installed")
    return figures


def _seconds(shell: str, command: str, amount: int, home: Path, *, hooked: bool) -> float:
    """From the first of the typed lines to the last one's prompt."""
    file = home / "hook"
    file.write_text(hook(shell))
    env = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home), "TERM": "dumb"}
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(START[shell][0], START[shell], env)
    try:
        select.select([fd], [], [], LIMIT)  # a shell throws away what comes before its prompt
        _type(
            fd,
            f". {file}\n" if hooked and shell != "fish" else f"source {file}\n" if hooked else "\n",
        )
        _through(fd)
        began = time.perf_counter()
        for _ in range(amount):
            _type(fd, f"{command}\n")
        _through(fd)
        return time.perf_counter() - began
    finally:
        os.close(fd)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _type(fd: int, text: str) -> None:
    """Type it, and take what is shown meanwhile: a full terminal would stop the shell."""
    os.write(fd, text.encode())
    while select.select([fd], [], [], 0)[0]:
        os.read(fd, 65536)


def _through(fd: int) -> None:
    os.write(fd, b"echo all-thr''ough\n")  # what it shows is what we wait for
    shown, until = b"", time.monotonic() + LIMIT
    while END not in shown:
        if not select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
            raise FigureError(f"the shell does not come to its end in {LIMIT:g} s")
        shown = shown[-len(END) :] + os.read(fd, 65536)
