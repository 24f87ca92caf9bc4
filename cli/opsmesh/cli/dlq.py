"""`opsmesh dlq`: events that no attempt could handle, and what to do with them."""

from __future__ import annotations

import base64
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
import typer
from nats.aio.client import Client
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.events import moment
from opsmesh.cli.said import new_event, person, say
from opsmesh.cli.session import with_client
from opsmesh.router import deadletter, trigger
from opsmesh.router.deadletter import Letter
from opsmesh.router.settings import Settings
from opsmesh.router.topic_patterns import topic_matches
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError

app = typer.Typer(
    no_args_is_help=True,
    help="Events that no attempt could handle: read them, mend the cause, send them again.",
)

#: Letters of lines that never became an event; no profile can be handed them.
INGEST = "ingest"

Profile = Annotated[str | None, typer.Option("--profile", "-p", help="Only of this profile.")]
TopicOption = Annotated[
    str | None, typer.Option("--topic", "-t", help="Only of this topic; NATS wildcards.")
]
Since = Annotated[str | None, typer.Option(help="Only from this age (2h, 7d) or time on.")]
Seqs = Annotated[
    list[int] | None, typer.Argument(metavar="[SEQ]...", help="Numbers that `dlq ls` shows.")
]
All = Annotated[bool, typer.Option("--all", help="Every letter that the filters let through.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command("ls")
def ls(
    profile: Profile = None,
    topic: TopicOption = None,
    since: Since = None,
    group: Annotated[bool, typer.Option("--group", help="Count equal failures.")] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first.

    Example: opsmesh dlq ls --profile triage --group
    """
    found = with_client(_chosen(None, profile, topic, since))
    if group:
        _groups(found, as_json)
        return
    if as_json:
        output.as_json([_record(letter) for letter in found])
        return
    output.table(
        [
            {
                "seq": letter.seq,
                "time": output.local(times.format_us(letter.stored_us)),
                "profile": letter.profile,
                "topic": letter.topic,
                "attempts": len(letter.errors),
                "reason": letter.reason,
            }
            for letter in found
        ],
        ["seq", "time", "profile", "topic", "attempts", "reason"],
        empty="no dead letters",
    )


@app.command("show")
def show(
    seq: Annotated[int, typer.Argument(metavar="SEQ", help="A number that `dlq ls` shows.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Only the original bytes, to standard output.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: its event, its headers, and the error of every attempt."""

    async def body(client: Client, settings: Settings) -> Letter | None:
        return await deadletter.get(client, seq)

    letter = with_client(body)
    if letter is None:
        output.fail(f"no dead letter {seq}", hint="opsmesh dlq ls", code=output.NOT_FOUND)
    if raw:
        sys.stdout.buffer.write(letter.data)
        return
    if as_json:
        output.as_json(_record(letter))
        return
    console = output.console()
    console.print(f"[bold]{escape(letter.profile)}[/] {escape(letter.topic)}")
    console.print(f"  [red]{escape(letter.reason)}[/]")
    for name, value in (
        ("event", letter.event_id),
        ("run", letter.run_id),
        ("stored", output.local(times.format_us(letter.stored_us))),
        ("origin", f"{letter.origin} {letter.origin_seq}" if letter.origin else ""),
        ("profile hash", letter.profile_hash),
    ):
        if value:
            console.print(f"  [dim]{name:<13}[/]{escape(value)}")
    for error in letter.errors:
        at = output.local(times.format_us(int(error.get("at_us", 0))))
        console.print(
            f"  [red]attempt {error.get('attempt', '?')}[/] [dim]{at} "
            f"{escape(str(error.get('step', '')))}[/] {escape(str(error.get('error', '')))}"
        )
    for name, value in letter.headers.items():
        console.print(f"  [dim]{escape(name)}: {escape(value)}[/]")
    try:
        console.print_json(letter.data.decode())
    except ValueError:
        console.print(escape(repr(letter.data)))
    retry = f"opsmesh dlq retry {seq}" if letter.profile != INGEST else f"opsmesh dlq drop {seq}"
    console.print(f"[dim]next: {retry}[/]")


@app.command("retry")
def retry(
    seqs: Seqs = None,
    every: All = False,
    profile: Profile = None,
    topic: TopicOption = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters to their profile again, as it is defined today, from its first step.

    Doing it twice is harmless. Example: opsmesh dlq retry --all --profile triage
    """
    _require(seqs, every)

    async def body(client: Client, settings: Settings) -> tuple[list[Letter], list[Letter]]:
        sent, refused = [], []
        for letter in await _chosen(seqs, profile, topic, since)(client, settings):
            if letter.profile == INGEST:
                refused.append(letter)
                continue
            again = trigger.Trigger(
                kind="redrive",
                id=ids.derived(letter.stored_us // 1000, "redrive", str(letter.seq)),
                origin=(letter.origin, letter.origin_seq, letter.origin_us)
                if letter.origin
                else None,
            )
            await trigger.send(client, letter.profile, letter.data, again)
            await _settle(client, settings, letter, "automation.deadletter.redriven")
            sent.append(letter)
        return sent, refused

    sent, refused = with_client(body)
    _report("sent again", sent, as_json)
    if refused:
        output.fail(
            f"{len(refused)} never became an event, and no profile can be handed them: "
            + ", ".join(str(letter.seq) for letter in refused),
            hint=f"read one with `opsmesh dlq show {refused[0].seq} --raw`, emit it mended, "
            f"then `opsmesh dlq drop {refused[0].seq}`",
        )


@app.command("drop")
def drop(
    seqs: Seqs = None,
    every: All = False,
    profile: Profile = None,
    topic: TopicOption = None,
    since: Since = None,
    reason: Annotated[str, typer.Option(help="Why; it goes into the record.")] = "",
    as_json: AsJson = False,
) -> None:
    """Give dead letters up. Their events stay in the stream and in the evidence."""
    _require(seqs, every)

    async def body(client: Client, settings: Settings) -> list[Letter]:
        found = await _chosen(seqs, profile, topic, since)(client, settings)
        for letter in found:
            await _settle(client, settings, letter, "automation.deadletter.dropped", reason)
        return found

    _report("dropped", with_client(body), as_json)


def _require(seqs: list[int] | None, every: bool) -> None:
    if bool(seqs) == every:
        output.fail(
            "say which: one or more numbers, or --all",
            hint="opsmesh dlq ls",
            code=output.USAGE,
        )


def _chosen(
    seqs: list[int] | None, profile: str | None, topic: str | None, since: str | None
) -> Callable[[Client, Settings], Awaitable[list[Letter]]]:
    since_us = moment(since)

    async def body(client: Client, settings: Settings) -> list[Letter]:
        if seqs:
            found = [await deadletter.get(client, seq) for seq in seqs]
            missing = [seq for seq, letter in zip(seqs, found, strict=True) if letter is None]
            if missing:
                output.fail(
                    f"no dead letter {', '.join(map(str, missing))}; nothing was done",
                    hint="opsmesh dlq ls",
                    code=output.NOT_FOUND,
                )
            return [letter for letter in found if letter is not None]
        return [
            letter
            async for letter in deadletter.letters(client, profile=profile, since_us=since_us)
            if topic is None or topic_matches(topic, letter.topic)
        ]

    return body


async def _settle(
    client: Client, settings: Settings, letter: Letter, topic: str, reason: str = ""
) -> None:
    """Record what was done, then take the letter out: in this order nothing goes unrecorded."""
    payload: dict[str, Any] = {
        "profile": letter.profile,
        "dlq_seq": letter.seq,
        "trigger_topic": letter.topic,
        "trigger_id": letter.event_id or None,
        "by": person(),
        "reason": reason or None,
    }
    event = new_event(
        settings,
        topic,
        {name: value for name, value in payload.items() if value is not None},
        cause=_event(letter),
        event_id=ids.derived(letter.stored_us // 1000, topic, str(letter.seq)),
    )
    await say(client, event)
    await deadletter.remove(client, letter.seq)


def _event(letter: Letter) -> Event | None:
    stored = (letter.origin, letter.origin_seq, letter.origin_us) if letter.origin else None
    try:
        return decode(letter.data, stored=stored)
    except SchemaError:
        return None


def _report(what: str, letters: list[Letter], as_json: bool) -> None:
    if as_json:
        output.as_json([{"seq": letter.seq, "profile": letter.profile} for letter in letters])
    elif letters:
        output.note(f"{what}: {', '.join(str(letter.seq) for letter in letters)}")
    else:
        output.note("no dead letters")


def _groups(letters: list[Letter], as_json: bool) -> None:
    counts = Counter((letter.profile, letter.topic, letter.reason) for letter in letters)
    rows = [
        {"count": count, "profile": profile, "topic": topic, "reason": reason}
        for (profile, topic, reason), count in counts.most_common()
    ]
    if as_json:
        output.as_json(rows)
        return
    output.table(rows, ["count", "profile", "topic", "reason"], empty="no dead letters")


def _record(letter: Letter) -> dict[str, Any]:
    record: dict[str, Any] = msgspec.to_builtins(letter)
    for name in ("stored_us", "origin_us"):
        us = record.pop(name)
        record[name.removesuffix("_us") + "_time"] = times.format_us(us) if us else None
    del record["data"]
    try:
        record["event"] = msgspec.json.decode(letter.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        record["base64"] = base64.b64encode(letter.data).decode()
    return record
