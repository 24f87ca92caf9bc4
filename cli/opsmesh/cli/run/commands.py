"""`opsmesh run`: what profiles have done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum
from typing import Annotated, Any, Final, get_args

import msgspec
import typer
from nats.aio.client import Client
from rich.console import Console
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.hub.hosts_option import Hosts
from opsmesh.cli.run import told as run_told
from opsmesh.cli.said import person
from opsmesh.cli.session import with_client
from opsmesh.handlers.explain import elsewhere
from opsmesh.handlers.explain.elsewhere import RunTold
from opsmesh.handlers.runs import answers, asking, cancelling
from opsmesh.handlers.runs.holder import Holder
from opsmesh.handlers.runs.ledger import Answer, Ledger, Run, RunState, StepRecord
from opsmesh.router.settings import Settings
from opsmesh.schemas import times
from opsmesh.schemas.nearest import did_you_mean

app = typer.Typer(no_args_is_help=True, help="What profiles have done: runs and their steps.")

COLOURS = {
    "succeeded": "green",
    "deadlettered": "red",
    "retrying": "yellow",
    "waiting": "magenta",
    "asked": "magenta",
    "failing": "red",
    "running": "cyan",
    "done": "green",
    "failed": "red",
    "unknown": "magenta",
}
STATES: Final[tuple[RunState, ...]] = get_args(RunState)


class Choice(StrEnum):
    """How a run goes on."""

    retry = "retry"
    skip = "skip"
    fail = "fail"


@app.command("ls")
def ls(
    profile: Annotated[str | None, typer.Option("--profile", "-p", help="Only this one's.")] = None,
    state: Annotated[
        str | None,
        typer.Option(help=f"Only these: {', '.join(STATES)}."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", "-H", help="Only of these hosts; * stands for anything: 'web*'."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest N.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the newest runs.

    On a leaf host those of its own handlers; opsmesh --hub run ls lists what was decided at the
    hub. What other leaves' handlers did, their events tell: opsmesh --hub tail -t 'automation.>'.

    Examples: opsmesh run ls --state waiting
              opsmesh run ls --host 'web*'
    """
    if state is not None and state not in STATES:
        output.fail(
            f"{state!r} is no state of a run",
            hint=f"one of {', '.join(STATES)}{did_you_mean(state, STATES)}",
            code=output.USAGE,
        )
    hosts = Hosts(host or ())
    runs = [run for run in with_client(_all(profile)) if state is None or run.state == state]
    runs = [run for run in runs if hosts.named(run.host)]
    newest = sorted(runs, key=lambda run: run.updated_us)[-limit:]
    if as_json:
        output.as_json([record(run) for run in newest])
        return
    rows = [
        {
            "time": output.local(times.format_us(run.updated_us)),
            "state": run.state,
            "profile": run.profile,
            "host": run.host,
            "topic": run.topic,
            "attempt": run.attempt,
            "took": f"{run.duration_ms:.0f} ms" if run.duration_ms is not None else None,
            "holder": _held(run),
            "run": run.run_id,
        }
        for run in newest
    ]
    held = ["holder"] if any(row["holder"] for row in rows) else []
    where = ["host"] if len({row["host"] for row in rows}) > 1 else []
    none = "no runs yet; `opsmesh profile ls` shows what would"
    if profile or host or state:
        none = f"no run is {state}" if state and not (profile or host) else "no run matches"
    output.table(
        rows,
        ["time", "state", "profile", *where, "topic", "attempt", "took", *held, "run"],
        empty=none,
        style=lambda name, value: COLOURS.get(value, "") if name == "state" else "",
    )
    if any(run.state == "waiting" and _open(run) for run in newest):
        output.note("answer for one that waits: opsmesh run answer RUN retry|skip|fail")
    if any(run.question is not None for run in newest):
        output.note("approve or deny what waits: opsmesh approvals ls")


@app.command("show")
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its start.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show one run: its steps, their output, and the error of every attempt.

    A run's record stays with the handlers that have it. Of another broker's run (a leaf's, asked at
    the hub) only what its events tell is known here, and which host to ask.
    """

    async def body(client: Client, settings: Settings) -> Run | list[RunTold]:
        runs = [run async for run in Ledger(client).runs()]
        if not run_id or any(run.run_id.startswith(run_id) for run in runs):
            return _find(runs, run_id)
        return await elsewhere.of_run(client, run_id)

    run = with_client(body)
    if isinstance(run, list):
        run_told.show(run, run_id, as_json=as_json)
        return
    if as_json:
        output.as_json(record(run))
        return
    describe(output.console(), run)


@app.command("answer")
def answer(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its start.")],
    choice: Annotated[
        Choice,
        typer.Argument(
            help="retry: run the step again; skip: go on with the next one; fail: give the run up, "
            "its event goes to the dead letters."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why; it goes into the record.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say how a run goes on that waits because nobody knows how its step went.

    Saying the same twice is harmless. Example: opsmesh run answer 01a205fc skip --reason "is done"
    """

    async def body(client: Client, settings: Settings) -> tuple[Run, Answer, bool]:
        ledger = Ledger(client)
        run = _find([run async for run in ledger.runs()], run_id)
        return await answers.give(
            ledger,
            run.key,
            choice.value,
            by=person(),
            host=settings.host,
            # an argument that is not UTF-8 cannot be stored as it is
            reason=reason.encode(errors="surrogateescape").decode(errors="replace"),
        )

    try:
        run, given, new = with_client(body)
    except answers.NotWaiting as error:
        if (asked := error.run.question) is not None:
            output.fail(
                f"run {error.run.run_id} waits for an approval: {asked.prompt}",
                hint=f"opsmesh approve {asked.id}, or opsmesh deny {asked.id}",
            )
        output.fail(str(error), hint="those that do: opsmesh run ls --state waiting")
    except answers.AnsweredOtherwise as error:
        output.fail(f"run {error.run.run_id} is answered: {error}", hint=_see(error.run))
    if as_json:
        facts = {"run": run.run_id, "profile": run.profile, "state": run.state, "new": new}
        output.as_json({**facts, **_answer(given)})
        return
    step = f"step {given.step} of {run.profile}"
    if not new:
        output.note(f"{step} was answered so before, at {times.clock(given.at_us)}")
        return
    what = {"retry": "is run again", "skip": "is skipped", "fail": "fails, and its run is given up"}
    output.note(f"{step} {what[given.choice]}, as soon as its handler hears of it\n{_see(run)}")


@app.command("cancel")
def cancel(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its start.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the record.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """End a run that is not wanted any more: its step is stopped, and nothing follows.

    Example: opsmesh run cancel 01a205fc --reason "the wrong branch"
    """

    async def body(client: Client, settings: Settings) -> Run:
        ledger = Ledger(client)
        run = _find([run async for run in ledger.runs()], run_id)
        if run.finished:
            output.fail(f"run {run.run_id} is over: it is {run.state}", hint=_see(run))
        by = person() or "somebody"
        why = f"cancelled by {by}" + (f": {reason}" if reason else "")
        if not await cancelling.ask(client, run.run_id, why):
            output.fail(f"no handlers have run {run.run_id}", hint="are they up? opsmesh status")
        return await cancelling.over(ledger, run)

    run = with_client(body)
    if as_json:
        output.as_json({"run": run.run_id, "profile": run.profile, "state": run.state})
    elif run.finished:
        output.note(f"run {run.run_id} of {run.profile} is {run.state}")
    else:
        output.note(f"run {run.run_id} of {run.profile} is told to end; {_see(run)}")


def _find(runs: list[Run], run_id: str) -> Run:
    found = [run for run in runs if run_id and run.run_id.startswith(run_id)]
    if not found:
        output.fail(f"no run {run_id} is known", hint="opsmesh run ls", code=output.NOT_FOUND)
    if len(found) > 1:
        what = f"{len(found)} runs begin with {run_id}; write more of the id"
        output.fail(what, code=output.USAGE)
    return found[0]


def _see(run: Run) -> str:
    return f"see what becomes of it: opsmesh run show {run.run_id}"


def _open(run: Run) -> bool:
    return run.unsettled is not None and run.answer(run.unsettled) is None


def _held(run: Run) -> str | None:
    """Who has it, or had it when it came to wait."""
    step = run.unsettled
    holder = run.holder or (step.held_by if step is not None else None)
    return None if holder is None or run.finished else str(holder)


def describe(console: Console, run: Run) -> None:
    """Print one run with its steps."""
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
        ("held by", _lease(run.holder) if run.holder else ""),
        ("reason", run.reason),
        ("dead letter", str(run.dlq_seq or "")),
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
        if text := _progress(step):
            console.print(f"    [dim]progress:[/] {escape(text)}")
        for text in _unknown(step):
            console.print(f"    {escape(text)}")
        if step.error:
            console.print(f"    [red]{escape(step.error)}[/]")
        for asked in step.asked:
            console.print(
                f"    [magenta]asked[/] [dim]{times.clock(asked.asked_us)}[/] "
                f"{escape(asked.prompt)} [dim]·[/] {escape(asking.why(asked))}"
            )
    for error in run.errors:
        when = output.local(times.format_us(error.at_us))
        console.print(
            f"  [red]attempt {error.attempt}[/] [dim]{when} {escape(error.step)}[/] "
            f"{escape(error.error)}"
        )
    for given in run.answers:
        why = f": {given.reason}" if given.reason else ""
        console.print(
            f"  [magenta]answer[/] [dim]{times.clock(given.at_us)} {escape(given.step)}[/] "
            f"{given.choice}, by {escape(given.by)} on {escape(given.host)}{escape(why)}"
        )
    if any("bundle" in step.output for step in run.steps):
        console.print(f"  [dim]its evidence: opsmesh evidence bundle show {run.run_id}[/]")
    if run.state == "waiting" and _open(run):
        console.print(f"  [dim]next: opsmesh run answer {run.run_id} retry|skip|fail[/]")
    if (question := run.question) is not None:
        console.print(
            f"  [dim]next: opsmesh approve {question.id}, or opsmesh deny {question.id}[/]"
        )


def _progress(step: StepRecord) -> str:
    """How far a step said it was; told while it is under way, and of one that did not end well."""
    done = step.saved.get("progress")
    if step.state == "done" or not isinstance(done, int | float):
        return ""
    total, said = step.saved.get("total"), step.saved.get("message")
    of = f" of {total:g}" if isinstance(total, int | float) else ""
    return f"{done:g}{of}" + (f": {said}" if said else "")


def _unknown(step: StepRecord) -> Iterator[str]:
    if step.unknown_us:
        by = f"; it was held by {step.held_by}" if step.held_by else ""
        yield f"unknown since {times.clock(step.unknown_us)}{by}"
        if step.state == "unknown":
            yield f"its on_unknown is {step.on_unknown}"


def _lease(holder: Holder) -> str:
    return f"{holder}, until {times.clock(holder.until_us)} unless it renews"


def _all(profile: str | None) -> Callable[[Client, Settings], Awaitable[list[Run]]]:
    async def body(client: Client, settings: Settings) -> list[Run]:
        return [run async for run in Ledger(client).runs(profile)]

    return body


def record(run: Run) -> dict[str, Any]:
    """A run as JSON, its times as UTC text."""
    found: dict[str, Any] = msgspec.to_builtins(run)
    found |= {"state": run.state, "attempt": run.attempt}  # of one that is queued, too
    for name in ("created_us", "updated_us"):
        found[name.removesuffix("_us")] = times.format_us(found.pop(name))
    for error in found.get("errors", []):
        error["at"] = times.format_us(error.pop("at_us"))
    for step in found.get("steps", []):
        step["started"] = times.format_us(step.pop("started_us"))
        if "asked" in step:
            step["asked"] = [_question(one) for one in step["asked"]]
        if "unknown_us" in step:
            step["unknown"] = times.format_us(step.pop("unknown_us"))
            _holder(step, "held_by")
    _holder(found, "holder")
    if run.answers:
        found["answers"] = [_answer(one) for one in run.answers]
    return found


def _holder(record: dict[str, Any], name: str) -> None:
    if name in record:
        holder = record[name]
        until = times.format_us(holder["until_us"])
        record[name] = {"host": holder["host"], "pid": holder["pid"], "until": until}


def _question(asked: dict[str, Any]) -> dict[str, Any]:
    """A question as JSON; what is known of its token is nobody's business."""
    asked.pop("token_sha256")
    for name in ("asked_us", "expires_us"):
        if name in asked:
            asked[name.removesuffix("_us")] = times.format_us(asked.pop(name))
    if "reply" in asked:
        asked["reply"]["at"] = times.format_us(asked["reply"].pop("at_us"))
    return asked


def _answer(given: Answer) -> dict[str, Any]:
    record: dict[str, Any] = msgspec.to_builtins(given)
    record["at"] = times.format_us(record.pop("at_us"))
    return record
