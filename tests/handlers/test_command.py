"""The action `command`."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError
from tests.conftest import limited, run
from tests.handlers.conftest import EVENT

from opsmesh.handlers.actions.command import Command
from opsmesh.handlers.actions.contract import Action, StepContext, StepResult

Context = Callable[..., StepContext]

#: Prints its arguments as JSON.
ECHO = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]


def do(value: Any, ctx: StepContext) -> StepResult:
    result = run(Command.parse(value).run(ctx))
    assert isinstance(result, StepResult)
    return result


def test_is_an_action() -> None:
    """Command keeps the contract of actions."""
    assert isinstance(Command.parse(["true"]), Action)


def test_one_argument_stays_one(context: Context) -> None:
    """Whatever an event holds reaches the program as one argument, unread."""
    evil = 'a b\'; rm -rf "$HOME" $(id) `id` * ${{ host }}\n--x'
    event = msgspec.structs.replace(EVENT, payload={"x": evil, "list": [1, "é"]})
    argv = [*ECHO, "${{ event.payload.x }}", "n=${{ vars.limit }}", "${{ event.payload.list }}", 7]
    result = do(argv, _with(context, event))
    assert result.ok
    assert json.loads(result.output["stdout"]) == [evil, "n=3", '[1,"é"]', "7"]


def _with(context: Context, event: Any) -> StepContext:
    ctx = context(event=event)
    assert ctx.variables["event"]["payload"] == event.payload
    return ctx


def test_described_as_before() -> None:
    """A profile without a sandbox has the hash that it had before there were any."""
    assert Command.parse(["ls"]).describe() == {
        "argv": ["ls"],
        "cwd": None,
        "env": {},
        "stdin": "none",
        "output_limit": 8192,
    }
    assert Command.parse({"argv": ["ls"], "sandbox": "bwrap"}).describe()["sandbox"] == "bwrap"


def test_failure(context: Context) -> None:
    """An exit code other than 0 is a failure that may be retried, with the last line of errors."""
    result = do(["sh", "-c", "echo why >&2; exit 4"], context())
    assert (result.ok, result.exit_code, result.retryable) == (False, 4, True)
    assert result.error == "exit code 4: why"


def test_time_limit(context: Context) -> None:
    """A program over the step's time limit is stopped, and its output kept."""

    def within(seconds: float) -> StepResult:
        result = do(["sh", "-c", "echo begun; exec sleep 60"], context(timeout=seconds))
        assert result.timed_out
        assert result.error == f"stopped after {seconds:g} s, the step's time limit"
        return result

    result = limited(within, lambda one: one.output["stdout"])
    assert result.output["stdout"] == "begun\n"


def test_environment(context: Context) -> None:
    """The program finds the facts of its step and what the profile adds, in its run's folder."""
    ctx = context()
    result = do({"argv": ["env"], "env": {"EXTRA": "on ${{ host }}"}}, ctx)
    env = dict(line.split("=", 1) for line in result.output["stdout"].splitlines())
    assert env["EXTRA"] == "on dev"
    assert env["OPSMESH_EVENT_ID"] == EVENT.id
    assert env["OPSMESH_CORRELATION_ID"] == "story"
    assert env["OPSMESH_HOPS"] == str(EVENT.hops + 1)
    assert env["OPSMESH_IDEMPOTENCY_KEY"] == "run1:step"
    assert env["OPSMESH_ATTEMPT"] == "2"
    assert env["OPSMESH_PROFILE"] == "triage"
    assert env["OPSMESH_RUN_ID"] == "run1"
    assert env["OPSMESH_SESSION"] == EVENT.session_id != ""
    assert env["OPSMESH_WORKSPACE"] == EVENT.workspace
    event_file = Path(env["OPSMESH_EVENT"])
    assert event_file.read_bytes() == ctx.data
    assert stat.S_IMODE(event_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("strange", ["a\0b", "x" * 200_000])
def test_a_workspace_that_no_environment_can_hold(context: Context, strange: str) -> None:
    """What a stranger calls session and workspace keeps no program from being started."""
    ctx = context()
    event = msgspec.structs.replace(ctx.event, session_id=strange, workspace=strange)
    result = do(
        ["sh", "-c", 'echo "$OPSMESH_SESSION$OPSMESH_WORKSPACE"'], replace(ctx, event=event)
    )
    assert result.output["stdout"] == "\n"


def test_stdin_and_folder(context: Context, tmp_path: Path) -> None:
    """`stdin: event` gives the event's own bytes; `cwd` is where the program starts."""
    ctx = context()
    result = do({"argv": ["cat"], "stdin": "event"}, ctx)
    assert result.output["stdout"].encode() == ctx.data
    result = do({"argv": ["pwd"], "cwd": str(tmp_path)}, ctx)
    assert result.output["stdout"] == f"{tmp_path}\n"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["no-such-command-here"], "command 'no-such-command-here' is not found"),
        (["echo", '${{ "a" + event.payload.nul }}'], "argument 1 holds a NUL byte"),
        (["echo", "${{ event.payload.nope }}"], "${{ event.payload.nope }}: no field"),
        ({"argv": ["ls"], "cwd": "/no/such/folder"}, "the working directory '/no/such/folder'"),
        ({"argv": ["ls"], "cwd": "${{ event.workspace }}"}, "the working directory '' is not"),
        ({"argv": ["ls"], "cwd": "~no-such-user"}, "the working directory '~no-such-user'"),
        ({"argv": ["ls"], "cwd": "/${{ event.payload.nul }}"}, "the working directory"),
    ],
)
def test_hopeless(context: Context, value: Any, said: str) -> None:
    """What no other attempt could change is not retried, and says why."""
    event = msgspec.structs.replace(EVENT, payload={"nul": "\0"})
    result = do(value, context(event=event))
    assert (result.ok, result.retryable) == (False, False)
    assert result.error is not None
    assert result.error.startswith(said)


def test_secrets_in_output(context: Context) -> None:
    """A secret that a program prints does not reach the ledger."""
    token = "ghp_" + "a1B2" * 9
    result = do(["echo", f"token {token}"], context())
    assert token not in result.output["stdout"]


@pytest.mark.parametrize(
    "value",
    [
        "ls -l",
        [],
        [""],
        ["ls", None],
        ["${{ event.payload.program }}"],
        {"argv": ["ls"], "env": {"OPSMESH_RUN_ID": "x"}},
        {"argv": ["ls"], "env": {"A B": "x"}},
        {"argv": ["ls"], "shell": True},
        {"argv": ["ls"], "output_limit": 10**9},
        {"argv": ["ls", "${{ event. }}"]},
    ],
)
def test_refused(value: Any) -> None:
    """What cannot be run as it is written is refused when the profile is loaded."""
    with pytest.raises((ValidationError, ValueError)):
        Command.parse(value)
