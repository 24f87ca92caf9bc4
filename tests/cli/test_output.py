"""What is stored does not act on a terminal."""

from __future__ import annotations

import json

import pytest
import typer
from rich.markup import escape

from opsmesh.cli import output

EVIL = "a\x1b]52;c;eA==\x07b\x9b2J\u202egnp\u2066\rc"
SEEN = "a\\x1b]52;c;eA==\\x07b\\x9b2J\\u202egnp\\u2066\\x0dc"


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """A cell shows controls and marks of direction."""
    output.table([{"x": EVIL}], ["x"], empty="")
    assert SEEN in capsys.readouterr().out


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """So do lines, notes and errors."""
    output.console().print(f"[bold]{escape(EVIL)}[/]")
    output.note(EVIL)
    with pytest.raises(typer.Exit):
        output.fail(EVIL, hint=EVIL)
    told = capsys.readouterr()
    assert told.out.count(SEEN) == 1
    assert told.err.count(SEEN) == 3


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has them escaped, and says the same."""
    output.as_json({"x": EVIL, "é": "ü"})
    text = capsys.readouterr().out
    assert not set(text) & {"\x1b", "\x9b", "\u202e", "\u2066", "\x07"}
    assert json.loads(text) == {"x": EVIL, "é": "ü"}
    assert "ü" in text


def test_line_breaks_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """Text of several lines stays that."""
    output.console().print("a\n\tb")
    assert capsys.readouterr().out.split("\n")[0] == "a"
