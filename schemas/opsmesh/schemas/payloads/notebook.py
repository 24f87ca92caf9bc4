"""notebook.*: marimo notebooks."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from opsmesh.schemas.topics import Payload, Topic, doc

_Notebook = Annotated[str, doc("file of the notebook")]


class NotebookCellFailed(Payload, frozen=True, kw_only=True):
    """A cell raised; cells that could not run because of it are not told."""

    notebook: _Notebook
    error: Annotated[str, doc("class of the exception")]
    message: Annotated[str | None, doc("text of the exception")] = None
    cell_id: Annotated[str | None, doc("marimo's id of the cell")] = None
    cell_name: Annotated[str | None, doc("name of the cell")] = None
    line: Annotated[int | None, doc("line in the cell, from 1")] = None
    traceback_tail: Annotated[str | None, doc("end of the traceback")] = None
    mode: Annotated[str | None, doc("how the notebook runs: edit, run, export")] = None


class NotebookKernelRestarted(Payload, frozen=True, kw_only=True):
    """The kernel was restarted, or died."""

    notebook: _Notebook
    cause: Annotated[Literal["user", "died"], doc("asked for by the user, or the kernel died")]
    session: Annotated[str | None, doc("marimo's session id")] = None
    pid: Annotated[int | None, doc("process id of the kernel that is gone")] = None


class NotebookRunCompleted(Payload, frozen=True, kw_only=True):
    """A run of cells came to its end, well or not."""

    notebook: _Notebook
    cells: Annotated[int | None, doc("number of cells that were to run")] = None
    failed: Annotated[int, doc("number of cells that raised")] = 0
    interrupted: Annotated[bool, doc("whether the user stopped it")] = False
    duration_ms: Annotated[float | None, doc("run time, milliseconds")] = None
    mode: Annotated[str | None, doc("how the notebook runs: edit, run, export")] = None


TOPICS: Final = (
    Topic(
        "notebook.cell.failed",
        payload=NotebookCellFailed,
        owner="marimo",
        description="A cell of a notebook raised.",
        example={
            "notebook": "/home/dev/analysis/sales.py",
            "error": "KeyError",
            "message": "'region'",
            "cell_id": "Hbol",
            "mode": "edit",
        },
    ),
    Topic(
        "notebook.kernel.restarted",
        payload=NotebookKernelRestarted,
        owner="marimo",
        severity="warn",
        description="A notebook's kernel was restarted, or died.",
        example={"notebook": "/home/dev/analysis/sales.py", "cause": "died"},
    ),
    Topic(
        "notebook.run.completed",
        payload=NotebookRunCompleted,
        owner="marimo",
        severity="info",
        description="A run of a notebook's cells came to its end.",
        example={"notebook": "/home/dev/analysis/sales.py", "cells": 12, "duration_ms": 840.0},
    ),
)
