"""What an event may put into an argument list."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError
from tests.conftest import run
from tests.handlers.conftest import EVENT

from opsmesh.handlers.actions.arguments import open_places, script_of
from opsmesh.handlers.actions.command import Command
from opsmesh.handlers.actions.contract import StepContext, StepResult

Context = Callable[..., StepContext]

X = "${{ event.payload.x }}"
#: A program that writes down what it was given, beginning with `-c` of python.
ECHO = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]


def tool(tmp_path: Path) -> str:
    """The same program as a file, so that no option of python comes first."""
    path = tmp_path / "tool"
    path.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    path.chmod(0o755)
    return str(path)


def do(context: Context, x: Any, argv: list[str], **more: Any) -> StepResult:
    event = msgspec.structs.replace(EVENT, payload={"x": x})
    result = run(Command.parse({"argv": argv, **more}).run(context(event=event)))
    assert isinstance(result, StepResult)
    return result


def given(result: StepResult) -> list[str]:
    assert result.ok, result
    found: list[str] = json.loads(result.output["stdout"])
    return found


@pytest.mark.parametrize("x", ["-rf", "--output=/etc/passwd", "-", "--"])
def test_becomes_no_option(context: Context, tmp_path: Path, x: str) -> None:
    """A value from an event that would be an option fails the step, and names the argument."""
    result = do(context, x, [tool(tmp_path), "-v", X])
    assert (result.ok, result.retryable) == (False, False)
    assert result.error == (
        f"argument 2 ({X}) became an option: {x!r}; write '--' before it where the program takes "
        "that, or options_from_events: true if it is meant"
    )


def test_after_the_end_of_options(context: Context, tmp_path: Path) -> None:
    """After a `--` it is data, by the program's own rule."""
    assert given(do(context, "-rf", [tool(tmp_path), "--", X])) == ["--", "-rf"]


def test_value_of_an_option(context: Context, tmp_path: Path) -> None:
    """Behind text of the profile it cannot become one."""
    assert given(do(context, "-rf", [tool(tmp_path), f"--unit={X}"])) == ["--unit=-rf"]


def test_meant(context: Context, tmp_path: Path) -> None:
    """A profile may say that events choose options."""
    assert given(do(context, "-v", [tool(tmp_path), X], options_from_events=True)) == ["-v"]


def test_from_an_earlier_step(context: Context, tmp_path: Path) -> None:
    """What a program said is no more trusted than an event."""
    ctx = context()
    variables = {**ctx.variables, "steps": {"a": {"stdout": "--force"}}}
    ctx = context(variables=variables)
    result = run(Command.parse([tool(tmp_path), "${{ steps.a.stdout }}"]).run(ctx))
    assert "became an option" in (result.error or "")


def test_from_the_profile(context: Context, tmp_path: Path) -> None:
    """The profile's own values may be options."""
    ctx = context(variables={**context().variables, "vars": {"flag": "-v"}})
    result = run(Command.parse([tool(tmp_path), "${{ vars.flag }}"]).run(ctx))
    assert json.loads(result.output["stdout"]) == ["-v"]


def test_behind_an_empty_value(context: Context, tmp_path: Path) -> None:
    """A placeholder that may be empty hides none behind it."""
    ctx = context(
        event=msgspec.structs.replace(EVENT, payload={"x": "-rf"}),
    )
    ctx = context(event=ctx.event, variables={**ctx.variables, "vars": {"empty": ""}})
    result = run(Command.parse([tool(tmp_path), "${{ vars.empty }}" + X]).run(ctx))
    assert "became an option" in (result.error or "")


def test_arguments_of_a_shells_program(context: Context) -> None:
    """What follows `sh -c TEXT` is that program's own, and may begin with anything."""
    result = do(context, "-rf", ["sh", "-c", 'printf %s "$1"', "sh", X])
    assert result.output["stdout"] == "-rf"
    assert given(do(context, "-rf", [*ECHO, X])) == ["-rf"]


@pytest.mark.parametrize(
    "x", ["", "\n", "a\n-b", "+x", "@file", " -x", "\u202e", "\x1b]0;x\x07", "é"]
)
def test_any_other_value(context: Context, tmp_path: Path, x: str) -> None:
    """Everything else arrives as it is, as one argument."""
    assert given(do(context, x, [tool(tmp_path), X])) == [x]


def test_too_long(context: Context, tmp_path: Path) -> None:
    """An argument that the kernel does not take fails the step, without its text."""
    result = do(context, "x" * 300_000, [tool(tmp_path), X])
    assert (result.ok, result.retryable) == (False, False)
    assert "Argument list too long" in (result.error or "")
    assert len(result.error or "") < 500


def test_half_of_a_character(context: Context, tmp_path: Path) -> None:
    """A text that is no Unicode cannot be an argument; it fails the step and not the handler."""
    ctx = context(variables={**context().variables, "vars": {"x": "a\ud800b"}})
    result = run(Command.parse([tool(tmp_path), "${{ vars.x }}"]).run(ctx))
    assert (result.ok, result.retryable) == (False, False)


@pytest.mark.parametrize(
    ("argv", "places"),
    [
        (["a", X, "--", X], [1]),
        (["a", f"-n{X}", f"{X}.txt", "${{ host }}", "${{ vars.x }}"], [2]),
        (["sh", "-c", "t", "sh", X], []),
        (["sh", "-x", X, "-c", "t"], [2]),
        (["perl", "-e", "t", X], [3]),
        (["a", "${{ size(events) }}"], [1]),
    ],
)
def test_open_places(argv: list[str], places: list[int]) -> None:
    """Which arguments could become options is known when the profile is loaded."""
    assert open_places(argv) == places


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", f"echo {X}"],
        ["/bin/bash", "-lc", X],
        ["bash", "-e", "-c", X],
        ["python3.11", "-c", f"print('{X}')"],
        ["perl", "-ne", X],
        ["node", "--eval", X],
        ["env", "A=1", "sh", "-c", X],
        ["su", "--command", X],
        ["sh", "-c", "${{ steps.a.stdout }}"],
    ],
)
def test_no_program_from_an_event(argv: list[str]) -> None:
    """The text that an interpreter runs is the profile's own."""
    with pytest.raises(ValidationError, match="is the text of a program"):
        Command.parse(argv)


@pytest.mark.parametrize(
    "argv", [["sh", "-c", "echo hi"], ["make", "-c", X], ["sh", "script", "-c", X], ["sh", "-c"]]
)
def test_other_programs(argv: list[str]) -> None:
    """Others, and other options, are left alone."""
    script = script_of(argv)
    assert script is None or X not in argv[script]
