"""What a cell raised, as an event's payload has it. Pure, but for the exception's own words."""

from __future__ import annotations

import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Characters of an exception's text, bytes of the end of its traceback, and frames of it.
MESSAGE_HEAD = 2000
TRACEBACK_TAIL = 8 * 1024
FRAMES = 30
#: Steps of a traceback that are looked at.
STEPS = 10_000
#: What is no failure: `mo.stop`, an interrupt, and marimo's way to run a cell again. By name, for
#: a name survives a move within marimo.
NO_FAILURE = frozenset(
    (
        *("MarimoStopError", "KeyboardInterrupt", "MarimoInterrupt", "CancelledError"),
        *("MarimoRescheduleError", "MarimoUnhashableCacheError", "MarimoInterruptionError"),
        *("MarimoAncestorPreventedError", "MarimoAncestorStoppedError"),
    )
)


def is_failure(raised: Any) -> bool:
    """Whether what a cell ended with is a failure of its own."""
    return raised is not None and type(raised).__name__ not in NO_FAILURE


def of_exception(raised: Any, cell_id: str, notebook: str) -> dict[str, Any]:
    """Facts of an exception, or of what marimo made of one."""
    if not isinstance(raised, BaseException):  # marimo's description of an error: SQL, strict mode
        return {
            "error": str(getattr(raised, "exception_type", None) or type(raised).__name__),
            "message": _message(getattr(raised, "msg", raised)),
        }
    cause = getattr(raised, "name_error", None) or raised  # a name that another cell should define
    return {
        "error": type(cause).__name__,
        "message": _message(cause),
        "traceback_tail": _tail("".join(_lines(cause))),
        **lines_of(cause, cell_id, notebook),
    }


def lines_of(error: BaseException, cell_id: str, notebook: str) -> dict[str, int]:
    """Where the exception came through the cell last: `line` of the cell, or `file_line` of the
    notebook, whichever marimo compiled it with (an app that runs has the file's lines)."""
    found: dict[str, int] = {}
    step, left = error.__traceback__, STEPS
    while step is not None and left:
        filename = step.tb_frame.f_code.co_filename
        # a file of its own for each cell, or <cell-ID> where that cannot be written
        if f"__marimo__cell_{cell_id}_" in filename or filename == f"<cell-{cell_id}>":
            found = {"line": step.tb_lineno}
        elif filename == notebook:
            found = {"file_line": step.tb_lineno}
        step, left = step.tb_next, left - 1
    if not found and isinstance(error, SyntaxError) and error.lineno:
        return {"line": error.lineno}
    return found


def _lines(error: BaseException) -> list[str]:
    return traceback.format_exception(type(error), error, error.__traceback__, limit=-FRAMES)


def _message(value: Any) -> str:
    try:
        return str(value)[:MESSAGE_HEAD]
    except Exception as error:  # noqa: BLE001, RUF100 (an exception's own code may fail)
        return f"(its text cannot be had: {type(error).__name__})"


def _tail(text: str) -> str:
    data = text.encode("utf-8", "backslashreplace")
    return data[-TRACEBACK_TAIL:].decode("utf-8", "ignore")
