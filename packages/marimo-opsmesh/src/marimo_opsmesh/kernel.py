"""Where marimo's kernel lets us in: the entry point `marimo.kernel.lifespan`.

marimo enters it when a notebook is instantiated, in edit, run and export. It is declared unstable,
so each step is guarded: with a marimo that is built otherwise nothing is hooked, the notebook runs
as without us, and `opsmesh doctor` says why.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

from .guard import COUNT, guarded
from .health import Note
from .observer import Observer
from .sender import shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import Any

    from .sender import Sender


def lifespan(app: object) -> _Lifespan:
    """marimo's call, with nothing in `app`."""
    return _Lifespan()


class _Lifespan:
    """An asynchronous context manager by itself: a generator would be closed by another loop than
    the one that began it."""

    async def __aenter__(self) -> None:
        enter()

    async def __aexit__(self, *error: object) -> None:
        return None


@guarded
def enter() -> None:
    """Hook into the kernel of this thread."""
    sender, note = shared(), Note("kernel")
    COUNT.told = lambda: sender.put(note.write)
    from marimo._runtime.context import get_context

    context: Any = get_context()
    kernel = context._kernel
    mode = _mode(context)
    _once(kernel)
    if getattr(kernel, "_opsmesh", None) is not None:
        return
    observer = Observer(
        sender,
        mode=mode,
        notebook=lambda: _filename(kernel),
        variables=lambda: kernel.globals,
    )
    problem = hook(kernel, observer)
    kernel._opsmesh = observer
    sender.put(lambda: note.write(mode=mode, problem=problem))
    _before_the_end(sender)


def _before_the_end(sender: Sender) -> None:
    """marimo ends a kernel's process by SIGTERM, whose handler calls `os._exit`, right after an
    export, too: what has just happened is sent first, within the sender's FAREWELL. The server
    waits five seconds for a kernel to go."""
    before = signal.getsignal(signal.SIGTERM)
    alone = threading.current_thread() is threading.main_thread()
    if not alone or not callable(before) or before is signal.default_int_handler:
        return
    begun: list[bool] = []

    def ending(number: int, frame: FrameType | None) -> None:
        if begun:
            return
        begun.append(True)
        try:
            sender.close()
        finally:
            before(number, frame)

    signal.signal(signal.SIGTERM, ending)


def hook(kernel: Any, observer: Observer) -> str | None:
    """Put the observer among marimo's own hooks; what is missing there, or None."""
    try:
        from marimo._runtime.runner.hooks import Priority

        first: tuple[Any, ...] = (Priority.EARLY,)  # before others change what was raised
    except ImportError:
        first = ()
    missing = []
    for name, function, arguments in (
        ("add_preparation", observer.began, ()),
        ("add_post_execution", observer.ended_cell, first),
        ("add_on_finish", observer.finished, ()),
    ):
        try:
            getattr(kernel._hooks, name)(function, *arguments)
        except (AttributeError, TypeError) as error:
            missing.append(f"{name}: {error}")
    return "; ".join(missing) or None


def _once(kernel: Any) -> None:
    """marimo 0.25 enters its lifespan again when a notebook is instantiated again (a page that is
    reloaded), which a generator's context manager answers with an AttributeError. Without a plug-in
    it has no lifespan, so it is ours to put right."""
    inner = getattr(kernel, "_lifespan", None)
    if inner is not None and not isinstance(inner, _Once):
        kernel._lifespan = _Once(inner)


class _Once:
    """A lifespan that has been entered already."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *error: Any) -> Any:
        return await self._inner.__aexit__(*error)


def _mode(context: Any) -> str:
    """How the notebook runs. An export is to marimo an edit without a page: its command tells."""
    if getattr(getattr(context, "session_mode", None), "name", "") == "RUN":
        return "run"
    own = multiprocessing.parent_process() is not None
    return "export" if exporting(_words(os.getppid()) if own else sys.orig_argv) else "edit"


def exporting(words: Sequence[str]) -> bool:
    """Whether a command line is that of `marimo export …`: it comes before any file's name."""
    for word in words[1:6]:
        if word in ("edit", "run", "new", "tutorial"):
            return False
        if word == "export":
            return True
    return False


def _words(pid: int) -> list[str]:
    with Path(f"/proc/{pid}/cmdline").open("rb") as file:
        return file.read(64 * 1024).decode("utf-8", "replace").split("\0")


def _filename(kernel: Any) -> str | None:
    name = kernel.app_metadata.filename
    return str(name) if name else None
