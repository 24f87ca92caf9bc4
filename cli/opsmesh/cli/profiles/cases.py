"""`opsmesh profile test`: what profiles should do, checked without a mesh."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from nats.aio.client import Client
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.events import find, not_before
from opsmesh.cli.profiles import lookup as profile_lookup
from opsmesh.cli.session import with_client
from opsmesh.handlers.cases import report as case_report
from opsmesh.handlers.cases.cases import FOLDER, Case, load_cases, topics
from opsmesh.handlers.cases.diff import Verdict, judge
from opsmesh.handlers.cases.draft import draft
from opsmesh.handlers.errors import ConfigError, HandlersError
from opsmesh.handlers.evidence import lines, segments
from opsmesh.handlers.profiles.profile import Profile, ProfileSet, load_file, load_profiles
from opsmesh.router import paths
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.settings import Settings
from opsmesh.router.topic_patterns import listens
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.nearest import nearest

#: An event, and when the broker stored it.
Found = tuple[Event, int]

_MARKS = {"- ": "red", "+ ": "green"}


def profile_test(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help=f"Case files; {FOLDER}/*.yaml of your configuration if none."
        ),
    ] = None,
    profiles: Annotated[
        Path | None,
        typer.Option(help="The profiles: a file or a configuration folder, whatever a case says."),
    ] = None,
    only: Annotated[
        str | None, typer.Option("-k", metavar="NAME", help="Only cases with this in their name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a JUnit report.")
    ] = None,
    from_event: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Write a case from this event instead of running any."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", "-p", help="With --from-event: this profile's case alone."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="With --from-event: write it there.")
    ] = None,
) -> None:
    """Check profiles against cases: these events at these times, so these runs.

    Nothing is run, and no mesh is needed. Exit code 0: every case passes; 1: one fails; 2: a file
    is wrong; 3: there is no such case or file.

    Example: opsmesh profile test --from-event 019ab3c4 -o ~/.config/opsmesh/tests/unit.yaml
    """
    if from_event is not None:
        if files or only or junit or as_json:
            output.fail("--from-event writes a case, and runs none", code=output.USAGE)
        _write(from_event, profile, profiles, out)
        return
    if profile is not None or out is not None:
        output.fail("--profile and -o need --from-event ID", code=output.USAGE)
    verdicts = [judge(case) for case in _cases(files, profiles, only)]
    if junit is not None:
        _save(junit, case_report.junit(verdicts))
    if as_json:
        output.as_json([case_report.record(verdict) for verdict in verdicts])
    else:
        _show(verdicts)
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(output.FAILED)


def _cases(files: list[Path] | None, profiles: Path | None, only: str | None) -> list[Case]:
    config_dir = Path(paths.config_dir())
    if profiles is not None:
        profile_lookup.there(profiles)
    chosen = [(path, str(profile_lookup.there(path))) for path in files or ()]
    if not chosen:
        found = sorted((config_dir / FOLDER).glob("*.yaml"))
        chosen = [(path, f"{FOLDER}/{path.name}") for path in found]
    if not chosen:
        output.fail(
            f"there are no cases in {config_dir / FOLDER}",
            hint="write one from a real event: opsmesh profile test --from-event ID",
            code=output.NOT_FOUND,
        )
    loaded = [
        load_cases(path, config_dir=config_dir, profiles=profiles, name=name)
        for path, name in chosen
    ]
    for problem in dict.fromkeys(problem for file in loaded for problem in file.problems):
        output.note(problem)
    _stop_at([error for file in loaded for error in file.errors])
    cases = [case for file in loaded for case in file.cases]
    if only is not None:
        wanted = only.casefold()
        named = [case for case in cases if wanted in case.name.casefold()]
        if not named:
            near = nearest(only, [case.name for case in cases])
            hint = f"did you mean {near!r}?" if near else f"there are {len(cases)} cases"
            output.fail(f"no case has {only!r} in its name", hint=hint, code=output.NOT_FOUND)
        return named
    return cases


def _stop_at(errors: list[ConfigError]) -> None:
    if errors:
        for text in dict.fromkeys(map(str, errors)):  # two files may name the same profiles
            output.note(text)
        raise typer.Exit(output.USAGE)


def _show(verdicts: list[Verdict]) -> None:
    console = output.console()
    for verdict in verdicts:
        colour, word = ("green", "pass") if verdict.passed else ("red", "FAIL")
        console.print(f"[{colour}]{word}[/] {escape(case_report.title(verdict))}")
        for line in () if verdict.passed else case_report.explain(verdict):
            style = _MARKS.get(line[2:4]) if line.startswith("  ") else None
            console.print(f"  {escape(line)}", style=style)
    failed = sum(not verdict.passed for verdict in verdicts)
    total = f"{len(verdicts)} case{'s' if len(verdicts) != 1 else ''}"
    console.print(f"{total}: {len(verdicts) - failed} passed, {failed} failed")


def _write(event_id: str, name: str | None, source: Path | None, out: Path | None) -> None:
    if out is not None and out.exists():
        output.fail(f"{out} is there already", hint="name a new file", code=output.USAGE)
    config_dir = Path(paths.config_dir())
    place = config_dir if source is None else profile_lookup.there(source)
    found = load_file(place) if place.is_file() else load_profiles(place)
    _stop_at(found.errors)
    if name is not None and name not in found.profiles:
        near = nearest(name, found.profiles)
        hint = f"did you mean {near}?" if near else "opsmesh profile ls"
        output.fail(f"no profile {name!r}", hint=hint, code=output.NOT_FOUND)
    event, stored_us = _event(event_id)
    base = out.parent if out is not None else Path()
    try:
        text = draft(
            _chosen(found, name, event),
            event,
            stored_us=stored_us,
            registry=topics(place, config_dir),
            profiles_path=os.path.relpath(source, base) if source is not None else None,
        )
    except HandlersError as error:
        output.fail(str(error), hint="mend it, or choose another with --profile")
    if out is None:
        typer.echo(text, nl=False)
        return
    _save(out, text.encode())
    output.note(f"wrote {out}; run it: opsmesh profile test {out}")


def _chosen(found: ProfileSet, name: str | None, event: Event) -> list[Profile]:
    if name is not None:
        return [found.profiles[name]]
    chosen = [p for p in found.profiles.values() if listens(p.rule.decided, event.topic)]
    if not chosen:
        output.fail(
            f"no profile listens to {event.topic}",
            hint="choose one with --profile; opsmesh profile ls",
            code=output.NOT_FOUND,
        )
    return chosen


def _event(event_id: str) -> Found:
    """From the stream, and where it has it no more, or there is no broker, from the archive."""

    async def body(client: Client, settings: Settings) -> Found | None:
        item = await find(client, event_id)
        return None if item is None or item.event is None else (item.event, item.stored_us)

    unavailable: BrokerUnavailable | None = None
    found: Found | None = None
    try:
        found = with_client(body)
    except BrokerUnavailable as error:
        unavailable = error
    found = found or _archived(event_id, not_before(event_id))
    if found is None and unavailable is not None:
        raise unavailable
    if found is None:
        output.fail(
            f"no event {event_id} is in the stream or the archive",
            hint="opsmesh tail --since 1h shows events with their ids",
            code=output.NOT_FOUND,
        )
    return found


def _archived(event_id: str, since_us: int | None) -> Found | None:
    day = ""
    if since_us is not None:
        day = str(datetime.fromtimestamp(since_us / 1e6, UTC).date())
    for segment in segments.listing(Settings().evidence_dir):
        if segment.day < day:
            continue
        with segments.opened(segment) as file:
            for raw in file:
                if event_id.encode() not in raw or (line := lines.parse(raw)) is None:
                    continue
                try:
                    stored_us = times.parse_us(line.time)
                    event = decode(line.data, stored=(EVENTS, line.seq, stored_us))
                except (SchemaError, ValueError):
                    continue
                if event.id.startswith(event_id):
                    return event, stored_us
    return None


def _save(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        output.fail(f"{path} cannot be written: {error.strerror}")
