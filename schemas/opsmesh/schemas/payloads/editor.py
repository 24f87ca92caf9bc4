"""editor.*: VS Code, Neovim, and any editor through the LSP proxy."""

from __future__ import annotations

from typing import Annotated, Final

from opsmesh.schemas.topics import Payload, Topic, doc

_Editor = Annotated[str | None, doc("editor that tells: vscode, neovim, helix, …")]
_Duration = Annotated[float | None, doc("run time, milliseconds")]
_Tail = Annotated[str | None, doc("end of the output")]
_Exit = Annotated[int | None, doc("exit status; absent when it was terminated")]


class EditorTaskFailed(Payload, frozen=True, kw_only=True):
    """A task of the editor ended badly."""

    task: Annotated[str, doc("name of the task")]
    exit_code: _Exit = None
    group: Annotated[str | None, doc("task group: build, test, …")] = None
    command: Annotated[str | None, doc("command line, where the editor says")] = None
    cwd: Annotated[str | None, doc("folder it ran in")] = None
    duration_ms: _Duration = None
    output_tail: _Tail = None
    editor: _Editor = None


class EditorTestFailed(Payload, frozen=True, kw_only=True):
    """Tests that were started from the editor failed."""

    command: Annotated[str | None, doc("command line of the test run")] = None
    nodeid: Annotated[str | None, doc("test that failed, where the editor knows one")] = None
    message: Annotated[str | None, doc("what failed")] = None
    path: Annotated[str | None, doc("file of the test")] = None
    line: Annotated[int | None, doc("line in the file, from 1")] = None
    exit_code: _Exit = None
    failed: Annotated[int | None, doc("number of tests that failed")] = None
    duration_ms: _Duration = None
    output_tail: _Tail = None
    editor: _Editor = None


class EditorExtensionCrashed(Payload, frozen=True, kw_only=True):
    """An extension, or the whole extension host, died."""

    extension: Annotated[str | None, doc("extension id; absent when the whole host died")] = None
    message: Annotated[str | None, doc("error text of the log")] = None
    exit_code: Annotated[int | None, doc("exit status of the host")] = None
    signal: Annotated[str | None, doc("signal that ended the host, like SIGSEGV")] = None
    log_path: Annotated[str | None, doc("log that tells it")] = None
    editor: _Editor = None


class EditorSave(Payload, frozen=True, kw_only=True):
    """A file was saved."""

    path: Annotated[str, doc("file that was saved")]
    language: Annotated[str | None, doc("language or file type, like python")] = None
    lines: Annotated[int | None, doc("number of lines")] = None
    bytes: Annotated[int | None, doc("size, bytes")] = None
    editor: _Editor = None


class EditorLspDiagnosticError(Payload, frozen=True, kw_only=True):
    """A language server reports errors in a file, other ones than before."""

    path: Annotated[str, doc("file with the errors")]
    count: Annotated[int, doc("number of errors in the file")]
    message: Annotated[str, doc("text of the first error")]
    line: Annotated[int | None, doc("line of the first error, from 1")] = None
    column: Annotated[int | None, doc("column of the first error, from 1")] = None
    code: Annotated[str | int | None, doc("the server's code, like F821")] = None
    server: Annotated[str | None, doc("language server, like ruff")] = None
    editor: _Editor = None


class EditorLspDiagnosticCleared(Payload, frozen=True, kw_only=True):
    """The errors that a language server reported in a file are gone."""

    path: Annotated[str, doc("file that had the errors")]
    server: Annotated[str | None, doc("language server, like ruff")] = None
    editor: _Editor = None


class EditorFormatFailed(Payload, frozen=True, kw_only=True):
    """A file could not be formatted."""

    path: Annotated[str, doc("file that was to be formatted")]
    message: Annotated[str | None, doc("error text")] = None
    server: Annotated[str | None, doc("language server")] = None
    method: Annotated[str | None, doc("LSP method, like textDocument/formatting")] = None
    code: Annotated[int | None, doc("JSON-RPC error code")] = None
    command: Annotated[str | None, doc("external formatter's command line")] = None
    exit_code: Annotated[int | None, doc("exit status of an external formatter")] = None
    inferred: Annotated[
        bool | None, doc("true when the server answered nothing while the file had a syntax error")
    ] = None
    editor: _Editor = None


TOPICS: Final = (
    Topic(
        "editor.task.failed",
        payload=EditorTaskFailed,
        owner="vscode",
        description="A task of the editor ended badly.",
        example={"task": "build", "exit_code": 2, "group": "build", "editor": "vscode"},
    ),
    Topic(
        "editor.test.failed",
        payload=EditorTestFailed,
        owner="editor",
        description="Tests that were started from the editor failed.",
        example={
            "command": "python3 -m unittest -q tests",
            "exit_code": 1,
            "duration_ms": 187.0,
            "editor": "neovim",
        },
    ),
    Topic(
        "editor.extension.crashed",
        payload=EditorExtensionCrashed,
        owner="vscode",
        description="An extension, or the whole extension host, died.",
        example={
            "extension": "example.formatter",
            "message": "Activating extension example.formatter failed due to an error",
            "editor": "vscode",
        },
    ),
    Topic(
        "editor.save",
        payload=EditorSave,
        owner="editor",
        severity="info",
        description="A file was saved.",
        example={"path": "/home/dev/app/ok.py", "language": "python", "lines": 3},
    ),
    Topic(
        "editor.lsp.diagnostic.error",
        payload=EditorLspDiagnosticError,
        owner="editor",
        description="A language server reports errors in a file.",
        example={
            "path": "/home/dev/app/ok.py",
            "count": 1,
            "message": "Undefined name `undefined_name`",
            "line": 3,
            "column": 8,
            "code": "F821",
            "server": "ruff",
            "editor": "neovim",
        },
    ),
    Topic(
        "editor.lsp.diagnostic.cleared",
        payload=EditorLspDiagnosticCleared,
        owner="editor",
        severity="info",
        description="The errors that a language server reported in a file are gone.",
        example={"path": "/home/dev/app/ok.py", "server": "ruff", "editor": "neovim"},
    ),
    Topic(
        "editor.format.failed",
        payload=EditorFormatFailed,
        owner="editor",
        severity="warn",
        description="A file could not be formatted.",
        example={
            "path": "/home/dev/app/ok.py",
            "message": "Unhandled method textDocument/formatting",
            "method": "textDocument/formatting",
            "code": -32601,
            "server": "pyright",
        },
    ),
)
