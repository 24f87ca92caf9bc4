"""`opsmesh profile suggest`: how a profile could be tighter, from the runs that were judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from nats.aio.client import Client
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.events import moment
from opsmesh.cli.profiles import lookup as profile_lookup
from opsmesh.cli.profiles.backtest_period import archive
from opsmesh.cli.session import with_client
from opsmesh.handlers.backtest.source import Source, Stored
from opsmesh.handlers.cases.draft import dump
from opsmesh.handlers.feedback import feedback
from opsmesh.handlers.feedback.feedback import Verdict
from opsmesh.handlers.feedback.suggest import FEWEST, SHOWN, Report, Suggestion, Tally
from opsmesh.handlers.feedback.suggest import suggest as suggestions
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.profile import VERSION, Profile, parse
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.schemas import times
from opsmesh.schemas.registry import load_registry

#: How a person marks a run.
HOW: Final = "mark runs: opsmesh feedback RUN --false-positive (ids: opsmesh run ls --profile {})"


def suggest(
    name: Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name.")],
    since: Annotated[str, typer.Option(help="Begin this long ago (12h, 7d) or at a time.")] = "30d",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Write the changed profile to a new file."
        ),
    ] = None,
    pick: Annotated[
        int, typer.Option(min=1, max=SHOWN, help="Which suggestion -o writes; 1 is the best.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Suggest changes that false positives would not have passed, each tested on past events.

    It learns from the fields and times of runs that were marked with `opsmesh feedback`, and keeps
    every run that was marked useful. Nothing in force is changed.

    Example: opsmesh profile suggest triage -o new.yaml && opsmesh profile try new.yaml
    """
    since_us, until_us = moment(since) or 0, times.now_us()
    if since_us >= until_us:
        output.fail("--since is not in the past", code=output.USAGE)
    if out is not None and out.exists():
        output.fail(
            f"{out} is there already, and would be lost", hint="name a new file", code=output.USAGE
        )
    profile = profile_lookup.find(profile_lookup.load(), name)
    runs, verdicts = with_client(lambda client, _: _judged(client, name))
    marked = sum(verdicts.get(run.run_id) == "false_positive" for run in runs)
    if marked < FEWEST:
        output.fail(
            f"{marked} of {name}'s runs marked as false positives; {FEWEST} at least are needed",
            hint=HOW.format(name),
        )
    report = _report(profile, runs, verdicts, since_us, until_us)
    if report.runs.false_positives < FEWEST:
        output.fail(
            f"{marked} runs are marked as false positives, but only {report.runs.false_positives} "
            f"of them are of the last {since} and would begin again with the present text",
            hint=f"a longer --since, or {HOW.format(name)}",
        )
    if out is not None and len(report.suggestions) >= pick:
        _write(out, report.suggestions[pick - 1].profile)
    if as_json:
        output.as_json(_facts(profile, report, since_us, until_us))
    else:
        _show(profile, report, since)
    if len(report.suggestions) < pick and (out is not None or not report.suggestions):
        what = f"no suggestion {pick} to write" if report.suggestions else "nothing to suggest"
        output.fail(
            f"{what}: no other change removes false positives and keeps every useful run",
            hint=f"more marked runs may tell them apart; {HOW.format(name)}",
        )
    if out is not None:
        output.note(f"wrote {out}; see how it does: opsmesh profile try {out}")
    elif not as_json:
        output.note(f"to try one: opsmesh profile suggest {name} -o FILE --pick N")


async def _judged(client: Client, name: str) -> tuple[list[Run], dict[str, Verdict]]:
    runs = feedback.counted([run async for run in Ledger(client).runs(name)])
    verdicts = feedback.newest(await feedback.judgements(client))
    return runs, verdicts


def _report(
    profile: Profile, runs: list[Run], verdicts: dict[str, Verdict], since_us: int, until_us: int
) -> Report:
    # the stream, not the archive: it has the newest events, and runs are not remembered for longer
    with archive("stream", Settings(), [profile], since_us, until_us) as (_, folder):

        def read(wants: Callable[[str], bool]) -> Iterator[Stored]:
            return Source(folder, since_us=since_us, until_us=until_us).read(wants)

        registry = load_registry(Path(paths.config_dir(), "topics.yaml"))
        return suggestions(profile, runs, verdicts, read, until_us=until_us, upcast=registry.upcast)


def _write(out: Path, profile: Profile) -> None:
    text = dump({"version": VERSION, "profiles": {profile.name: dict(profile.source)}})
    again = parse(yamlfile.parse(text.encode(), file=out.name)).profiles.get(profile.name)
    if again is None or again.hash != profile.hash:
        raise AssertionError(f"{profile.name} does not read back as it was written")
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        output.fail(f"{out} cannot be written: {error.strerror}", code=output.USAGE)


def _show(profile: Profile, report: Report, since: str) -> None:
    console = output.console()
    whole = report.runs
    console.print(
        f"[bold]{escape(profile.name)}[/] {_plural(whole.false_positives, 'false positive')}, "
        f"{whole.useful} useful and {whole.unjudged} unjudged runs"
    )
    if report.unused:
        console.print(
            f"  [dim]{_plural(report.unused, 'judged run')} left out: not of the last {since}, "
            "or the present text would not begin them[/]"
        )
    for number, found in enumerate(report.suggestions, 1):
        console.print(f"[bold]{number}.[/] [cyan]{found.kind}[/]  {escape(found.clause)}")
        console.print(f"   {_told(found, whole)}")
        new = f", {found.new} of them new" if found.new else ""
        console.print(
            f"   [dim]backtest over {escape(since)}: {_plural(report.firings, 'firing')} before, "
            f"{found.firings} after{new}[/]"
        )


def _told(found: Suggestion, whole: Tally) -> str:
    gone = found.removed
    return (
        f"removes {gone.false_positives} of {_plural(whole.false_positives, 'false positive')}, "
        f"loses {gone.useful} of {whole.useful} useful "
        f"and {gone.unjudged} of {whole.unjudged} unjudged runs"
    )


def _facts(profile: Profile, report: Report, since_us: int, until_us: int) -> dict[str, Any]:
    return {
        "profile": profile.name,
        "hash": profile.hash,
        "since": times.format_us(since_us),
        "until": times.format_us(until_us),
        "runs": _counts(report.runs),
        "unused": report.unused,
        "firings": report.firings,
        "suggestions": [
            {
                "kind": found.kind,
                "clause": found.clause,
                "removes": _counts(found.removed),
                "told": _told(found, report.runs),
                "firings": found.firings,
                "new_firings": found.new,
                "score": found.score,
                "hash": found.profile.hash,
                "profile": dict(found.profile.source),
            }
            for found in report.suggestions
        ],
    }


def _counts(tally: Tally) -> dict[str, int]:
    return {
        "false_positives": tally.false_positives,
        "useful": tally.useful,
        "unjudged": tally.unjudged,
    }


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
