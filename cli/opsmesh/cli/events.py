"""`tail`, `show`: looking at events as they are in the stream."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from nats.aio.client import Client
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.hub.hosts_option import Hosts
from opsmesh.cli.session import with_client
from opsmesh.router import paths, topic_patterns
from opsmesh.router.scan import opened, scan
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import durations, ids, times
from opsmesh.schemas.cloudevents import to_cloudevent
from opsmesh.schemas.envelope import SEVERITIES, Event, Severity, raw_fields
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.registry import load_registry
from opsmesh.schemas.upcast import version_of

#: An event may carry an earlier time than its id, and be stored long after it (the spool): the
#: search for an id begins this long before the time that it holds, in microseconds.
SEARCH_SLACK_US = 60_000_000

#: Events that a reader remembers, to know the second copy of one.
REMEMBERED = 10_000

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")

#: Values of payloads that tell a reader of one line nothing.
DULL = frozenset({"profile_hash"})

COLOURS = {"info": "green", "warn": "yellow", "error": "red", "critical": "bold red"}


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An event, and where it lies; `event` is None when the bytes are none."""

    seq: int
    stored_us: int
    subject: str
    data: bytes
    event: Event | None
    error: str = ""


async def find(client: Client, event_id: str) -> Stored | None:
    """The first event of the stream whose id begins so."""
    async for item in stored(client, since_us=not_before(event_id)):
        if item.event is not None and item.event.id.startswith(event_id):
            return item
    return None


async def stored(
    client: Client,
    *,
    topics: list[str] | None = None,
    hosts: list[str] | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
    follow: bool = False,
) -> AsyncIterator[Stored]:
    """Events of the stream in order; `topics` may hold NATS wildcards, `hosts` those of a shell.
    One that is stored twice (sent again by a spool after hours) comes once."""
    seen: dict[str, int] = {}
    wanted = Hosts(hosts or ())
    subjects = [f"evt.{host}.{topic}" for host in wanted.tokens for topic in topics or [">"]]
    async for msg in scan(client, EVENTS, subjects=subjects, since_us=since_us, follow=follow):
        if not wanted.subject(msg.subject):
            continue
        one = opened(msg)
        if until_us is not None and one.stored_us >= until_us:
            return
        if one.event is not None:
            if seen.get(one.event.id) == hash(msg.data):
                continue
            seen[one.event.id] = hash(msg.data)
            if len(seen) > REMEMBERED:
                del seen[next(iter(seen))]
        yield Stored(
            seq=one.seq,
            stored_us=one.stored_us,
            subject=msg.subject,
            data=msg.data,
            event=one.event,
            error=one.error,
        )


def _can_match(patterns: list[str] | None) -> list[str] | None:
    for pattern in patterns or ():
        try:
            if pattern != ">":
                topic_patterns.checked(pattern)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    return patterns


#: `--topic`. What no topic can match is refused: it would find nothing, or be the broker's error.
Topics = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        "-t",
        callback=_can_match,
        help="Only these topics; * is one token, > the rest.",
    ),
]


def moment(text: str | None) -> int | None:
    """`--since` and `--until`: `90s`, `2h`, `7d` ago, an RFC 3339 time, or the last time the clock
    here showed `09:12`; microseconds."""
    if text is None:
        return None
    if (shown := _CLOCK.fullmatch(text)) is not None:
        return _when_it_was(*(int(part or 0) for part in shown.groups()))
    try:
        return times.parse_us(text)
    except ValueError:
        pass
    try:
        return times.now_us() - round(durations.parse(text) * 1e6)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is neither a time like 2026-11-23T09:00:00Z or 09:00, "
            "nor an age like 10m, 2h, 7d"
        ) from error


def _when_it_was(hour: int, minute: int, second: int) -> int:
    now = datetime.now().astimezone()
    try:
        then = now.replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError as error:
        raise typer.BadParameter(f"{hour:02}:{minute:02} is no time of a day") from error
    if then > now:
        then -= timedelta(days=1)
    return round(then.timestamp() * 1e6)


def tail(
    topic: Topics = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", "-H", help="Only of these hosts; * stands for anything: 'web*'."),
    ] = None,
    severity: Annotated[
        Severity | None, typer.Option(help="Only of this severity, or a higher one.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Begin this long ago (10m, 2h, 7d) or at a time.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", "-f", help="Go on with new events.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, as stored.")
    ] = False,
    as_cloudevents: Annotated[
        bool, typer.Option("--cloudevents", help="One CloudEvent 1.0 (JSON) a line.")
    ] = False,
) -> None:
    """Show events as they are stored.

    Without --since it begins now, and ends with Ctrl-C.

    On a leaf host it shows the host's own events: opsmesh --hub tail shows everybody's.

    Examples: opsmesh tail -t 'python.>' --since 10m
              opsmesh --hub tail --host 'web*' --host db1
              opsmesh tail --severity error --since 1h
              opsmesh tail --cloudevents -t 'package.>'
    """
    if as_json and as_cloudevents:
        raise typer.BadParameter(
            "--json and --cloudevents: one of them", param_hint="--cloudevents"
        )
    write = _json_line if as_json else _cloudevent_line() if as_cloudevents else None
    since_us = moment(since)
    if since_us is None and follow:
        since_us = times.now_us()
    console = output.console()

    async def body(client: Client, settings: Settings) -> None:
        found = stored(client, topics=topic, hosts=host, since_us=since_us, follow=follow)
        async for item in found:
            if severity is not None and _below(item, severity):
                continue
            if write is not None:
                if text := write(item):
                    sys.stdout.write(text + "\n")
                    sys.stdout.flush()
            else:
                console.print(_line(item))

    with_client(body)


def _below(item: Stored, severity: Severity) -> bool:
    """Whether it is less than that; what cannot be decoded is nothing small."""
    rank = SEVERITIES.index
    return item.event is not None and rank(item.event.severity) < rank(severity)


def show(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="An event's id, or its start.")],
    as_json: Annotated[bool, typer.Option("--json", help="The envelope as JSON.")] = False,
) -> None:
    """Show one event whole: its envelope, where it lies, what it caused."""

    async def body(client: Client, settings: Settings) -> tuple[Stored | None, list[Stored]]:
        found, caused = None, []
        async for item in stored(client, since_us=not_before(event_id)):
            if item.event is None:
                continue
            if item.event.id.startswith(event_id):
                found = found or item
            elif found and found.event and item.event.causation_id == found.event.id:
                caused.append(item)
        return found, caused

    found, caused = with_client(body)
    if found is None or found.event is None:
        output.fail(
            f"no event {event_id} is in the stream",
            hint="it may be in the archive: opsmesh evidence find " + event_id,
            code=output.NOT_FOUND,
        )
    if as_json:
        output.as_json(_record(found))
        return
    console = output.console()
    console.print(_line(found))
    console.print(f"[dim]stored as {EVENTS} sequence {found.seq}, {found.subject}[/]")
    console.print_json(json.dumps(fields(found.event)))
    if newer := _newer(found.event):
        console.print(f"[yellow]{newer}[/]")
    for item in caused:
        console.print("[dim]caused[/] ", _line(item))


def _newer(event: Event) -> str:
    """What to know of a payload that a newer version of opsmesh has written; else nothing."""
    topic = load_registry(Path(paths.config_dir(), "topics.yaml")).get(event.topic)
    try:
        version = version_of(topic, event.payload) if topic is not None else 0
    except SchemaError:
        return ""
    if topic is None or version <= topic.version:
        return ""
    return (
        f"its payload is version {version}, and this opsmesh knows {topic.version}: conditions "
        "read it as it is; upgrade to have it checked"
    )


def not_before(event_id: str) -> int | None:
    """Where to begin to look for an event; None when its id tells no time."""
    ms = ids.unix_ms(event_id)
    return None if ms is None else ms * 1000 - SEARCH_SLACK_US


def _line(item: Stored) -> str:
    if item.event is not None:
        return line(item.event, item.stored_us)
    when = f"[dim]{output.local(times.format_us(item.stored_us))}[/]"
    return f"{when} [red]undecodable[/] {escape(item.subject)} [dim]{escape(item.error)}[/]"


def line(event: Event, stored_us: int, *, with_id: bool = True) -> str:
    """An event on one line, as markup: when it was stored, what it is, where from, its gist."""
    colour = COLOURS[event.severity]
    text = (
        f"[dim]{output.local(times.format_us(stored_us))}[/] "
        f"[{colour}]{event.severity:<8}[/] [bold]{escape(event.topic)}[/] "
        f"[dim]{escape(event.host)}/{escape(event.source)}[/] {escape(gist(event.payload))}"
    )
    return f"{text} [dim]{escape(event.id)}[/]" if with_id else text


def gist(payload: dict[str, Any]) -> str:
    """The first short values of a payload, on one line."""
    parts = []
    for name, value in payload.items():
        if isinstance(value, str | int | float) and value != "" and name not in DULL:
            text = " ".join(str(value).split())
            parts.append(f"{name}={text if len(text) <= 60 else text[:59] + '…'}")
        if len(parts) == 4:
            break
    return " ".join(parts)


def fields(event: Event) -> dict[str, Any]:
    """An event as JSON: what it has of the envelope."""
    return {name: value for name, value in event.view().items() if value is not None}


def _record(item: Stored) -> dict[str, Any]:
    event = fields(item.event) if item.event else None
    return {
        "stream": EVENTS,
        "seq": item.seq,
        "stored": times.format_us(item.stored_us),
        "subject": item.subject,
        "event": event,
    }


def _json_line(item: Stored) -> str:
    if item.event is None:
        return json.dumps({"seq": item.seq, "subject": item.subject, "error": item.error})
    return " ".join(item.data.decode().splitlines())


def _cloudevent_line() -> Callable[[Stored], str]:
    registry = load_registry(Path(paths.config_dir(), "topics.yaml"))

    def write(item: Stored) -> str:
        if item.event is None:  # there is no such CloudEvent
            output.note(f"left out: sequence {item.seq} on {item.subject}: {item.error}")
            return ""
        payload = raw_fields(item.data).get("payload")
        found = to_cloudevent(item.event, payload, known=registry.is_registered)
        return " ".join(msgspec.json.encode(found).decode().splitlines())

    return write
