"""What a conversation between an editor and a language server tells: messages in, facts out.

Pure: no clock, no files; `now` is given, in seconds. The one rule: an event says what the server
said; where that takes a conclusion (an empty answer to a format request), it is `inferred`, and
drawn only from diagnostics of the text that was to be formatted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opsmesh.producers.lsp.places import path_of

SAVE: Final = "editor.save"
ERROR: Final = "editor.lsp.diagnostic.error"
CLEARED: Final = "editor.lsp.diagnostic.cleared"
FORMAT_FAILED: Final = "editor.format.failed"

#: Requests whose failure is one of formatting. Not onTypeFormatting: it fails with every key.
FORMATTING: Final = frozenset(
    f"textDocument/{name}" for name in ("formatting", "rangeFormatting", "rangesFormatting")
)
#: Errors that are none: cancelled by the editor, by the server, outdated (LSP 3.17, ErrorCodes).
CANCELLED: Final = (-32800, -32802, -32801)
#: Seconds that an empty answer waits for diagnostics of the text that it is about.
FRESH: Final = 3.0
#: Seconds after the answer to a format request in which a log message still explains it.
EXPLAINED: Final = 2.0
#: Seconds after its closing in which an empty list for a file is the server's tidying up.
TIDYING: Final = 5.0
#: Files, and requests under way, that are kept in mind; the oldest go.
FILES, REQUESTS = 10_000, 1_000
#: Longest text of an event.
LONGEST: Final = 2_000

_ERROR_SEVERITY: Final = 1
_SYNTAX_CODES: Final = frozenset(
    ("invalid-syntax", "syntax-error", "syntaxerror", "syntax", "parse", "e999", "e901", "e902")
)
#: TypeScript numbers its errors of syntax so.
_TYPESCRIPT: Final = range(1000, 2000)
#: Of an error without a code: pyright's and gopls' errors of types have one, those of syntax none.
_SYNTAX: Final = re.compile(
    r"syntax|pars(?:e|ing)\b|expected|unterminated|unclosed|unmatched|never closed|unindent"
    r"|indentation|invalid (?:token|character)|end of (?:file|input)",
    re.IGNORECASE,
)
#: Of any error.
_SURELY_SYNTAX: Final = re.compile(r"syntax ?error|invalid syntax|parse error", re.IGNORECASE)
_SPEAKS_OF_FORMAT: Final = re.compile(r"\bformat|\breformat", re.IGNORECASE)
_SPEAKS_OF_FAILURE: Final = re.compile(
    r"error|fail|abort|cannot|could not|couldn't|unable|exited with", re.IGNORECASE
)

Message = Mapping[str, Any]
#: One error: message, code, line from 1, column from 1.
Error = tuple[str, str | int | None, int | None, int | None]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One event to be told, about a file."""

    topic: str
    path: str
    payload: dict[str, Any]


@dataclass
class _Document:
    """A file. `told` is what events have said of it last."""

    language: str | None = None
    version: int | None = None
    changes: int = 0
    seen: int = -1
    opened: bool = False
    closed_at: float | None = None
    errors: dict[str, tuple[Error, ...]] = field(default_factory=dict)
    told: frozenset[Any] = frozenset()

    def all_errors(self) -> list[Error]:
        """In the order of the file, from every source."""
        found = {error for errors in self.errors.values() for error in errors}
        return sorted(found, key=lambda one: (one[2] or 0, one[3] or 0, one[0]))


@dataclass
class _Request:
    """What the editor waits for. `changes` tells which text it is about."""

    method: str
    uri: str
    changes: int
    cancelled: bool = False
    log: str = ""


class Conversation:
    """One editor and one server."""

    def __init__(self) -> None:
        #: What the editor says of itself, its process, and what the server calls itself.
        self.editor = ""
        self.editor_pid: int | None = None
        self.server = ""
        self._documents: dict[str, _Document] = {}
        self._requests: dict[str, _Request] = {}
        self._initialize: Any = None
        #: Empty answers, with the time until which they wait for diagnostics.
        self._empty: list[tuple[_Request, float]] = []
        #: The format request that was answered last, until when, and whether it was told.
        self._answered: tuple[_Request, float, bool] | None = None

    @property
    def waits_until(self) -> float | None:
        """When `passed` has something to decide at the latest."""
        return min((until for _, until in self._empty), default=None)

    @property
    def asked(self) -> bool:
        """Whether an answer is waited for that may tell something."""
        return bool(self._requests) or self._initialize is not None

    def from_editor(self, message: Message, now: float) -> Iterator[Fact]:
        """A message to the server."""
        method, params = message.get("method"), message.get("params")
        if not isinstance(method, str) or not isinstance(params, dict):
            return
        if method == "initialize":
            self._initialize = message.get("id")
            client, pid = params.get("clientInfo"), params.get("processId")
            self.editor = _text(client.get("name")) if isinstance(client, dict) else ""
            self.editor_pid = pid if isinstance(pid, int) and pid > 0 else None
        elif method == "$/cancelRequest":
            if (request := self._requests.get(_key(params.get("id")))) is not None:
                request.cancelled = True
        elif method == "workspace/diagnostic":
            self._asked(message, method, "")
        elif (uri := _uri(params)) is not None:
            yield from self._about(method, uri, message, params, now)

    def from_server(self, message: Message, now: float) -> Iterator[Fact]:
        """A message to the editor."""
        method, params = message.get("method"), message.get("params")
        if isinstance(method, str):
            if not isinstance(params, dict):
                return
            if method == "textDocument/publishDiagnostics" and isinstance(params.get("uri"), str):
                version = params.get("version")
                document = self._document(params["uri"])
                if not isinstance(version, int) or version == document.version:
                    document.seen = document.changes
                yield from self._diagnosed(params["uri"], "push", params.get("diagnostics"), now)
            elif method in ("window/logMessage", "window/showMessage"):
                yield from self._logged(params, now)
        elif "id" in message:
            yield from self._answer(message, now)

    def passed(self, now: float) -> Iterator[Fact]:
        """Decide what has waited long enough."""
        due = [request for request, until in self._empty if until <= now]
        self._empty = [one for one in self._empty if one[1] > now]
        for request in due:
            yield from self._concluded(request)

    def _about(
        self, method: str, uri: str, message: Message, params: Mapping[str, Any], now: float
    ) -> Iterator[Fact]:
        document = self._documents.get(uri)
        if method == "textDocument/didOpen":
            opened = params["textDocument"]
            document = self._document(uri)
            document.opened, document.closed_at = True, None
            document.language = _text(opened.get("languageId")) or None
            document.version = opened.get("version")
            document.changes += 1
        elif method == "textDocument/didChange":
            document = self._document(uri)
            document.version = params["textDocument"].get("version")
            document.changes += 1
        elif method == "textDocument/didClose":
            if document is not None:
                document.opened, document.closed_at = False, now
        elif method in ("textDocument/didSave", "notebookDocument/didSave"):
            yield from _fact(SAVE, uri, language=document.language if document else None)
        elif method in FORMATTING or method == "textDocument/diagnostic":
            self._asked(message, method, uri)

    def _asked(self, message: Message, method: str, uri: str) -> None:
        if len(self._requests) >= REQUESTS:
            del self._requests[next(iter(self._requests))]
        changes = self._documents[uri].changes if uri in self._documents else 0
        self._requests[_key(message.get("id"))] = _Request(method, uri, changes)

    def _answer(self, message: Message, now: float) -> Iterator[Fact]:
        if self._initialize is not None and message["id"] == self._initialize:
            self._initialize = None
            result = message.get("result")
            info = result.get("serverInfo") if isinstance(result, dict) else None
            self.server = _text(info.get("name")) if isinstance(info, dict) else ""
            return
        request = self._requests.pop(_key(message["id"]), None)
        if request is None:
            return
        if request.method in FORMATTING:
            yield from self._formatted(request, message, now)
            return
        result = message.get("result")
        if not isinstance(result, dict):
            return
        if request.method == "workspace/diagnostic":
            reports = result.get("items")
            for report in reports if isinstance(reports, list) else ():
                if isinstance(report, dict) and isinstance(report.get("uri"), str):
                    yield from self._pulled(report["uri"], report, now)
            return
        document = self._document(request.uri)
        if document.changes == request.changes:
            document.seen = document.changes
        yield from self._pulled(request.uri, result, now)
        related = result.get("relatedDocuments")
        for uri, report in related.items() if isinstance(related, dict) else ():
            if isinstance(report, dict):
                yield from self._pulled(uri, report, now)

    def _pulled(self, uri: str, report: Mapping[str, Any], now: float) -> Iterator[Fact]:
        if report.get("kind") == "full":  # else "unchanged": nothing is new
            yield from self._diagnosed(uri, "pull", report.get("items"), now)
        else:
            yield from self._fresh(uri)

    def _diagnosed(self, uri: str, source: str, found: Any, now: float) -> Iterator[Fact]:
        document = self._document(uri)
        errors = tuple(_errors(found if isinstance(found, list) else ()))
        closed = document.closed_at is not None and now - document.closed_at <= TIDYING
        if closed and not errors:
            # nobody has mended a file by closing it; when it is opened anew, it is told anew
            del self._documents[uri]
            return
        document.errors[source] = errors
        every = document.all_errors()
        content = frozenset(error[:3] for error in every)
        if content != document.told:
            document.told = content
            if not every:
                yield from _fact(CLEARED, uri)
            else:
                message, code, line, column = every[0]
                yield from _fact(
                    ERROR,
                    uri,
                    count=len(every),
                    message=message,
                    line=line,
                    column=column,
                    code=code,
                )
        yield from self._fresh(uri)

    def _fresh(self, uri: str) -> Iterator[Fact]:
        """Diagnostics of a file have come: decide what waited for them."""
        document = self._document(uri)
        due = [one for one, _ in self._empty if one.uri == uri and document.seen >= one.changes]
        self._empty = [one for one in self._empty if one[0] not in due]
        for request in due:
            yield from self._concluded(request)

    def _formatted(self, request: _Request, message: Message, now: float) -> Iterator[Fact]:
        error, told = message.get("error"), False
        if isinstance(error, dict):
            if error.get("code") in CANCELLED or request.cancelled:
                return
            told = True
            code = error.get("code")
            yield from _failed(
                request,
                message=_text(error.get("message")) or request.log,
                code=code if isinstance(code, int) else None,
            )
        elif not message.get("result") and not request.cancelled:
            if request.log:
                told = True
                yield from _failed(request, message=request.log)
            else:
                document = self._document(request.uri)
                if document.seen >= request.changes:
                    yield from self._concluded(request)
                else:
                    self._empty.append((request, now + FRESH))
        self._answered = (request, now + EXPLAINED, told)

    def _concluded(self, request: _Request) -> Iterator[Fact]:
        """An empty answer: nothing was to be done, or the server could not read the file."""
        document = self._document(request.uri)
        if document.changes != request.changes:
            return  # the diagnostics are of another text by now
        broken = next((error for error in document.all_errors() if is_syntax(error)), None)
        if broken is not None:
            yield from _failed(request, message=broken[0], inferred=True)
            if self._answered is not None and self._answered[0] is request:
                self._answered = (request, self._answered[1], True)

    def _logged(self, params: Mapping[str, Any], now: float) -> Iterator[Fact]:
        text = _text(params.get("message"))
        if params.get("type") not in (1, 2) or not _SPEAKS_OF_FORMAT.search(text):
            return
        if not _SPEAKS_OF_FAILURE.search(text):
            return
        under_way = [one for one in self._requests.values() if one.method in FORMATTING]
        if under_way:  # what it answers tells more
            under_way[-1].log = under_way[-1].log or text
        elif self._answered is not None:
            request, until, told = self._answered
            if not told and now <= until and not request.cancelled:
                self._answered = (request, until, True)
                self._empty = [one for one in self._empty if one[0] is not request]
                yield from _failed(request, message=text)

    def _document(self, uri: str) -> _Document:
        document = self._documents.get(uri)
        if document is None:
            if len(self._documents) >= FILES:
                idle = (key for key, one in self._documents.items() if not one.opened)
                del self._documents[next(idle, next(iter(self._documents)))]
            document = self._documents[uri] = _Document()
        return document


def is_syntax(error: Error) -> bool:
    """Whether this error keeps a formatter from reading the file: servers have no common code."""
    message, code, _, _ = error
    if str(code).lower() in _SYNTAX_CODES or code in _TYPESCRIPT:
        return True
    return bool((_SYNTAX if code is None else _SURELY_SYNTAX).search(message))


def _errors(found: Iterable[Any]) -> Iterator[Error]:
    for one in found:
        if not isinstance(one, dict):
            continue
        # what no severity is given is for the client to judge; clients show an error
        if one.get("severity", _ERROR_SEVERITY) not in (_ERROR_SEVERITY, None):
            continue
        line, column = _start(one.get("range"))
        code = one.get("code")
        yield (
            _text(one.get("message")),
            code if isinstance(code, str | int) and not isinstance(code, bool) else None,
            line,
            column,
        )


def _start(found: Any) -> tuple[int | None, int | None]:
    start = found.get("start") if isinstance(found, dict) else None
    if not isinstance(start, dict):
        return None, None
    line, column = start.get("line"), start.get("character")
    return (
        line + 1 if isinstance(line, int) else None,
        column + 1 if isinstance(column, int) else None,
    )


def _failed(request: _Request, **more: Any) -> Iterator[Fact]:
    yield from _fact(FORMAT_FAILED, request.uri, method=request.method, **more)


def _fact(topic: str, uri: str, **payload: Any) -> Iterator[Fact]:
    """None for a document that is no file: nobody could do anything about it."""
    path = path_of(uri)
    if path is not None:
        told = {name: value for name, value in payload.items() if value is not None}
        yield Fact(topic=topic, path=path, payload={"path": path, **told})


def _uri(params: Mapping[str, Any]) -> str | None:
    for name in ("textDocument", "notebookDocument"):
        document = params.get(name)
        if isinstance(document, dict) and isinstance(document.get("uri"), str):
            return str(document["uri"])
    return None


def _text(value: Any) -> str:
    return value[:LONGEST] if isinstance(value, str) else ""


def _key(id: Any) -> str:
    """Ids are numbers or texts, and `1` is not `"1"`."""
    return repr(id)
