"""`opsmesh trace`: a whole story, from event to decision to run to what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import msgspec
import typer
from nats.aio.client import Client
from rich.markup import escape
from rich.tree import Tree

from opsmesh.cli import output
from opsmesh.cli.events import line
from opsmesh.cli.run.commands import COLOURS as RUN_COLOURS
from opsmesh.cli.session import with_client
from opsmesh.cli.why import text as why_text
from opsmesh.cli.why.why import open_explainer, place_record
from opsmesh.handlers.explain.answers import Answer, Finding
from opsmesh.handlers.explain.story import Ambiguous, Chapter, tell
from opsmesh.handlers.explain.wording import count
from opsmesh.handlers.runs import asking
from opsmesh.handlers.runs.ledger import Run, StepRecord
from opsmesh.router.settings import Settings
from opsmesh.schemas.times import clock

#: Topics of the events that tell what became of a run.
RESULTS: Final = "automation.run."
#: Characters of a reason that stands on the line of its decision.
SHORT: Final = 50


def trace(
    story: Annotated[
        str,
        typer.Argument(metavar="ID", help="An event's id, a run's (or its start), a correlation."),
    ],
    misses: Annotated[
        bool, typer.Option("--misses", help="Also the profiles that did not fire, and why.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of events, each with its decisions.")
    ] = False,
) -> None:
    """Show a whole story: events, what fired on each, its run and steps, and what they caused.

    Example: opsmesh trace 01a205fc-4b2e --misses
    """

    async def body(client: Client, settings: Settings) -> tuple[str, list[Chapter]]:
        explainer = await open_explainer(client, settings)
        return await tell(client, explainer, story, misses=misses)

    try:
        correlation, chapters = with_client(body)
    except Ambiguous as error:
        output.fail(str(error), code=output.USAGE)
    if not chapters:
        output.fail(
            f"no event, run or correlation has the id {story}",
            hint="opsmesh tail --json shows the correlation_id of each event",
            code=output.NOT_FOUND,
        )
    if as_json:
        output.as_json([_record(chapter) for chapter in chapters])
        return
    output.console().print(_Story(correlation, chapters).tree())


class Order:
    """What is told under what: events under the run, or else the event, that caused them."""

    def __init__(self, chapters: Sequence[Chapter]) -> None:
        self.chapters = {chapter.place.event.id: chapter for chapter in chapters}
        #: By the id of a run or an event.
        self.below: dict[str, list[Chapter]] = {}
        #: Those that nothing told here has caused.
        self.first: list[Chapter] = []
        runs = {run.run_id for chapter in chapters for run in runs_of(chapter)}
        triggered = {run.run_id for chapter in chapters for run in chapter.triggered}
        for chapter in chapters:
            event = chapter.place.event
            known = event.causation_id in self.chapters
            # the event of a triggered run is in no chapter
            if event.run_id in triggered or (event.run_id in runs and known):
                self.below.setdefault(event.run_id or "", []).append(chapter)
            elif known and event.causation_id != event.id:
                self.below.setdefault(event.causation_id or "", []).append(chapter)
            else:
                self.first.append(chapter)


class _Story:
    """The chapters as one tree."""

    def __init__(self, correlation: str, chapters: Sequence[Chapter]) -> None:
        self._correlation = correlation
        self._order = Order(chapters)

    def tree(self) -> Tree:
        """With the correlation at its top."""
        top = Tree(f"[bold]{escape(self._correlation)}[/] [dim]{self._summary()}[/]")
        for chapter in self._order.first:
            self._event(top, chapter)
        return top

    def _summary(self) -> str:
        chapters = self._order.chapters.values()
        runs = {run.run_id for chapter in chapters for run in runs_of(chapter)}
        places = [chapter.place for chapter in chapters]
        archived = ", from the archive" if any(place.archived for place in places) else ""
        return f"{count(len(places), 'event')}, {count(len(runs), 'run')}{archived}"

    def _event(self, above: Tree, chapter: Chapter) -> None:
        event = chapter.place.event
        if event.topic.startswith(RESULTS):  # its payload says what the run above it says
            event = msgspec.structs.replace(event, payload={})
        node = above.add(line(event, chapter.place.stored_us))
        for finding in chapter.firings:
            below = node.add(_decision(finding))
            if finding.run is not None and finding.role == "own":
                self._run(below, finding.run)
        for run in chapter.runs:
            below = node.add(
                f"▸ [bold]{escape(run.profile)}[/] [dim]its decision is not on record[/]"
            )
            self._run(below, run)
        for run in chapter.triggered:
            self._run(node.add(f"▸ [bold]{escape(run.profile)}[/] [dim]{run.trigger}[/]"), run)
        for answer in chapter.misses:
            for text in _miss(answer):
                node.add(text)
        for below_it in self._order.below.get(chapter.place.event.id, ()):
            self._event(node, below_it)

    def _run(self, above: Tree, run: Run) -> None:
        node = above.add(why_text.run(run))
        for step in run.steps:
            node.add(_step(step))
        failed = {step.error for step in run.steps}
        for error in run.errors:
            if error.error in failed and len(run.errors) == 1:
                continue
            node.add(f"[red]attempt {error.attempt}[/] {escape(' '.join(error.error.split()))}")
        for chapter in self._order.below.get(run.run_id, ()):
            self._event(node, chapter)


def runs_of(chapter: Chapter) -> Iterable[Run]:
    """The runs that are told under a chapter."""
    yield from chapter.runs
    yield from chapter.triggered
    yield from (f.run for f in chapter.firings if f.run is not None and f.role == "own")


def _decision(finding: Finding) -> str:
    decision = finding.decision
    when = f" [dim]{clock(decision.at_us)}[/]" if decision.timer else ""
    text = f"▸ [bold]{escape(decision.profile)}[/] {why_text.styled(decision)}{when}"
    if finding.role == "held":
        return f"{text} [dim]with, and told under, {escape(decision.event_id)}[/]"
    if len(decision.events) > 1:
        text += f" [dim]for {count(len(decision.events), 'event')}[/]"
    return _with(text, why_text.reason(finding))


def _miss(answer: Answer) -> Iterable[str]:
    title = f"[dim]▹[/] {escape(answer.profile)}"
    if answer.candidate:
        title += " [dim](candidate)[/]"
    if not answer.findings:
        yield _with(f"{title} [yellow]{why_text.WITHOUT[answer.status]}[/]", answer.text)
    for finding in answer.findings:
        if finding.role in ("own", "ended"):
            again = "" if finding.recorded else " [magenta]re-derived[/]"
            text = f"{title} {why_text.styled(finding.decision)}{again}"
            yield _with(text, why_text.reason(finding))


def _with(text: str, reason: str) -> str:
    """The reason on the same line, or on lines of its own when it is long."""
    if len(reason) <= SHORT:
        return f"{text} [dim]{escape(reason)}[/]"
    return "\n".join([text, *why_text.wrapped(reason, indent=2, style="dim")])


def _step(step: StepRecord) -> str:
    colour = RUN_COLOURS.get(step.state, "dim")
    facts = [f"{step.duration_ms:.0f} ms"] if step.duration_ms is not None else []
    if step.exit_code is not None:
        facts.append(f"exit code {step.exit_code}")
    told = f"[{colour}]{step.state:<7}[/] {escape(step.id)} [dim]{', '.join(facts)}[/]"
    if step.evidence_path:
        told += f" [dim]{escape(step.evidence_path)}[/]"
    if step.error and step.error != f"exit code {step.exit_code}":
        told += f" [red]{escape(' '.join(step.error.split()))}[/]"
    if step.asked and step.state == "asked":
        asked = step.asked[-1]
        told += f" [magenta]asks[/] {escape(asked.prompt)} [dim]{escape(asking.why(asked))}[/]"
    return told


def _record(chapter: Chapter) -> dict[str, Any]:
    def decision(finding: Finding) -> dict[str, Any]:
        found = why_text.finding_record(finding)
        found.pop("verdicts")
        found["run"] = run(finding.run) if finding.run is not None else None
        return found

    def run(found: Run) -> dict[str, Any]:
        return {
            "run_id": found.run_id,
            "profile": found.profile,
            "state": found.state,
            "attempt": found.attempt,
            "duration_ms": found.duration_ms,
            "reason": found.reason,
            "steps": [
                {
                    "id": step.id,
                    "action": step.action,
                    "state": step.state,
                    "duration_ms": step.duration_ms,
                    "exit_code": step.exit_code,
                    "error": step.error,
                    "evidence_path": step.evidence_path,
                }
                for step in found.steps
            ],
        }

    return {
        **place_record(chapter.place),
        "decisions": [decision(finding) for finding in chapter.firings],
        "runs": [run(one) for one in chapter.runs],
        "triggered": [run(one) for one in chapter.triggered],
        "misses": [why_text.record(answer) for answer in chapter.misses],
    }
