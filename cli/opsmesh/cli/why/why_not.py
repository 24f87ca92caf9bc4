"""`opsmesh why-not`: why a profile did not fire."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import msgspec
import typer
from nats.aio.client import Client
from rich.console import Console
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.events import line, moment
from opsmesh.cli.session import with_client
from opsmesh.cli.why import text as why_text
from opsmesh.cli.why.why import known_profile, one_event, open_explainer, place_record, show
from opsmesh.handlers.explain import quiet
from opsmesh.handlers.explain.answers import Answer, Explainer
from opsmesh.handlers.explain.health import Deciding, Health, health
from opsmesh.handlers.explain.lookup import Place
from opsmesh.handlers.explain.quiet import Quiet
from opsmesh.handlers.explain.wording import count, span
from opsmesh.router.settings import Settings
from opsmesh.schemas import times
from opsmesh.schemas.times import clock

#: Around `--at`, to either side, in microseconds.
AROUND_US: Final = 30_000_000
#: Events that are shown without `--at`, and the nearest that people are shown with it.
SHOWN: Final = 10
NEAREST: Final = 50

STATES: Final = {"enabled": "green", "shadow": "yellow", "disabled": "dim"}


def why_not(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="A profile's name.")],
    at: Annotated[
        str | None, typer.Option(help="About this time: 2026-11-23T09:12:00Z, or 10m ago.")
    ] = None,
    event: Annotated[
        str | None, typer.Option("--event", "-e", help="For this event's id, or its start.")
    ] = None,
    since: Annotated[
        str, typer.Option(help="Without --at: look at events from this age or time on.")
    ] = "1h",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Tell why a profile did not fire: for an event, around a time, or lately.

    With --at: every event of its topics within 30 seconds of that time, and what each came to.
    Without: how the profile is, and what its last 10 events came to.

    Examples: opsmesh why-not triage --at 10m
              opsmesh why-not triage --event 01a205fc-4b2e
    """
    if at is not None and event is not None:
        output.fail("--at and --event do not go together", code=output.USAGE)
    if event is not None:
        _about_event(profile, event, as_json)
        return
    at_us = moment(at)
    if at_us is None:
        since_us, until_us = moment(since) or 0, None
    else:
        since_us, until_us = at_us - AROUND_US, at_us + AROUND_US

    async def body(
        client: Client, settings: Settings
    ) -> tuple[Health, list[tuple[Place, list[Answer]]], Quiet | None]:
        explainer = await open_explainer(client, settings)
        known_profile(explainer, profile)
        how = await health(client, explainer.book, explainer.files, profile)
        subjects = quiet.subjects(explainer.book, explainer.files, profile)
        most = SHOWN if at_us is None else None
        places = await explainer.lookup.between(subjects, since_us, until_us, most=most)
        told = await explainer.each(places, profile=profile)
        silent = None
        if not places:
            silent = await quiet.look(
                explainer.lookup, subjects, since_us=since_us, until_us=until_us
            )
        return how, told, silent

    how, told, silent = with_client(body)
    if as_json:
        output.as_json(_record(how, told, silent, since_us, until_us))
        return
    console = output.console()
    _health(console, how)
    console.print()
    for text in _events(told, since_us, until_us):
        console.print(text)
    if silent is not None:
        for text in _silence(how, silent, since_us, until_us):
            console.print(text)


def _about_event(profile: str, event: str, as_json: bool) -> None:
    async def body(client: Client, settings: Settings) -> tuple[Place, list[Answer], Health]:
        explainer: Explainer = await open_explainer(client, settings)
        known_profile(explainer, profile)
        place = await one_event(explainer, event)
        answers = await explainer.about(place, profile=profile)
        how = await health(client, explainer.book, explainer.files, profile)
        return place, answers, how

    place, answers, how = with_client(body)
    show(place, answers, everything=True, as_json=as_json)
    if not as_json and how.problems:
        console = output.console()
        console.print("\n[bold]now[/]")
        _problems(console, how)


def _health(console: Console, how: Health) -> None:
    state = how.state or "gone"
    where = f" [dim]{escape(how.file)}, text {how.hash}[/]" if how.file else ""
    console.print(f"[bold]{escape(how.profile)}[/]  [{STATES.get(state, 'dim')}]{state}[/]{where}")
    if how.topics:
        console.print(f"  listens to {escape(', '.join(how.topics))}")
    for one in how.deciding:
        for text in _deciding(one):
            console.print(f"  {escape(text)}")
    _problems(console, how)
    if not how.problems:
        console.print("  [green]✓[/] nothing keeps it from firing")


def _problems(console: Console, how: Health) -> None:
    for problem in how.problems:
        console.print(f"  [red]![/] {escape(problem.text)}")
        if problem.hint:
            console.print(f"    [dim]→ {escape(problem.hint)}[/]")


def _deciding(one: Deciding) -> Iterator[str]:
    who = {
        "answers": f"decided by pid {one.owner.pid} on {one.owner.host}",
        "none": "decided by nobody now",
        "hangs": "its owner does not answer",
        "elsewhere": f"decided by {one.host}'s own handlers: there, opsmesh why-not says more",
    }[one.owner.state]
    kind = "candidate" if one.candidate else "text"
    noted = f"at sequence {one.seq}" if one.seq is not None else "nothing decided yet"
    waits = f"{count(one.waiting, 'event')} waiting" if one.waiting else "nothing waits"
    yield who if one.leaf else f"{who}, {noted}, {waits}"
    yield f"{kind} {one.hash} {one.state} since {clock(one.since_us)} on {one.host}"


def _events(
    told: Sequence[tuple[Place, list[Answer]]], since_us: int, until_us: int | None
) -> Iterator[str]:
    if told:
        period = f"between {clock(since_us)} and {clock(until_us)}" if until_us else "lately"
        yield f"[bold]{count(len(told), 'event')} of its topics {period}[/]"
    if until_us is not None and len(told) > NEAREST:
        middle_us = (since_us + until_us) // 2
        near = sorted(told, key=lambda one: abs(one[0].stored_us - middle_us))[:NEAREST]
        told = sorted(near, key=lambda one: one[0].seq)
        yield f"[dim]the {NEAREST} nearest to that time; --json has all[/]"
    for place, answers in told:
        yield line(place.event, place.stored_us, with_id=False)
        yield f"    [dim]{escape(place.event.id)}[/]"
        for one in answers:
            if one.status == "unheard" and len(answers) > 1:
                continue
            yield from _answer(one)


def _answer(one: Answer) -> Iterator[str]:
    kind = " [dim](candidate)[/]" if one.candidate else ""
    if not one.findings:
        yield f"    [yellow]{why_text.WITHOUT[one.status]}[/]{kind}"
        yield from why_text.wrapped(one.text, indent=6)
        if one.hint:
            yield f"      [dim]→ {escape(one.hint)}[/]"
    for finding in one.findings:
        again = "" if finding.recorded else "  [magenta]re-derived[/]"
        when = ""
        if finding.role != "own" or finding.decision.timer:
            when = f"[dim]{clock(finding.decision.at_us)}[/] "
        yield f"    {when}{why_text.styled(finding.decision)}{again}{kind}"
        yield from why_text.wrapped(why_text.reason(finding), indent=6, style="dim")


def _silence(how: Health, found: Quiet, since_us: int, until_us: int | None) -> Iterator[str]:
    end_us = min(until_us or times.now_us(), times.now_us())
    yield f"no event of its topics came between {clock(since_us)} and {clock(end_us)}"
    if found.before is not None:
        ago = span(since_us - found.before.stored_us)
        yield f"  the last one before was {ago} earlier:"
        yield f"  {line(found.before.event, found.before.stored_us)}"
    elif found.after is None:
        yield "  there has never been one, as far as the stream goes back"
    if found.after is not None:
        yield f"  the next one came {span(found.after.stored_us - end_us)} later:"
        yield f"  {line(found.after.event, found.after.stored_us)}"
    producers = ", ".join(_producers(how.topics)) or "none known"
    yield f"  producers of these topics: {escape(producers)}"
    yield "  [dim]→ opsmesh producer ls; opsmesh topics ls[/]"


def _producers(patterns: Sequence[str]) -> list[str]:
    """Who emits what these patterns cover: registered producers, and the owners of topics."""
    from pathlib import Path

    from opsmesh.producers.registry import discover
    from opsmesh.router import paths
    from opsmesh.router.topic_patterns import listens
    from opsmesh.schemas.registry import load_registry

    found = {
        name
        for name, producer in discover().producers.items()
        if any(listens(patterns, topic) for topic in producer.topics)
    }
    topics = load_registry(Path(paths.config_dir(), "topics.yaml"))
    found |= {topic.owner for topic in topics if listens(patterns, topic.name)}
    return sorted(found)


def _record(
    how: Health,
    told: Sequence[tuple[Place, list[Answer]]],
    silent: Quiet | None,
    since_us: int,
    until_us: int | None,
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "health": msgspec.to_builtins(how),
        "since": times.format_us(since_us),
        "until": times.format_us(until_us or times.now_us()),
        "events": [
            {**place_record(place), "decisions": [why_text.record(one) for one in answers]}
            for place, answers in told
        ],
    }
    if silent is not None:
        found["last_before"] = place_record(silent.before) if silent.before else None
        found["next_after"] = place_record(silent.after) if silent.after else None
        found["producers"] = _producers(how.topics)
    return found
