"""A run of another broker, as its events tell of it: all that `run show` can say here."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.markup import escape

from opsmesh.cli import output, session
from opsmesh.handlers.explain.elsewhere import RunTold

_COLOURS = {"succeeded": "green", "done": "green", "deadlettered": "red", "failed": "red"}


def show(found: Sequence[RunTold], run_id: str, *, as_json: bool) -> None:
    """Print the one that is meant; ends the command when there is none, or more than one."""
    if not found:
        output.fail(
            f"no run {run_id} is known",
            hint="opsmesh --hub run show asks the hub" if session.is_leaf() else "opsmesh run ls",
            code=output.NOT_FOUND,
        )
    if len(found) > 1:
        what = f"{len(found)} runs begin with {run_id}; write more of the id"
        output.fail(what, code=output.USAGE)
    told = found[0]
    if as_json:
        output.as_json({**msgspec.to_builtins(told), "ledger": told.host})
        return
    console = output.console()
    console.print(f"[bold]{escape(told.profile)}[/] {_styled(told.state)}, attempt {told.attempt}")
    for name, value in (
        ("run", told.run_id),
        ("host", told.host),
        ("event", f"{told.event_id} ({told.topic})"),
        ("correlation", told.correlation_id),
        ("told", output.local(told.time)),
        ("error", told.error),
    ):
        if value:
            console.print(f"  [dim]{name:<12}[/]{escape(value)}")
    for step in told.steps:
        outcome = str(step.get("outcome") or "")
        console.print(f"  {_styled(f'{outcome:<8}')} {escape(str(step.get('id')))}")
    console.print(f"  [dim]{escape(told.hint)}[/]")


def _styled(state: str) -> str:
    colour = _COLOURS.get(state.strip(), "dim")
    return f"[{colour}]{escape(state)}[/]"
