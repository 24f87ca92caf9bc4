"""`opsmesh why`: what every profile made of one event, and whether it can be made again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from nats.aio.client import Client
from rich.markup import escape

from opsmesh.cli import output, session
from opsmesh.cli.events import fields, line, moment
from opsmesh.cli.session import with_client
from opsmesh.cli.why import rederive_text
from opsmesh.cli.why import text as why_text
from opsmesh.cli.why.rederive_text import SAME, Counted
from opsmesh.handlers.explain.answers import Answer, Explainer
from opsmesh.handlers.explain.lookup import Place
from opsmesh.handlers.explain.mentions import mentions
from opsmesh.handlers.explain.rederive import Check, check_all
from opsmesh.handlers.live import records
from opsmesh.handlers.live.records import Record
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import subject
from opsmesh.schemas.nearest import nearest


def why(
    event: Annotated[
        str | None, typer.Argument(metavar="EVENT", help="An event's id, or its start.")
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", "-p", help="Only this one.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also profiles that do not listen to it.")
    ] = False,
    rederive: Annotated[
        bool, typer.Option("--rederive", help="Make recorded decisions again, compare the bytes.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="With --rederive and no event: all of this age (1h, 7d) or time on."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Tell why each profile fired for an event, or did not: every clause, with what it read.

    Decisions that are not on record are made again, and marked re-derived. With --rederive those on
    record are made again too; exit code 1 when one comes out otherwise.

    Examples: opsmesh why 01a205fc-4b2e
              opsmesh why --rederive --since 1h
    """
    if rederive:
        _rederive(event, profile, since, as_json)
        return
    if event is None:
        output.fail(
            "say which event: opsmesh why EVENT",
            hint="opsmesh tail --since 1h shows the ids",
            code=output.USAGE,
        )
    if since is not None:
        output.fail("--since goes with --rederive, without an event", code=output.USAGE)

    async def body(client: Client, settings: Settings) -> tuple[Place, list[Answer]]:
        explainer = await open_explainer(client, settings)
        known_profile(explainer, profile)
        place = await one_event(explainer, event)
        return place, await explainer.about(place, profile=profile)

    place, answers = with_client(body)
    show(place, answers, everything=everything or profile is not None, as_json=as_json)


def show(place: Place, answers: list[Answer], *, everything: bool, as_json: bool) -> None:
    """Print the answers about one event."""
    unheard = [one for one in answers if one.status == "unheard" and not everything]
    told = [one for one in answers if one not in unheard]
    if as_json:
        output.as_json(
            {
                **place_record(place),
                "profiles": [why_text.record(one) for one in told],
                "not_listening": sorted(one.profile for one in unheard),
            }
        )
        return
    console = output.console()
    console.print(line(place.event, place.stored_us, with_id=False))
    console.print(f"[dim]{escape(f'{place.event.id}, {where(place)}')}[/]")
    for one in sorted(told, key=lambda one: (not one.findings, one.profile, one.candidate)):
        console.print()
        for text in why_text.answer(one):
            console.print(text)
    if not told and not unheard:
        console.print("\nno profile has ever been in force here; opsmesh profile ls")
    closing = list(why_text.unheard(unheard))
    if closing:
        console.print()
    for text in closing:
        console.print(text)


def where(place: Place) -> str:
    """Where an event lies, in words."""
    text = f"{EVENTS} sequence {place.seq}, {subject(place.event.host, place.event.topic)}"
    return f"{text}; no longer in the stream, from the archive" if place.archived else text


def place_record(place: Place) -> dict[str, Any]:
    """An event and where it lies, as JSON."""
    return {
        "stream": EVENTS,
        "seq": place.seq,
        "stored": times.format_us(place.stored_us),
        "archived": place.archived,
        "event": fields(place.event),
    }


async def open_explainer(client: Client, settings: Settings) -> Explainer:
    """With this machine's folders."""
    return await Explainer.open(
        client,
        host=settings.host,
        config=Path(paths.config_dir()),
        archive=settings.evidence_dir,
        scope=session.scope(),
    )


async def one_event(explainer: Explainer, event_id: str) -> Place:
    """The event that is meant; ends the command when there is none, or more than one."""
    found = await explainer.lookup.find(event_id)
    if not found:
        output.fail(
            f"no event {event_id} is in the stream or in the archive",
            hint="opsmesh tail --since 1h shows the ids",
            code=output.NOT_FOUND,
        )
    if len(found) > 1:
        text = f"{len(found)} events begin with {event_id}; write more of the id"
        output.fail(text, code=output.USAGE)
    return found[0]


def known_profile(explainer: Explainer, name: str | None) -> None:
    """End the command when there neither is nor was a profile of this name."""
    known = explainer.files.names() | explainer.book.names()
    if name is not None and name not in known:
        unknown_profile(name, known)


def unknown_profile(name: str, known: set[str]) -> NoReturn:
    """End the command: nothing has this name."""
    near = nearest(name, known)
    hint = f"did you mean {near}?" if near else "opsmesh profile ls"
    output.fail(f"no profile {name!r}", hint=hint, code=output.NOT_FOUND)


def _rederive(event: str | None, profile: str | None, since: str | None, as_json: bool) -> None:
    if (event is None) == (since is None):
        output.fail(
            "say which decisions: opsmesh why EVENT --rederive, or opsmesh why --rederive "
            "--since 1h",
            code=output.USAGE,
        )
    since_us = moment(since)

    async def body(client: Client, settings: Settings) -> list[Check | Counted]:
        explainer = await open_explainer(client, settings)
        known_profile(explainer, profile)
        found: AsyncIterator[Record]
        if event is None:
            found = records.records(client, profile=profile, since_us=since_us)
        else:
            found = _of_event(client, await one_event(explainer, event), profile)
        # of an hour there may be a million: what is as it was is only counted
        return [
            check if event or check.result != "same" else SAME
            async for check in check_all(explainer, found)
        ]

    checks = with_client(body)
    if event is not None and not checks:
        output.fail(
            "nothing is on record of this event: event and text give its decisions",
            hint=f"opsmesh why {event}",
            code=output.NOT_FOUND,
        )
    if as_json:
        output.as_json(rederive_text.record(checks))
    else:
        for text in rederive_text.lines(checks):
            output.console().print(text)
    if any(check.result == "different" for check in checks):
        raise typer.Exit(output.FAILED)


async def _of_event(client: Client, place: Place, profile: str | None) -> AsyncIterator[Record]:
    found = await mentions(client, [place], profile=profile)
    for mention in found[place.event.id]:
        yield mention.record
