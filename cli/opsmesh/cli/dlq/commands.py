"""`opsmesh dlq`: events that no attempt could handle, and what to do with them."""

from __future__ import annotations

import sys
from collections import deque
from typing import Annotated

import typer
from nats.aio.client import Client

from opsmesh.cli import output
from opsmesh.cli.dlq import groups, ready, text
from opsmesh.cli.dlq.choice import Choice
from opsmesh.cli.dlq.settle import Act, Refused, Settled, settle
from opsmesh.cli.session import with_client
from opsmesh.router import deadletter
from opsmesh.router.deadletter import Letter
from opsmesh.router.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Events that no attempt could handle: read them, mend the cause, send them again.",
)

#: Letters that `ls` shows on a terminal unless it is told.
SHOWN = 20

Profile = Annotated[str | None, typer.Option("--profile", "-p", help="Only of this profile.")]
Topic = Annotated[
    str | None, typer.Option("--topic", "-t", help="Only of this topic; NATS wildcards.")
]
Host = Annotated[str | None, typer.Option(help="Only of events from this host.")]
Since = Annotated[str | None, typer.Option(help="Only from this age (2h, 7d) or time on.")]
Until = Annotated[str | None, typer.Option(help="Only from before this age or time.")]
Reason = Annotated[
    str | None,
    typer.Option(help="Only where the reason holds this text, or matches /this expression/."),
]
EventId = Annotated[str | None, typer.Option("--event", help="Only of this event; its id's start.")]
RunId = Annotated[str | None, typer.Option("--run", help="Only of this run; its id's start.")]
GroupKey = Annotated[
    str | None, typer.Option("--group-key", help="Only of this group, which `ls --group` shows.")
]
Seqs = Annotated[
    list[int] | None, typer.Argument(metavar="SEQ", help="Numbers that `dlq ls` shows.")
]
All = Annotated[bool, typer.Option("--all", help="Every letter that the filters let through.")]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, help="The oldest so many at most.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether it is meant.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command("ls")
def ls(
    profile: Profile = None,
    topic: Topic = None,
    host: Host = None,
    since: Since = None,
    until: Until = None,
    reason: Reason = None,
    event: EventId = None,
    run: RunId = None,
    group_key: GroupKey = None,
    group: Annotated[
        bool, typer.Option("--group", help="Equal failures as one line, with their count.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="All of them, also on a terminal.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="The newest so many.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first; on a terminal the newest 20.

    --group makes one line of failures that are equal but for numbers, ids, paths and times.

    \b
    opsmesh dlq ls --group
    opsmesh dlq ls --profile triage --since 1d --reason 'not found'
    opsmesh dlq ls --reason '/exit status (1|2)/' --json
    """
    choice = Choice(
        profile=profile,
        topic=topic,
        host=host,
        since=since,
        until=until,
        reason=reason,
        event=event,
        run=run,
        group_key=group_key,
    )
    if limit is None and not every and not as_json and not group and sys.stdout.isatty():
        limit = SHOWN

    async def body(client: Client, settings: Settings) -> tuple[list[Letter], int]:
        newest: deque[Letter] = deque(maxlen=limit)
        count = 0
        async for letter in choice.letters(client, bodies=as_json and not group):
            newest.append(letter)
            count += 1
        return list(newest), count

    found, count = with_client(body)
    if group:
        summary = groups.grouped(found)
        if as_json:
            output.as_json([text.group_record(one) for one in summary])
        else:
            text.groups_table(summary)
        return
    if as_json:
        output.as_json([text.letter_record(letter) for letter in found])
        return
    text.letters_table(found)
    if count > len(found):
        output.note(f"and {count - len(found):,} older ones: --all, or --group for a summary")


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
    elif as_json:
        output.as_json(text.letter_record(letter))
    else:
        text.describe(output.console(), letter)


@app.command("retry")
def retry(
    seqs: Seqs = None,
    every: All = False,
    profile: Profile = None,
    topic: Topic = None,
    host: Host = None,
    since: Since = None,
    until: Until = None,
    reason: Reason = None,
    event: EventId = None,
    run: RunId = None,
    group_key: GroupKey = None,
    limit: Limit = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters to their profile again, as it is defined today, from its first step.

    Each is recorded as automation.deadletter.redriven before it goes. Doing it twice, or two people
    at once, is one run.

    \b
    opsmesh dlq retry 17 18
    opsmesh dlq retry --all --group-key 3f9c1d2a
    opsmesh dlq retry --all --profile triage --since 1d --limit 10
    """
    choice = Choice(
        profile=profile,
        topic=topic,
        host=host,
        since=since,
        until=until,
        reason=reason,
        event=event,
        run=run,
        group_key=group_key,
    )
    _settle("retry", seqs, every, choice, limit=limit, yes=yes, as_json=as_json)


@app.command("drop")
def drop(
    seqs: Seqs = None,
    every: All = False,
    profile: Profile = None,
    topic: Topic = None,
    host: Host = None,
    since: Since = None,
    until: Until = None,
    reason: Reason = None,
    event: EventId = None,
    run: RunId = None,
    group_key: GroupKey = None,
    limit: Limit = None,
    comment: Annotated[str, typer.Option(help="Why; it goes into the record.")] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give dead letters up. Their events stay in the stream and in the evidence.

    Each is recorded as automation.deadletter.dropped before it goes.

    Example: opsmesh dlq drop --all --profile old --comment 'the unit is gone'
    """
    choice = Choice(
        profile=profile,
        topic=topic,
        host=host,
        since=since,
        until=until,
        reason=reason,
        event=event,
        run=run,
        group_key=group_key,
    )
    _settle("drop", seqs, every, choice, limit=limit, yes=yes, as_json=as_json, comment=comment)


_SAID: dict[Act, tuple[str, str]] = {
    "retry": ("sent again", "Send {} to {} again?"),
    "drop": ("dropped", "Give {} of {} up?"),
}


def _settle(
    act: Act,
    seqs: list[int] | None,
    every: bool,
    choice: Choice,
    *,
    limit: int | None,
    yes: bool,
    as_json: bool,
    comment: str = "",
) -> None:
    _require(seqs, every, choice, limit)
    said, question = _SAID[act]

    async def choose(client: Client, settings: Settings) -> list[Letter]:
        return await _chosen(client, seqs, choice, limit)

    # two connections: a person may think for as long as they like
    chosen = with_client(choose)
    if not seqs and chosen and not yes:
        _confirm(question, chosen)
    so_far = Settled(wanted=len(chosen))

    async def body(client: Client, settings: Settings) -> None:
        refuse, disabled, waiting = _never, set[str](), False
        if act == "retry":
            known = await ready.look(client)
            refuse, disabled = known.refuse, known.disabled
            waiting = await ready.nobody_takes(client)
        await settle(
            client,
            settings,
            [letter.seq for letter in chosen],
            act,
            comment=comment,
            refuse=refuse,
            so_far=so_far,
            progress=lambda done: _progress(said, done, so_far.wanted),
        )
        _tell(so_far, disabled, waiting)

    if chosen:
        try:
            with_client(body)
        except (typer.Exit, ready.BrokenProfiles):
            raise
        except (Exception, KeyboardInterrupt):
            text.stopped(said, so_far)
            raise
    text.report(said, so_far, as_json=as_json)


def _require(seqs: list[int] | None, every: bool, choice: Choice, limit: int | None) -> None:
    if bool(seqs) == every:
        output.fail(
            "say which: one or more numbers, or --all, which filters make fewer",
            hint="opsmesh dlq ls --group",
            code=output.USAGE,
        )
    if seqs and (choice.filters or limit):
        output.fail(
            "numbers and filters contradict each other: filters go with --all", code=output.USAGE
        )


async def _chosen(
    client: Client, seqs: list[int] | None, choice: Choice, limit: int | None
) -> list[Letter]:
    """The letters without their events, the oldest first; numbers all have to be there."""
    if not seqs:
        found = [letter async for letter in choice.letters(client)]
        return found[:limit]
    wanted = sorted(set(seqs))
    letters = await deadletter.get_all(client, wanted)
    missing = sorted(set(wanted) - {letter.seq for letter in letters})
    if missing:
        output.fail(
            f"no dead letter {', '.join(map(str, missing))}; nothing was done",
            hint="opsmesh dlq ls",
            code=output.NOT_FOUND,
        )
    return letters


def _confirm(question: str, chosen: list[Letter]) -> None:
    """Ask a person at a terminal; a script has said what it means."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    names = sorted({letter.profile for letter in chosen})
    of = names[0] if len(names) == 1 else f"{len(names)} profiles"
    letters = "1 letter" if len(chosen) == 1 else f"{len(chosen):,} letters"
    if not typer.confirm(question.format(letters, of), err=True):
        raise typer.Abort


def _never(letter: Letter) -> Refused | None:
    return None


def _progress(said: str, done: int, wanted: int) -> None:
    if sys.stderr.isatty() and done < wanted:
        sys.stderr.write(f"\r\x1b[K{said}: {done:,} of {wanted:,}")
        sys.stderr.flush()
    elif sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


def _tell(settled: Settled, disabled: set[str], waiting: bool) -> None:
    """What a person may not expect: runs that do not begin at once."""
    names = sorted({letter.profile for letter in settled.done} & disabled)
    for name in names:
        output.note(f"{name} is disabled: its runs begin when it is enabled")
    if waiting and settled.done:
        output.note("no handlers answer: the runs begin when they do (opsmesh status)")
