"""notebook.*: marimo notebooks."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from opsmesh.schemas.topics import Payload, Topic, doc

_Notebook = Annotated[str, doc("file of the notebook; empty for one that was never saved")]
_Mode = Annotated[str | None, doc("how the notebook runs: edit, run, export")]
_Run = Annotated[int | None, doc("number of the run in its kernel, from 1")]


class NotebookCell(Payload, frozen=True, kw_only=True):
    """A cell that ran."""

    cell: Annotated[str, doc("marimo's id of the cell")]
    sha256: Annotated[str, doc("hash of its code")]
    failed: Annotated[bool, doc("whether it raised")] = False


class NotebookEnvironment(Payload, frozen=True, kw_only=True):
    """What a run depended on beside its code."""

    python: Annotated[str, doc("version of Python")]
    implementation: Annotated[str | None, doc("cpython, pypy, …")] = None
    executable: Annotated[str | None, doc("path of the interpreter")] = None
    platform: Annotated[str | None, doc("system, kernel and machine")] = None
    pythonhashseed: Annotated[str | None, doc("PYTHONHASHSEED, where it was set")] = None
    packages: Annotated[
        dict[str, str] | None,
        doc("versions of the packages that the kernel had imported, 300 at most"),
    ] = None


class NotebookCellFailed(Payload, frozen=True, kw_only=True):
    """A cell raised; cells that could not run because of it are not told."""

    notebook: _Notebook
    error: Annotated[str, doc("class of the exception")]
    message: Annotated[str | None, doc("text of the exception")] = None
    cell_id: Annotated[str | None, doc("marimo's id of the cell")] = None
    cell_name: Annotated[str | None, doc("name of the cell")] = None
    cell_sha256: Annotated[str | None, doc("hash of the cell's code")] = None
    line: Annotated[int | None, doc("line in the cell, from 1")] = None
    file_line: Annotated[
        int | None, doc("line in the notebook's file, where the cell is saved as it ran")
    ] = None
    traceback_tail: Annotated[str | None, doc("end of the traceback")] = None
    mode: _Mode = None
    run: _Run = None
    untold: Annotated[
        int | None, doc("failures before this one that were too many at once to be told")
    ] = None


class NotebookKernelRestarted(Payload, frozen=True, kw_only=True):
    """The kernel was restarted, or died."""

    notebook: _Notebook
    cause: Annotated[Literal["user", "died"], doc("asked for by the user, or the kernel died")]
    session: Annotated[str | None, doc("marimo's session id")] = None
    pid: Annotated[int | None, doc("process id of the kernel that is gone")] = None
    signal: Annotated[int | None, doc("signal that it died by")] = None
    exit_code: Annotated[int | None, doc("its exit code, when it ended by itself")] = None
    reason: Annotated[
        str | None, doc("what marimo makes of it: oom, sigkill, segfault, exit, …")
    ] = None


class NotebookRunCompleted(Payload, frozen=True, kw_only=True):
    """A run of cells came to its end, well or not."""

    notebook: _Notebook
    cells: Annotated[int | None, doc("number of cells that were to run")] = None
    failed: Annotated[int, doc("number of cells that raised")] = 0
    not_run: Annotated[
        int, doc("number of cells that did not run: one before failed, or the run was stopped")
    ] = 0
    interrupted: Annotated[bool, doc("whether the user stopped it")] = False
    duration_ms: Annotated[float | None, doc("run time, milliseconds")] = None
    mode: _Mode = None
    run: _Run = None
    runs: Annotated[
        int, doc("runs that this event stands for; of more than one the numbers are sums")
    ] = 1
    code_sha256: Annotated[
        str | None, doc("hash of the code of all cells, run or not, in the notebook's order")
    ] = None
    ran: Annotated[
        list[NotebookCell] | None, doc("the cells that ran, in that order, the last 300")
    ] = None
    ran_omitted: Annotated[int, doc("cells that ran and are not listed")] = 0
    seeds: Annotated[
        dict[str, int] | None, doc("seeds that the cells which ran set, by the call")
    ] = None
    environment: Annotated[NotebookEnvironment | None, doc("Python and packages of the kernel")] = (
        None
    )


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
            "cell_name": "totals",
            "line": 3,
            "mode": "edit",
        },
    ),
    Topic(
        "notebook.kernel.restarted",
        payload=NotebookKernelRestarted,
        owner="marimo",
        severity="warn",
        description="A notebook's kernel was restarted, or died.",
        example={
            "notebook": "/home/dev/analysis/sales.py",
            "cause": "died",
            "pid": 4711,
            "signal": 9,
            "reason": "oom",
        },
    ),
    Topic(
        "notebook.run.completed",
        payload=NotebookRunCompleted,
        owner="marimo",
        severity="info",
        description="A run of a notebook's cells came to its end.",
        example={
            "notebook": "/home/dev/analysis/sales.py",
            "cells": 12,
            "duration_ms": 840.0,
            "mode": "edit",
            "code_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "seeds": {"np.random.seed": 42},
            "environment": {"python": "3.13.5", "packages": {"numpy": "2.3.1"}},
        },
    ),
)
