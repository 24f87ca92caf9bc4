"""The parts of the LSP proxy: frames, the `save` capability, and what a conversation tells."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsmesh.producers.lsp import places, save
from opsmesh.producers.lsp.facts import FRESH, TIDYING, Conversation, Fact
from opsmesh.producers.lsp.framing import Bodies, Broken

URI, PATH = "file:///home/dev/app/ok.py", "/home/dev/app/ok.py"
#: A header with everything that the specification knows.
TYPED = "Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nContent-Length: {}\r\n\r\n"
SAVED = {"method": "textDocument/didSave", "params": {"textDocument": {"uri": URI}}}


def framed(message: Any, *, header: str = "Content-Length: {}\r\n\r\n") -> bytes:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return header.format(len(body)).encode() + body


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def answer(sync: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "result": {"capabilities": {"textDocumentSync": sync, **more}}}


#: The machine may be busy, and these are many small steps.
some = settings(max_examples=50)
cutting = st.lists(st.integers(0, 10_000), max_size=8)


@some
@given(
    bodies=st.lists(st.binary(max_size=40), max_size=5),
    cuts=cutting,
    header=st.sampled_from(
        [
            "Content-Length: {}\r\n\r\n",
            "content-length:{}\r\n\r\n",
            TYPED,
        ]
    ),
)
def test_bodies_come_out_whole(bodies: list[bytes], cuts: list[int], header: str) -> None:
    """Whatever pieces a stream comes in, its bodies come out as they were."""
    stream = b"".join(framed(body, header=header) for body in bodies)
    reader = Bodies(1000)
    assert [body for piece in pieces(stream, cuts) for body in reader.feed(piece)] == bodies


@some
@given(cuts=cutting)
def test_a_long_body_is_passed_over(cuts: list[int]) -> None:
    """A body beyond the limit is counted and not kept; the next one is read."""
    reader = Bodies(50)
    stream = framed(b"x" * 500) + framed(b"next")
    assert [body for piece in pieces(stream, cuts) for body in reader.feed(piece)] == [b"next"]
    assert reader.skipped == 1


@some
@given(missing=st.integers(0, 400), cuts=cutting)
def test_reading_goes_on_after_a_gap(missing: int, cuts: list[int]) -> None:
    """Where bytes are missing, the next whole message is found, and no other."""
    messages = [{"n": n, "text": 'Content-Length: 5\r\n\r\n "{"'} for n in range(8)]
    stream = b"".join(framed(message) for message in messages)
    reader = Bodies(1000)
    list(reader.feed(stream[:100]))
    reader.gap()
    rest = stream[100 + missing :]
    found = [json.loads(body) for piece in pieces(rest, cuts) for body in reader.feed(piece)]
    assert found
    assert found == messages[-len(found) :]


@pytest.mark.parametrize(
    "stream",
    [
        b"Server 1.0 starts\n",
        b"{}",
        b"Content-Length: many\r\n\r\n{}",
        b"Content-Type: text\r\n\r\n{}",
        b"Content-Length 5\r\n\r\n{}",
        b"Content-Length: 1\r\n" + b"X: y\r\n" * 1000,
    ],
)
def test_what_is_no_frame_is_said_to_be_none(stream: bytes) -> None:
    """A stream that is no LSP is told from one whose next bytes are still to come."""
    with pytest.raises(Broken):
        list(Bodies(1000).feed(stream))


@some
@given(cuts=cutting)
def test_save_is_asked_for_in_the_answer_alone(cuts: list[int]) -> None:
    """Of everything that a server sends, the answer to `initialize` alone gets a word more, and
    its length with it."""
    sync = {"openClose": True, "change": 2}
    before = framed({"method": "window/logMessage", "params": {"message": "textDocumentSync"}})
    after = framed({"method": "x", "params": answer(sync)}) + b"no frame at all"
    edit = save.FromServer()
    stream = before + framed(answer(sync), header=TYPED) + after
    out = b""
    for piece in pieces(stream, cuts):
        out += piece if edit.done else edit.feed(piece)
    assert out.startswith(before)
    assert out.endswith(after)
    body = json.dumps(answer(sync)).replace('{"openClose"', '{"save":true,"openClose"').encode()
    assert out[len(before) : -len(after)] == framed(body, header=TYPED)
    assert edit.given


@pytest.mark.parametrize(
    ("sync", "made"),
    [
        ({}, {"save": True}),
        ({"save": False, "change": 1}, {"save": True, "change": 1}),
        ({"save": None, "openClose": False}, {"save": True, "openClose": False}),
        ({"save": True}, None),
        ({"save": {"includeText": True}}, None),
        ({"save": {}}, None),
        (2, None),
        (None, None),
    ],
)
def test_who_asks_for_saves_is_left_alone(sync: Any, made: Any) -> None:
    """A server that asks for saves, by word or by the old form, is sent what it asked for."""
    edited = save.with_save(json.dumps(answer(sync)).encode())
    assert edited is None if made is None else json.loads(edited or b"") == answer(made)


def test_the_right_place_is_found() -> None:
    """The capability's name in a text, or deeper within another one, is not taken for it."""
    message = answer(
        {"change": 2}, hoverProvider={"note": '"textDocumentSync":{', "textDocumentSync": {"a": 1}}
    )
    message["result"]["capabilities"] = dict(
        reversed(list(message["result"]["capabilities"].items()))
    )
    edited = json.loads(save.with_save(json.dumps(message).encode()) or b"")
    assert edited["result"]["capabilities"]["textDocumentSync"] == {"save": True, "change": 2}
    assert edited["result"]["capabilities"]["hoverProvider"]["textDocumentSync"] == {"a": 1}


@some
@given(cuts=cutting, broken=st.booleans())
def test_saves_are_kept_from_who_does_not_know_them(cuts: list[int], broken: bool) -> None:
    """didSave alone is taken out of what goes to the server; a word in a text, a long message and
    whatever follows a broken frame go on as they are."""
    text = {"method": "textDocument/didChange", "params": {"text": "textDocument/didSave"}}
    long = {"method": "textDocument/didSave", "params": {"text": "x" * (save.LONGEST_SAVE + 1)}}
    kept = [framed(text), framed(long), framed(text)]
    stream = kept[0] + framed(SAVED) + kept[1] + framed(SAVED) + kept[2]
    tail = b"no frame" + framed(SAVED) if broken else b""
    edit, out = save.ToServer(), b""
    for piece in pieces(stream + tail, cuts):
        out += piece if edit.done else edit.feed(piece)
    assert out + edit.rest() == b"".join(kept) + tail


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///home/dev/a%20b%C3%A9.py", "/home/dev/a bé.py"),
        ("file://localhost/a.py", "/a.py"),
        ("file:///a%FF.py", "/a\udcff.py"),
        ("file://elsewhere/a.py", None),
        ("untitled:Untitled-1", None),
        ("vscode-notebook-cell:/a.ipynb#W0", None),
        ("file:///a%00.py", None),
        ("file://[", None),
        ("", None),
    ],
)
def test_a_file_of_its_uri(uri: str, path: str | None) -> None:
    """A file of this machine has its path, and everything else none."""
    assert places.path_of(uri) == path


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("Helix", "helix"),
        ("helix", "helix"),
        ("Neovim", "neovim"),
        ("Visual Studio Code", "vscode"),
        ("Sublime Text LSP", "sublime-text-lsp"),
        ("", ""),
    ],
)
def test_an_editor_has_a_token(name: str, token: str) -> None:
    """Editors are called as other producers call them."""
    assert places.editor_token(name) == token


class Talk:
    """A conversation that is played, with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._talk = Conversation()
        self._id = 10

    def _told(self, facts: Iterator[Fact]) -> list[tuple[str, dict[str, Any]]]:
        found = list(facts)
        assert all(fact.payload["path"] == fact.path for fact in found)
        return [
            (
                fact.topic.removeprefix("editor."),
                {name: value for name, value in fact.payload.items() if name != "path"},
            )
            for fact in found
        ]

    def editor(self, method: str, **params: Any) -> list[tuple[str, dict[str, Any]]]:
        params = {"textDocument": {"uri": URI}, **params}
        return self._told(self._talk.from_editor({"method": method, "params": params}, self.now))

    def open(self, version: int = 1) -> None:
        document = {"uri": URI, "languageId": "python", "version": version, "text": ""}
        self.editor("textDocument/didOpen", textDocument=document)

    def change(self, version: int) -> None:
        self.editor("textDocument/didChange", textDocument={"uri": URI, "version": version})

    def ask(self, method: str, **params: Any) -> int:
        self._id += 1
        params = {"textDocument": {"uri": URI}, **params}
        message = {"id": self._id, "method": f"textDocument/{method}", "params": params}
        assert not list(self._talk.from_editor(message, self.now))
        return self._id

    def server(self, **message: Any) -> list[tuple[str, dict[str, Any]]]:
        return self._told(self._talk.from_server(message, self.now))

    def publish(
        self, *diagnostics: dict[str, Any], **more: Any
    ) -> list[tuple[str, dict[str, Any]]]:
        params = {"uri": URI, "diagnostics": list(diagnostics), **more}
        return self.server(method="textDocument/publishDiagnostics", params=params)

    def log(self, text: str, type: int = 1) -> list[tuple[str, dict[str, Any]]]:
        return self.server(method="window/logMessage", params={"type": type, "message": text})

    def passed(self, seconds: float) -> list[tuple[str, dict[str, Any]]]:
        self.now += seconds
        return self._told(self._talk.passed(self.now))


@pytest.fixture
def talk() -> Talk:
    """An editor that has opened a file."""
    made = Talk()
    made.open()
    return made


def diagnostic(message: str, line: int = 0, **more: Any) -> dict[str, Any]:
    start = {"line": line, "character": 4}
    return {"message": message, "range": {"start": start, "end": start}, "severity": 1, **more}


SYNTAX = diagnostic("Expected `)`", code="invalid-syntax")
TYPE = diagnostic("Undefined name `x`", line=2, code="F821")
FORMAT = "textDocument/formatting"


def test_a_save_is_told(talk: Talk) -> None:
    """A save is told with the language that the file was opened with."""
    assert talk.editor("textDocument/didSave") == [("save", {"language": "python"})]


def test_errors_are_told_when_they_change(talk: Talk) -> None:
    """Errors are told once as long as they are the same, in any order; other ones are told anew,
    and so is that there are none any more."""
    [(topic, payload)] = talk.publish(TYPE, SYNTAX, diagnostic("a hint", severity=4))
    assert topic == "lsp.diagnostic.error"
    assert payload == {
        "count": 2,
        "message": "Expected `)`",
        "line": 1,
        "column": 5,
        "code": "invalid-syntax",
    }
    assert talk.publish(SYNTAX, TYPE) == []
    assert talk.publish(TYPE)[0][1]["count"] == 1
    assert talk.publish(diagnostic("a hint", severity=2)) == [("lsp.diagnostic.cleared", {})]
    assert talk.publish() == []


def test_errors_that_are_asked_for_are_told(talk: Talk) -> None:
    """Errors in the answer to a pull are told, beside those that were pushed; unchanged ones are
    no news."""
    report = {"kind": "full", "items": [SYNTAX]}
    assert talk.server(id=talk.ask("diagnostic"), result=report)[0][1]["count"] == 1
    assert talk.publish(TYPE)[0][1]["count"] == 2
    assert talk.server(id=talk.ask("diagnostic"), result={"kind": "unchanged"}) == []
    report = {"kind": "full", "items": []}
    assert talk.server(id=talk.ask("diagnostic"), result=report)[0][1]["count"] == 1
    assert talk.publish() == [("lsp.diagnostic.cleared", {})]


def test_errors_of_other_files_are_told(talk: Talk) -> None:
    """What an answer says of related files, and of a whole workspace, is told of those files."""
    other = "file:///home/dev/app/other.py"
    full = {"kind": "full", "items": [TYPE]}
    related = {"kind": "full", "items": [], "relatedDocuments": {other: full}}
    assert talk.server(id=talk.ask("diagnostic"), result=related)[0][0] == "lsp.diagnostic.error"
    list(talk._talk.from_editor({"id": 1, "method": "workspace/diagnostic", "params": {}}, 0))
    items = {"items": [{**full, "uri": other}, {**full, "uri": URI}]}
    assert len(talk.server(id=1, result=items)) == 1


def test_closing_a_file_mends_nothing(talk: Talk) -> None:
    """Servers empty the list of a file that is closed: that is no fix; opened anew it is told
    anew. A fix elsewhere, later, is one."""
    talk.publish(TYPE)
    talk.editor("textDocument/didClose")
    assert talk.publish() == []
    talk.open()
    assert talk.publish(TYPE)[0][0] == "lsp.diagnostic.error"
    talk.editor("textDocument/didClose")
    talk.now += TIDYING + 1
    assert talk.publish() == [("lsp.diagnostic.cleared", {})]


def test_a_format_request_that_fails(talk: Talk) -> None:
    """An error in answer to a format request is told with its code."""
    for name in ("formatting", "rangeFormatting", "rangesFormatting"):
        error = {"code": -32601, "message": "Unhandled method"}
        assert talk.server(id=talk.ask(name), error=error) == [
            (
                "format.failed",
                {"method": f"textDocument/{name}", "message": "Unhandled method", "code": -32601},
            )
        ]


@pytest.mark.parametrize("code", [-32800, -32801, -32802])
def test_cancelled_is_not_failed(talk: Talk, code: int) -> None:
    """A format request that was cancelled, or outdated, did not fail, however it is answered."""
    assert talk.server(id=talk.ask("formatting"), error={"code": code, "message": "x"}) == []
    talk.publish(SYNTAX)
    id = talk.ask("formatting")
    talk.editor("$/cancelRequest", id=id)
    assert talk.server(id=id, result=None) == []
    id = talk.ask("formatting")
    talk.editor("$/cancelRequest", id=id)
    assert talk.server(id=id, error={"code": 1, "message": "x"}) == []


INFERRED = ("format.failed", {"method": FORMAT, "message": "Expected `)`", "inferred": True})


@pytest.mark.parametrize("empty", [None, []])
def test_an_empty_answer_for_broken_code(talk: Talk, empty: Any) -> None:
    """Nothing, in answer to a format request for a file with a syntax error, is a failure that is
    inferred; with other errors, or edits, it is none."""
    talk.publish(TYPE, SYNTAX)
    assert talk.server(id=talk.ask("formatting"), result=empty) == [INFERRED]
    assert talk.server(id=talk.ask("formatting"), result=[{"newText": "x"}]) == []
    talk.publish(TYPE)
    assert talk.server(id=talk.ask("formatting"), result=empty) == []


def test_an_empty_answer_waits_for_diagnostics_of_its_text(talk: Talk) -> None:
    """The answer may come before the diagnostics of the text that was formatted: those decide, not
    the ones before."""
    talk.publish(version=1)
    talk.change(2)
    assert talk.server(id=talk.ask("formatting"), result=None) == []
    assert talk.publish(SYNTAX, version=2)[1:] == [INFERRED]
    talk.change(3)  # mended, and nothing to format
    assert talk.server(id=talk.ask("formatting"), result=None) == []
    assert talk.publish(SYNTAX, version=2) == []  # late, and of the text before
    assert talk.publish(version=3) == [("lsp.diagnostic.cleared", {})]


def test_an_empty_answer_does_not_wait_for_ever(talk: Talk) -> None:
    """A server that does not send the same list twice is taken at its last word."""
    talk.publish(SYNTAX, version=1)
    talk.change(2)
    assert talk.server(id=talk.ask("formatting"), result=None) == []
    assert talk.passed(FRESH - 0.1) == []
    assert talk.passed(0.2) == [INFERRED]
    assert talk.passed(FRESH) == []


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ("ERROR ⛔️ Error while formatting: Error: Shfmt: exited with status 1", 1),
        ("Code formatting aborted due to parsing errors.", 2),
    ],
)
def test_a_log_message_explains(talk: Talk, text: str, type: int) -> None:
    """What a server logs of formatting explains its empty answer, before it and after it, and is
    told once (bash-language-server, biome)."""
    told = [("format.failed", {"method": FORMAT, "message": text})]
    id = talk.ask("formatting")
    assert talk.log(text, type) == []
    assert talk.server(id=id, result=None) == told
    assert talk.log(text, type) == []
    assert talk.server(id=talk.ask("formatting"), result=None) == []
    assert talk.log(text, type) == told
    talk.now += 60
    assert talk.log(text, type) == []


@pytest.mark.parametrize(
    ("text", "type"),
    [("Error while parsing", 1), ("formatting took 3 ms", 1), ("formatting failed", 3)],
)
def test_other_log_messages_say_nothing(talk: Talk, text: str, type: int) -> None:
    """A message that speaks of something else, or of no failure, is none."""
    id = talk.ask("formatting")
    talk.log(text, type)
    assert talk.server(id=id, result=None) == []


@pytest.mark.parametrize(
    ("found", "syntax"),
    [
        ({"message": "x", "code": "invalid-syntax"}, True),
        ({"message": "x", "code": "parse"}, True),
        ({"message": "invalid syntax"}, True),
        ({"message": "E901 TokenError: EOF in multi-line statement", "code": "E901"}, True),
        ({"message": "Expected parameter name"}, True),
        ({"message": "')' expected.", "code": 1005}, True),
        ({"message": "Expected 1 arguments, but got 0.", "code": 2554}, False),
        ({"message": "Expected 1 positional argument", "code": "reportCallIssue"}, False),
        ({"message": "mismatched types: expected `u8`", "code": "E0308"}, False),
        ({"message": "Undefined name `x`"}, False),
    ],
)
def test_which_errors_are_of_syntax(talk: Talk, found: dict[str, Any], syntax: bool) -> None:
    """Errors of syntax are known by their codes, or by their words where they have none."""
    talk.publish({**diagnostic(""), **found})
    assert bool(talk.server(id=talk.ask("formatting"), result=None)) == syntax


@pytest.mark.parametrize(
    "play",
    [
        lambda talk: talk.publish("text", None, {"severity": 1}, {"range": 5, "message": 7}),
        lambda talk: talk.publish(uri=5),
        lambda talk: talk.server(method="textDocument/publishDiagnostics", params=[1]),
        lambda talk: talk.server(id=talk.ask("diagnostic"), result=[]),
        lambda talk: talk.server(id=talk.ask("diagnostic"), result={"kind": "full", "items": 3}),
        lambda talk: talk.server(id=talk.ask("formatting"), error="no"),
        lambda talk: talk.server(id={"a": 1}, result=None),
        lambda talk: talk.editor("textDocument/didSave", textDocument=None),
        lambda talk: talk.editor("textDocument/didSave", textDocument={"uri": "untitled:1"}),
        lambda talk: talk.editor("initialize", clientInfo=3, processId="x"),
        lambda talk: talk.log(5),
    ],
)
def test_what_no_specification_knows_is_borne(talk: Talk, play: Callable[[Talk], Any]) -> None:
    """A message of any shape ends nothing: what follows is understood."""
    play(talk)
    assert talk.publish(TYPE)[-1][0] == "lsp.diagnostic.error"
