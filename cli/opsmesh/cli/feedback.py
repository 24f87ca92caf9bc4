"""`opsmesh feedback`: what a person says of a run, and how profiles stand in their budgets.

`opsmesh feedback RUN --useful` is the command `mark`: whatever is no other command is a run.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import typer
from nats.aio.client import Client
from typer.core import TyperGroup

from opsmesh.cli import output
from opsmesh.cli.profiles import lookup as profile_lookup
from opsmesh.cli.said import person
from opsmesh.cli.session import with_client
from opsmesh.handlers.feedback import feedback
from opsmesh.handlers.feedback.feedback import Judgement, Rate, Recorded, Verdict
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.spec import FalsePositivesSpec
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import redaction
from opsmesh.router.settings import Settings
from opsmesh.schemas.envelope import host_token

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]

MARK: Final = "mark"


class _Group(TyperGroup):
    """Takes a run where a command may stand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [MARK, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    subcommand_metavar="RUN (--false-positive | --useful) | COMMAND",
    help="""Say whether a run was worth it; see how often profiles were wrong.

    Example: opsmesh feedback 01a205fc --false-positive --note "the unit was stopped by hand"
    """,
)


@app.command(MARK)
def mark(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its start.")],
    false_positive: Annotated[
        bool, typer.Option("--false-positive", help="It should not have run.")
    ] = False,
    useful: Annotated[bool, typer.Option("--useful", help="It was right to run.")] = False,
    note: Annotated[str, typer.Option(help="Why, in your words.")] = "",
    as_json: AsJson = False,
) -> None:
    """Judge a run; the word `mark` can be left out. Judging it again replaces what was said.

    Example: opsmesh feedback 01a205fc --useful
    """
    if false_positive == useful:
        output.fail("say which: --false-positive or --useful", code=output.USAGE)
    verdict: Verdict = "useful" if useful else "false_positive"
    found = profile_lookup.load()

    async def body(client: Client, settings: Settings) -> tuple[Run, Recorded, str]:
        run = _find([run async for run in Ledger(client).runs()], run_id)
        recorded = await feedback.record(
            client,
            run,
            verdict,
            host=settings.host,
            redactor=redaction.load(settings),
            profile=found.profiles.get(run.profile),
            by=person(),
            # an argument that is not UTF-8 cannot be stored as it is
            note=note.encode(errors="surrogateescape").decode(errors="replace"),
        )
        return run, recorded, settings.host

    run, recorded, host = with_client(body)
    profile = found.profiles.get(run.profile)
    if as_json:
        output.as_json(_facts(run, verdict, recorded, profile))
        return
    output.note(f"run {run.run_id} of {run.profile} is marked {verdict.replace('_', ' ')}")
    if run.trigger != "event":
        output.note("it was asked for by hand, so it does not count in the profile's rate")
    if profile is None:
        output.note(f"no profile {run.profile} is in force: its budget was not looked at")
        profile_lookup.say_errors(found)
    elif profile.false_positives is not None and recorded.rate is not None:
        _say_budget(profile.name, profile.false_positives, recorded)
    if recorded.shadowed:
        output.note(
            f"{run.profile} is in shadow now on this host: it decides, and runs nothing\n"
            f"undo it: opsmesh profile enable {run.profile}"
        )
        if host_token(run.host) != host_token(host):
            there = f"opsmesh profile shadow {run.profile}"
            output.note(f"the run was on {run.host}; for the profile there: {there}")


@app.command("ls")
def ls(
    profile: Annotated[str | None, typer.Option("--profile", "-p", help="Only this one.")] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "--last",
            "-n",
            min=1,
            help=f"Judged runs to look at; as many as the budget says, or {feedback.OF_LAST}.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how often each profile was wrong, and its budget.

    \b
    judged    false positives among the last judged runs
    all       false positives among all runs that are remembered; unjudged ones count as fine
    budgeted  false positives among the last runs that the budget looks at

    Example: opsmesh feedback ls --profile triage
    """
    found = profile_lookup.load()

    async def body(client: Client, _: Settings) -> tuple[list[Run], list[Judgement]]:
        runs = [run async for run in Ledger(client).runs(profile)]
        return runs, await feedback.judgements(client)

    runs, judged = with_client(body)
    verdicts = feedback.newest(judged)
    budgets = {n: p.false_positives for n, p in found.profiles.items() if p.false_positives}
    names = sorted({run.profile for run in runs} | budgets.keys())
    if profile is not None:
        if profile not in names:
            profile_lookup.find(found, profile)
        names = [profile]
    counted = {n: feedback.counted(run for run in runs if run.profile == n) for n in names}
    rows = [_row(n, counted[n], verdicts, budgets.get(n), last) for n in names]
    if as_json:
        output.as_json(rows)
    else:
        output.table(
            [_shown(row) for row in rows],
            ["profile", "runs", "false_positives", "useful", "judged", "all", "budgeted", "budget"],
            empty="nothing has run yet; judge a run: opsmesh feedback RUN --false-positive",
            style=lambda name, value: "red" if name == "budgeted" and "over" in str(value) else "",
        )
    profile_lookup.say_errors(found)


def _find(runs: list[Run], run_id: str) -> Run:
    """The run of this id, or the one whose id begins so; ends the command when there is none."""
    chosen = [run for run in runs if run_id and run.run_id.startswith(run_id)]
    if not chosen:
        output.fail(f"no run {run_id} is known", hint="opsmesh run ls", code=output.NOT_FOUND)
    if len(chosen) > 1:
        what = f"{len(chosen)} runs begin with {run_id}; write more of the id"
        output.fail(what, code=output.USAGE)
    if chosen[0].state == "skipped":
        output.fail(f"run {chosen[0].run_id} was skipped: it did nothing that could be judged")
    return chosen[0]


def _say_budget(name: str, spec: FalsePositivesSpec, recorded: Recorded) -> None:
    found = recorded.rate or Rate(runs=0, false_positives=0)
    many = "false positive" if found.false_positives == 1 else "false positives"
    runs = f"its last {found.runs} runs" if found.runs != 1 else "1 run"
    output.note(
        f"{name}: {found.false_positives} {many} in {runs} "
        f"({_percent(found.share)}), the budget is {_percent(spec.budget)}"
    )
    if recorded.told is not None:
        output.note(
            f"{name} is over its budget of false positives\n"
            f"make it tighter: opsmesh profile suggest {name}"
        )
    elif recorded.over:
        output.note(f"{name} is over its budget, as was told before")


def _facts(
    run: Run, verdict: Verdict, recorded: Recorded, profile: Profile | None
) -> dict[str, Any]:
    spec = profile.false_positives if profile else None
    return {
        "run": run.run_id,
        "profile": run.profile,
        "verdict": verdict,
        "event": recorded.event.id,
        "counts": run.trigger == "event",
        "budget": _budget(spec, recorded.rate) if spec and recorded.rate else None,
        "told": recorded.told.id if recorded.told else None,
        "shadowed": recorded.shadowed,
    }


def _row(
    name: str,
    runs: list[Run],
    verdicts: dict[str, Verdict],
    spec: FalsePositivesSpec | None,
    last: int | None,
) -> dict[str, Any]:
    judged = [run for run in runs if run.run_id in verdicts]
    of_last = last or (spec.of_last if spec else feedback.OF_LAST)
    everything = feedback.rate(runs, verdicts)
    return {
        "profile": name,
        "runs": len(runs),
        "false_positives": everything.false_positives,
        "useful": len(judged) - everything.false_positives,
        "judged": _rate(feedback.rate(judged, verdicts, last=of_last)),
        "all": _rate(everything),
        "budget": _budget(spec, feedback.rate(runs, verdicts, last=spec.of_last)) if spec else None,
    }


def _rate(found: Rate) -> dict[str, Any]:
    return {**msgspec.to_builtins(found), "rate": round(found.share, 6) if found.runs else None}


def _budget(spec: FalsePositivesSpec, found: Rate) -> dict[str, Any]:
    return {
        **{"budget": spec.budget, "of_last": spec.of_last, "then": spec.then},
        **{**_rate(found), "over": feedback.is_over(spec, found)},
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    budget = row["budget"]
    shown = {**row, "judged": _fraction(row["judged"]), "all": _fraction(row["all"])}
    shown["budget"] = budget and f"{_percent(budget['budget'])} of {budget['of_last']}"
    if budget:
        shown["budgeted"] = _fraction(budget) + (" over" if budget["over"] else "")
    return {name: "0" if value == 0 else value for name, value in shown.items()}


def _fraction(found: dict[str, Any]) -> str:
    if found["rate"] is None:
        return ""
    return f"{_percent(found['rate'])} ({found['false_positives']}/{found['runs']})"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"
