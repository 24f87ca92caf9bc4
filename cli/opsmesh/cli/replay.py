"""`opsmesh replay`: stored events again, safely by default."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from nats.aio.client import Client
from rich.console import Console
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.events import Stored, Topics, moment, stored
from opsmesh.cli.session import with_client
from opsmesh.handlers.live.recent import reader
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.profiles.profile import Profile, load_profiles
from opsmesh.handlers.rehearse import Rehearsal, act
from opsmesh.handlers.runs import results
from opsmesh.router import paths, replay, trigger
from opsmesh.router.decide import Decision
from opsmesh.router.publish import Publisher
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS, REPLAY
from opsmesh.router.trigger import ORIGIN
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode, encode, subject
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.nearest import nearest

COLOURS = {"fire": "green", "debounced": "yellow", "duplicate": "yellow", "suppressed": "yellow"}


def replay_(
    since: Annotated[str, typer.Option(help="Begin this long ago (10m, 2h) or at a time.")] = "1h",
    until: Annotated[str | None, typer.Option(help="End before this age or time.")] = None,
    topic: Topics = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="PROFILE", help="Hand the copies to this profile, here."),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(min=0, help="1 is the original pace, 10 ten times faster, 0 at once."),
    ] = 0.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what each profile would decide.")
    ] = False,
    live: Annotated[
        bool,
        typer.Option("--live", help="Hand the events to the live handlers, which ACT on them."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Send stored events again. Without --live, live handlers never see them.

    \b
    opsmesh replay --since 10m --dry-run           what would be decided, nothing is sent
    opsmesh replay --since 10m                     copies on rpl.<id>.>, for your own subscriber
    opsmesh replay --since 10m --to triage         the profile acts here, on copies
    opsmesh replay --since 10m --live --to triage  the live profile acts
    """
    if dry_run and live:
        output.fail("--dry-run and --live contradict each other", code=output.USAGE)
    since_us, until_us = moment(since), moment(until)
    profiles = _profiles(to)

    async def body(client: Client, settings: Settings) -> None:
        events = stored(client, topics=topic, since_us=since_us, until_us=until_us)
        if dry_run:
            await _dry_run(events, profiles, settings, as_json)
        elif live:
            await _live(client, events, profiles, settings, replay.Pace(speed), as_json)
        else:
            await _copies(client, events, to, profiles, settings, replay.Pace(speed), as_json)

    with_client(body)


def _profiles(to: str | None) -> list[Profile]:
    found = load_profiles(Path(paths.config_dir()))
    if found.errors:
        output.fail(
            "the profiles are broken:\n" + "\n".join(str(error) for error in found.errors),
            hint="opsmesh profile validate",
        )
    if to is None:
        chosen = overrides.read()
        return [
            profile.with_state(chosen[profile.name]) if profile.name in chosen else profile
            for profile in found.profiles.values()
        ]
    if to not in found.profiles:
        near = nearest(to, found.profiles)
        output.fail(
            f"no profile {to!r}",
            hint=f"did you mean {near}?" if near else "opsmesh profile ls",
            code=output.NOT_FOUND,
        )
    return [found.profiles[to].with_state("enabled")]


async def _dry_run(
    events: AsyncIterator[Stored], profiles: list[Profile], settings: Settings, as_json: bool
) -> None:
    rehearsal = Rehearsal(profiles, host=settings.host)
    console = output.console()
    counts: Counter[str] = Counter()
    total = 0

    def tell(decisions: Iterable[tuple[Profile, Decision]]) -> None:
        for profile, decision in decisions:
            counts[decision.outcome] += 1
            if as_json:
                sys.stdout.write(decision.encode().decode() + "\n")
                continue
            colour = COLOURS.get(decision.outcome, "dim")
            console.print(
                f"[dim]{output.local(times.format_us(decision.at_us))}[/] "
                f"[{colour}]{decision.outcome:<10}[/] [bold]{escape(profile.name)}[/] "
                f"{escape(decision.topic)} [dim]{escape(decision.reason)}[/]"
            )

    async for item in events:
        total += 1
        if item.event is None:
            counts["undecodable"] += 1
            continue
        tell(rehearsal.decide(item.event, item.stored_us, item.seq))
    tell(rehearsal.advance(times.now_us()))
    if not as_json:
        said = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        output.note(f"{total} events, {said or 'no profile listens to any of them'}")


async def _copies(
    client: Client,
    events: AsyncIterator[Stored],
    to: str | None,
    profiles: list[Profile],
    settings: Settings,
    pace: replay.Pace,
    as_json: bool,
) -> None:
    replay_id = ids.uuid7()
    if not as_json:
        output.note(f"copies on rpl.{replay_id}.>")
    total = 0
    source = ((item.subject, item.seq, item.stored_us, item.data) async for item in events)
    with _Progress("copying") as progress:
        async for count in replay.copy(client, replay_id, source, pace=pace):
            total = count
            progress(count)
    if as_json and to is None:
        output.as_json({"replay": replay_id, "events": total})
    elif not as_json:
        output.note(f"{total} events copied")
    if to is not None and total:
        await _act(client, replay_id, profiles[0], settings, as_json)


async def _act(
    client: Client, replay_id: str, profile: Profile, settings: Settings, as_json: bool
) -> None:
    """The profile on the copies, in this process; its own events stay inside the replay."""
    publisher = Publisher(client, stream=REPLAY)

    async def publish(event: Event) -> None:
        where = replay.subject(replay_id, subject(event.host, event.topic))
        await publisher.publish(where, encode(event), msg_id=f"{replay_id}:{event.id}")

    rehearsal = Rehearsal([profile], host=settings.host)
    console = output.console()
    failures = 0
    copies: dict[str, tuple[Event, bytes]] = {}

    async def run(decision: Decision, folder: str) -> int:
        if decision.outcome != "fire":
            return 0
        refs = [ref.id for ref in decision.events] or [decision.event_id]
        event, data = copies[decision.event_id]
        done, failure = await act(
            profile,
            [copies[ref][0] for ref in refs],
            data,
            host=settings.host,
            rehearsal_id=replay_id,
            workdir=Path(folder, event.id),
            bundles=Path(paths.bundles_dir()),
            publish=publish,
            recent=reader(client),
        )
        if failure is None:
            await publish(results.succeeded(done, event, now_us=times.now_us()))
        _say_run(console, event, done.duration_ms or 0.0, failure, as_json)
        return int(failure is not None)

    with tempfile.TemporaryDirectory(prefix="opsmesh-replay-") as folder:
        async for msg in scan(client, REPLAY, subjects=[f"rpl.{replay_id}.>"]):
            stream, seq, us = (msg.headers or {}).get(ORIGIN, ",,").split(",")
            if stream != EVENTS:
                continue
            try:
                event = decode(msg.data, stored=(stream, int(seq), int(us)))
            except SchemaError:
                continue
            copies[event.id] = event, msg.data
            for _, decision in rehearsal.decide(event, int(us), int(seq)):
                failures += await run(decision, folder)
        for _, decision in rehearsal.advance(times.now_us()):
            failures += await run(decision, folder)
    if failures:
        raise typer.Exit(output.FAILED)


def _say_run(console: Console, event: Event, took_ms: float, failure: Any, as_json: bool) -> None:
    if as_json:
        record = {
            "event": event.id,
            "topic": event.topic,
            "ok": failure is None,
            "duration_ms": took_ms,
            "error": failure.error if failure else None,
        }
        sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        return
    said = f"[red]failed[/] {escape(failure.error)}" if failure else "[green]succeeded[/]"
    console.print(f"{escape(event.topic)} [dim]{escape(event.id)}[/] {said} {took_ms:.0f} ms")


async def _live(
    client: Client,
    events: AsyncIterator[Stored],
    profiles: list[Profile],
    settings: Settings,
    pace: replay.Pace,
    as_json: bool,
) -> None:
    replay_id = ids.uuid7()
    rehearsal = Rehearsal(profiles, host=settings.host)
    sent: Counter[str] = Counter()
    stored_at: dict[str, Stored] = {}

    async def send(profile: Profile, decision: Decision) -> None:
        if decision.outcome != "fire":
            return
        item = stored_at[decision.event_id]
        again = trigger.Trigger(
            kind="replay",
            id=ids.derived(item.stored_us // 1000, replay_id, profile.name, str(item.seq)),
            origin=(EVENTS, item.seq, item.stored_us),
            events=decision.events,
        )
        await trigger.send(client, profile.name, item.data, again)
        sent[profile.name] += 1

    async for item in events:
        if item.event is None:
            continue
        await pace.wait(item.stored_us)
        stored_at[item.event.id] = item
        for profile, decision in rehearsal.decide(item.event, item.stored_us, item.seq):
            await send(profile, decision)
    for profile, decision in rehearsal.advance(times.now_us()):
        await send(profile, decision)
    if as_json:
        output.as_json({"replay": replay_id, "sent": dict(sent)})
    else:
        said = ", ".join(f"{count} to {name}" for name, count in sent.most_common())
        output.note(f"sent {said or 'nothing: no profile would fire'}; see: opsmesh run ls")


class _Progress:
    """A counter on the terminal's last line; silent in a pipe."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, count: int) -> None:
        if self._shown:
            sys.stderr.write(f"\r{self._what} {count:,}")
            sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
