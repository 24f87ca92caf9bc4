"""`opsmesh approvals`, `approve` and `deny`: what waits for a person, and the person's answer."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from nats.aio.client import Client
from rich.console import Console
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.pairs import pair
from opsmesh.cli.said import person
from opsmesh.cli.session import with_client
from opsmesh.handlers.runs import approvals, asking
from opsmesh.handlers.runs.approvals import Answered, Open, Verdict
from opsmesh.router import redaction
from opsmesh.router.connection import AWAY
from opsmesh.router.errors import RouterError
from opsmesh.router.settings import Settings
from opsmesh.schemas import times

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


def complete(incomplete: str) -> Iterator[tuple[str, str]]:
    """Ids of what waits, for a shell; nothing while the mesh is away."""
    found: list[Open] = []
    # a prompt that is being typed is no place for an error
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(typer.Exit, *AWAY, RouterError),
    ):
        found = with_client(_waiting)
    for one in found:
        if one.asked.id.startswith(incomplete):
            yield one.asked.id, f"{one.run.profile}: {one.asked.prompt}"


Which = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="An approval's id or its run's, or the start of one.",
        autocompletion=complete,
    ),
]
Comment = Annotated[str, typer.Option("--comment", "-m", help="Why; it goes into the record.")]

app = typer.Typer(
    no_args_is_help=True,
    help="""What waits for a person. Answer with `opsmesh approve ID` or `opsmesh deny ID`.

    Example: opsmesh approvals ls
    """,
)


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the approvals that wait, the oldest first.

    Example: opsmesh approvals ls
    """
    found = with_client(_waiting)
    if as_json:
        output.as_json([record(one) for one in found])
        return
    rows = [
        {
            "since": output.local(times.format_us(one.asked.asked_us)),
            "profile": one.run.profile,
            "prompt": one.asked.prompt,
            "expires": _expires(one),
            "otherwise": one.asked.otherwise if one.asked.expires_us else None,
            "id": one.asked.id,
        }
        for one in found
    ]
    output.table(
        rows,
        ["since", "profile", "prompt", "expires", "otherwise", "id"],
        empty="nothing waits for an approval",
    )
    if found:
        output.note("answer: opsmesh approve ID, or opsmesh deny ID")


@app.command("show")
def show(approval_id: Which, as_json: AsJson = False) -> None:
    """Show one approval: what is asked, by which run, who may answer, and how it ended.

    Example: opsmesh approvals show 01a21d9f
    """

    async def body(client: Client, settings: Settings) -> Open:
        return await _find(client, approval_id)

    one = with_client(body)
    if as_json:
        output.as_json(record(one))
        return
    describe(output.console(), one)


def approve(
    approval_id: Which,
    value: Annotated[
        str | None,
        typer.Option("--answer", help="The value that is asked for, as JSON."),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", "-f", metavar="NAME=VALUE", help="One field of that value."),
    ] = None,
    comment: Comment = "",
    as_json: AsJson = False,
) -> None:
    """Say yes to what a run asks: `opsmesh approvals ls` shows what waits.

    Example: opsmesh approve 01a21d9f -m "the disk is free again"
    """
    _answer(approval_id, "granted", _value(value, fields), comment, as_json)


def deny(approval_id: Which, comment: Comment = "", as_json: AsJson = False) -> None:
    """Say no to what a run asks: its step is skipped, or the run fails, as the profile says.

    Example: opsmesh deny 01a21d9f -m "not during the backup"
    """
    _answer(approval_id, "denied", None, comment, as_json)


def describe(console: Console, one: Open) -> None:
    """Print one approval, and how it is answered or was."""
    asked, reply = one.asked, one.asked.reply
    console.print(f"[bold]{escape(asked.prompt)}[/]")
    ended = "" if reply is None else f"{asking.why(asked)}, at {times.clock(reply.at_us)}"
    for name, value in (
        ("approval", asked.id),
        ("profile", f"{one.run.profile}, step {one.step.id} ({one.step.action})"),
        ("run", f"{one.run.run_id} ({one.run.topic})"),
        ("host", one.run.host),
        ("asked", output.local(times.format_us(asked.asked_us))),
        ("expires", _expires(one) or "never"),
        ("otherwise", asked.otherwise if asked.expires_us else ""),
        ("on a no", asking.REFUSED[asked.otherwise] if reply is None else ""),
        ("may answer", ", ".join(asked.by)),
        ("value", json.dumps(asked.schema) if asked.schema else ""),
        ("ended", ended),
        ("via", "" if reply is None else reply.via),
    ):
        if value:
            console.print(f"  [dim]{name:<12}[/]{escape(value)}")
    if reply is None:
        console.print(f"  [dim]answer: opsmesh approve {asked.id}, or opsmesh deny {asked.id}[/]")


def _answer(approval_id: str, verdict: Verdict, value: Any, comment: str, as_json: bool) -> None:
    async def body(client: Client, settings: Settings) -> Answered:
        one = await _find(client, approval_id)
        return await approvals.answer(
            client,
            one.asked.id,
            verdict,
            by=person(),
            via="cli",
            host=settings.host,
            redactor=redaction.load(settings),
            value=value,
            # an argument that is not UTF-8 cannot be stored as it is
            comment=comment.encode(errors="surrogateescape").decode(errors="replace"),
        )

    done = with_client(body)
    if as_json:
        output.as_json({**record(Open(done.run, _step(done), done.asked)), "new": done.new})
        return
    what = f"{done.asked.prompt!r} of {done.run.profile}"
    if not done.new:
        output.note(f"{what} was {verdict} by you before; nothing changes")
        return
    output.note(f"{what} is {verdict}\nsee what becomes of it: opsmesh run show {done.run.run_id}")


def _step(done: Answered) -> Any:
    return next(step for step in done.run.steps if done.asked in step.asked)


async def _waiting(client: Client, _: Settings) -> list[Open]:
    return [one async for one in approvals.waiting(client)]


async def _find(client: Client, text: str) -> Open:
    """The approval that is meant: one that waits by its start, any other by its whole id."""
    open_ones = [one async for one in approvals.waiting(client)]
    found = [one for one in open_ones if text and text in (one.asked.id, one.run.run_id)] or [
        one
        for one in open_ones
        if text and (one.asked.id.startswith(text) or one.run.run_id.startswith(text))
    ]
    if len(found) > 1:
        what = f"{len(found)} approvals begin with {text}; write more of the id"
        output.fail(what, hint="opsmesh approvals ls", code=output.USAGE)
    if found:
        return found[0]
    try:
        return await approvals.find(client, text)
    except approvals.UnknownApproval as error:
        output.fail(str(error), hint=error.hint, code=output.NOT_FOUND)


def _value(text: str | None, fields: list[str] | None) -> Any:
    """The value of the options; a field's text is JSON where it reads as such."""
    if text is not None and fields:
        output.fail("give the value by --answer or by --field, not by both", code=output.USAGE)
    if text is not None:
        try:
            return json.loads(text)
        except ValueError as error:
            output.fail(
                f"--answer is no JSON: {error}",
                hint="a text stands in quotes: --answer '\"main\"'",
                code=output.USAGE,
            )
    value: dict[str, Any] = {}
    for field in fields or []:
        found = pair(field)
        if found is None:
            output.fail(f"--field {field!r} is not NAME=VALUE", code=output.USAGE)
        value[found[0]] = found[1]
    return value or None


def _expires(one: Open) -> str | None:
    until = one.asked.expires_us
    return output.local(times.format_us(until)) if until else None


def record(one: Open) -> dict[str, Any]:
    asked, reply = one.asked, one.asked.reply
    found: dict[str, Any] = {
        "id": asked.id,
        "profile": one.run.profile,
        "step": one.step.id,
        "run": one.run.run_id,
        "topic": one.run.topic,
        "event": one.run.event_id,
        "host": one.run.host,
        "prompt": asked.prompt,
        "schema": asked.schema,
        "since": times.format_us(asked.asked_us),
        "expires": times.format_us(asked.expires_us) if asked.expires_us else None,
        "otherwise": asked.otherwise,
        "may_answer": list(asked.by),
        "verdict": None if reply is None else reply.verdict,
    }
    if reply is not None:
        found["reply"] = {
            "by": reply.by,
            "host": reply.host,
            "via": reply.via,
            "at": times.format_us(reply.at_us),
            "comment": reply.comment,
            "answer": reply.answer,
        }
    return found
