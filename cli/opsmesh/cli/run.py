"""`opsmesh run`: what profiles have done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
import typer
from nats.aio.client import Client
from rich.console import Console
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.session import with_client
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router.settings import Settings
from opsmesh.schemas import times

app = typer.Typer(no_args_is_help=True, help="What profiles have done: runs and their steps.")

COLOURS = {
    "succeeded": "green",
    "deadlettered": "red",
    "retrying": "yellow",
    "running": "cyan",
    "done": "green",
    "failed": "red",
    "unknown": "yellow",
}


@app.command("ls")
def ls(
    profile: Annotated[str | None, typer.Option("--profile", "-p", help="Only this one's.")] = None,
    state: Annotated[
        str | None,
        typer.Option(help="Only these: queued, running, retrying, succeeded or deadlettered."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="The newest N.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the newest runs.

    Example: opsmesh run ls --state deadlettered
    """
    runs = [run for run in with_client(_all(profile)) if state is None or run.state == state]
    newest = sorted(runs, key=lambda run: run.updated_us)[-limit:]
    if as_json:
        output.as_json([_record(run) for run in newest])
        return
    rows = [
        {
            "time": output.local(times.format_us(run.updated_us)),
            "state": run.state,
            "profile": run.profile,
            "topic": run.topic,
            "attempt": run.attempt,
            "took": f"{run.duration_ms:.0f} ms" if run.duration_ms is not None else None,
            "run": run.run_id,
        }
        for run in newest
    ]
    output.table(
        rows,
        ["time", "state", "profile", "topic", "attempt", "took", "run"],
        empty="no runs yet; `opsmesh profile ls` shows what would run",
        style=lambda name, value: COLOURS.get(value, "") if name == "state" else "",
    )


@app.command("show")
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its start.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show one run: its steps, their output, and the error of every attempt."""
    found = [run for run in with_client(_all(None)) if run.run_id.startswith(run_id)]
    if not found:
        output.fail(f"no run {run_id} is known", hint="opsmesh run ls", code=output.NOT_FOUND)
    if len(found) > 1:
        output.fail(f"{len(found)} runs begin with {run_id}; write more of the id", code=2)
    run = found[0]
    if as_json:
        output.as_json(_record(run))
        return
    _print(output.console(), run)


def _print(console: Console, run: Run) -> None:
    colour = COLOURS.get(run.state, "")
    state = f"[{colour}]{run.state}[/]" if colour else run.state
    console.print(f"[bold]{escape(run.profile)}[/] {state}, attempt {run.attempt}")
    for name, value in (
        ("run", run.run_id),
        ("event", f"{run.event_id} ({run.topic}, EVENTS {run.stream_seq})"),
        ("trigger", run.trigger),
        ("correlation", run.correlation_id),
        ("began", output.local(times.format_us(run.created_us))),
        ("took", f"{run.duration_ms:.0f} ms" if run.duration_ms is not None else ""),
        ("evidence", run.evidence_path or ""),
    ):
        if value:
            console.print(f"  [dim]{name:<12}[/]{escape(value)}")
    for step in run.steps:
        took = f"{step.duration_ms:.0f} ms" if step.duration_ms is not None else "-"
        colour = COLOURS.get(step.state, "dim")
        console.print(f"  [{colour}]{step.state:<8}[/] {escape(step.id)} [dim]{took}[/]")
        for name, value in step.output.items():
            if isinstance(value, str) and value.strip():
                console.print(f"    [dim]{escape(name)}:[/] {escape(value.rstrip())}")
        if step.error:
            console.print(f"    [red]{escape(step.error)}[/]")
    for error in run.errors:
        when = output.local(times.format_us(error.at_us))
        console.print(
            f"  [red]attempt {error.attempt}[/] [dim]{when} {escape(error.step)}[/] "
            f"{escape(error.error)}"
        )


def _all(profile: str | None) -> Callable[[Client, Settings], Awaitable[list[Run]]]:
    async def body(client: Client, settings: Settings) -> list[Run]:
        return [run async for run in Ledger(client).runs(profile)]

    return body


def _record(run: Run) -> dict[str, Any]:
    """A run as JSON, its times as UTC text."""
    record: dict[str, Any] = msgspec.to_builtins(run)
    for name in ("created_us", "updated_us"):
        record[name.removesuffix("_us")] = times.format_us(record.pop(name))
    for error in record.get("errors", []):
        error["at"] = times.format_us(error.pop("at_us"))
    for step in record.get("steps", []):
        step["started"] = times.format_us(step.pop("started_us"))
    return record
