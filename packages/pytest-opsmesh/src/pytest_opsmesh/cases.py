"""unittest's results as events, test by test.

The object that a run reports to is listened to: what it is told goes on to it, whatever class it
is of, and never an error of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import traceback

from . import editor
from .facts import LONGREPR_TAIL, MESSAGE_HEAD, tail
from .mark import Mark
from .mesh import clock, session
from .mesh.events import Events
from .mesh.outbox import Outbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

#: The source of its events.
SOURCE = "unittest"
#: Keeps frames of this file out of what unittest prints.
__unittest = True

#: What unittest calls the holder of an error outside of a test.
_OUTSIDE = re.compile(r"(?P<when>setUp|tearDown)(?:Class|Module) \((?P<what>.+)\)")
#: A line of a traceback that is text.
_FRAME = re.compile(r'^\s*File "(?P<path>[^"\n]+)", line (?P<line>\d+)', re.MULTILINE)
#: Functions of unittest.case below which each phase runs.
_PHASES = {
    "_callSetUp": "setup",
    "_callTearDown": "teardown",
    "_callCleanup": "teardown",
    "doCleanups": "teardown",
}


class Watching:
    """One run, from its first test to `end`."""

    def __init__(self, result: Any) -> None:
        self._root = _cwd()
        self._workspace = session.workspace(self._root, os.environ)
        self._editor = editor.of_environment()
        self._totals = {"passed": 0, "failed": 0, "errors": 0, "skipped": 0}
        self._events, self._outbox = Events(SOURCE), Outbox(SOURCE)
        self._began = clock.elapsed()
        self._result = result
        self._wrapped: list[str] = []
        try:
            for name, heard in (
                ("startTest", self._started),
                ("addSuccess", self._passed),
                ("addSkip", self._skipped),
                ("addExpectedFailure", self._skipped),
                ("addFailure", self._failed),
                ("addError", self._broke),
                ("addSubTest", self._part),
                ("addUnexpectedSuccess", self._passed_unexpectedly),
            ):
                if hasattr(result, name):
                    self._listen(name, heard)
        except Exception:
            self._let_go()  # of a result that takes no attributes
            raise
        self._mark = Mark(f"{SOURCE}.{threading.get_ident()}")

    def end(self) -> None:
        """The run is over: every failure is with the agent or in the spool."""
        self._let_go()
        with contextlib.suppress(Exception):
            self._outbox.finish()
        self._mark.remove()

    def _let_go(self) -> None:
        for name in self._wrapped:
            with contextlib.suppress(Exception):
                delattr(self._result, name)

    def _listen(self, name: str, heard: Callable[..., None]) -> None:
        passed_on = getattr(self._result, name)

        def told(*arguments: Any, **named: Any) -> Any:
            try:
                return passed_on(*arguments, **named)
            finally:
                try:
                    heard(*arguments, **named)
                except Exception as error:
                    self._outbox.broken(error)

        setattr(self._result, name, told)
        self._wrapped.append(name)

    def _started(self, test: Any) -> None:
        self._began = clock.elapsed()
        with contextlib.suppress(Exception):
            self._mark.write(test.id())

    def _passed(self, test: Any) -> None:
        self._totals["passed"] += 1

    def _skipped(self, test: Any, *_: Any, **__: Any) -> None:
        self._totals["skipped"] += 1

    def _failed(self, test: Any, err: Any) -> None:
        self._totals["failed"] += 1
        self._tell(test, err)

    def _broke(self, test: Any, err: Any) -> None:
        self._totals["errors"] += 1
        self._tell(test, err)

    def _part(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._totals["failed"] += 1
            self._tell(test, err, part=subtest._subDescription())

    def _passed_unexpectedly(self, test: Any) -> None:
        self._totals["failed"] += 1
        self._tell(test, None)

    def _tell(self, test: Any, err: Any, *, part: str | None = None) -> None:
        payload: dict[str, Any] = {
            **_facts(test, err),
            "duration_ms": round((clock.elapsed() - self._began) * 1000, 3),
            "subtest": part,
            "rootdir": self._root,
            "totals": self._totals,
        }
        told = [("python.test.failed", payload)]
        if self._editor:
            told.append(("editor.test.failed", editor.payload(payload, self._editor)))
        self._outbox.add(
            *(
                self._events.make(
                    topic,
                    one,
                    component=_component(test, payload["path"], self._root),
                    workspace=self._workspace,
                    duration_ms=payload["duration_ms"],
                )
                for topic, one in told
            )
        )


def _facts(test: Any, err: Any) -> dict[str, Any]:
    nodeid, phase = _name(test)
    if err is None:
        return {"nodeid": nodeid, "phase": "call", "message": "unexpected success", **_begins(test)}
    kind, error, trace = err
    text = "".join(traceback.format_exception(kind, error, trace))
    message = "".join(traceback.format_exception_only(kind, error)).strip()
    place = _place(trace)
    if phase == "collect":  # the error is unittest's own, and its text holds the import's
        place = _last_frame(text) or place
        message = message.splitlines()[-1] if message else message
    elif hasattr(test, "_dt_test"):  # raised in doctest itself
        place = _begins(test)
    return {
        "nodeid": nodeid,
        "phase": phase or _phase(trace),
        "message": message[:MESSAGE_HEAD],
        **place,
        "longrepr": tail(text, LONGREPR_TAIL),
    }


def _name(test: Any) -> tuple[str, str]:
    """unittest's name of the test, and its phase where the name alone tells it."""
    name = str(test.id())
    if type(test).__name__ == "_FailedTest":
        return str(getattr(test, "_testMethodName", name)), "collect"
    if outside := _OUTSIDE.fullmatch(name):
        return outside["what"], "setup" if outside["when"] == "setUp" else "teardown"
    return name, ""


def _phase(trace: TracebackType | None) -> str:
    while trace is not None and "__unittest" in trace.tb_frame.f_globals:
        if phase := _PHASES.get(trace.tb_frame.f_code.co_name):
            return phase
        trace = trace.tb_next
    return "call"


def _place(trace: TracebackType | None) -> dict[str, Any]:
    """Where it was raised: the last frame that is not unittest's own."""
    place: dict[str, Any] = {"path": None, "lineno": None}
    while trace is not None:
        if "__unittest" not in trace.tb_frame.f_globals:
            place = {"path": trace.tb_frame.f_code.co_filename, "lineno": trace.tb_lineno}
        trace = trace.tb_next
    return place


def _last_frame(text: str) -> dict[str, Any] | None:
    frames = [frame for frame in _FRAME.finditer(text) if not frame["path"].startswith("<")]
    return {"path": frames[-1]["path"], "lineno": int(frames[-1]["line"])} if frames else None


def _begins(test: Any) -> dict[str, Any]:
    """Where the test's text begins, when nothing was raised there."""
    if (doctest := getattr(test, "_dt_test", None)) is not None:
        return {"path": doctest.filename, "lineno": (doctest.lineno or 0) + 1}
    method = getattr(test, getattr(test, "_testMethodName", ""), None)
    code = getattr(getattr(method, "__func__", method), "__code__", None)
    return {
        "path": getattr(code, "co_filename", None),
        "lineno": getattr(code, "co_firstlineno", None),
    }


def _component(test: Any, path: str | None, root: str) -> str:
    """The test's file as pytest would name it, below the folder of the run."""
    module = sys.modules.get(type(test).__module__)
    file = str(getattr(module, "__file__", None) or path or "")
    if "__unittest" in vars(module or object):
        file = str(path or "")
    return os.path.relpath(file, root) if file.startswith(root + "/") else SOURCE


def _cwd() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return ""
