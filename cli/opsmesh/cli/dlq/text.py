"""Dead letters as people and programs read them."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.dlq import groups
from opsmesh.cli.dlq.groups import Group
from opsmesh.cli.dlq.settle import INGEST, Refused, Settled, unfit
from opsmesh.router.deadletter import Letter
from opsmesh.schemas import times

#: Characters of a reason in a table on a terminal.
REASON: Final = 120
#: Numbers that are listed; of more only how many they are is said.
LISTED: Final = 20


def letters_table(letters: Sequence[Letter]) -> None:
    """One line a letter."""
    output.table(
        [
            {
                "seq": letter.seq,
                "time": output.local(times.format_us(letter.stored_us)),
                "profile": letter.profile,
                "topic": letter.topic,
                "attempts": len(letter.errors),
                "reason": _short(letter.reason),
            }
            for letter in letters
        ],
        ["seq", "time", "profile", "topic", "attempts", "reason"],
        empty="no dead letters",
    )


def groups_table(found: Sequence[Group]) -> None:
    """One line a group of equal failures, and how to go on with one of them."""
    output.table(
        [
            {
                "count": f"{group.count:,}",
                "profile": group.profile,
                "topic": group.topics[0]
                if len(group.topics) == 1
                else f"{len(group.topics)} topics",
                "first": output.local(times.format_us(group.first_us)),
                "last": output.local(times.format_us(group.last_us)),
                "example": group.example_seq,
                "key": group.key,
                "reason": _short(group.reason),
            }
            for group in found
        ],
        ["count", "profile", "topic", "first", "last", "example", "key", "reason"],
        empty="no dead letters",
    )
    if found:
        output.note(
            f"one group, read, mended and sent again: opsmesh dlq show {found[0].example_seq} · "
            f"{command(found[0])}"
        )


def command(group: Group) -> str:
    """What settles exactly this group."""
    act = "drop" if group.profile == INGEST else "retry"
    return f"opsmesh dlq {act} --all --group-key {group.key}"


def group_record(group: Group) -> dict[str, Any]:
    """A group as JSON."""
    record: dict[str, Any] = msgspec.to_builtins(group)
    for name in ("first", "last"):
        record[name] = times.format_us(record.pop(f"{name}_us"))
    return {**record, "command": command(group)}


def letter_record(letter: Letter) -> dict[str, Any]:
    """A letter as JSON, its event as JSON in it where it is some."""
    record: dict[str, Any] = msgspec.to_builtins(letter)
    for name in ("stored_us", "origin_us"):
        us = record.pop(name)
        record[name.removesuffix("_us") + "_time"] = times.format_us(us) if us else None
    record["group_key"] = groups.key(letter)
    record["events"] = [{"id": ref.id, "seq": ref.seq} for ref in letter.events]
    del record["data"]
    try:
        record["event"] = msgspec.json.decode(letter.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        record["base64"] = base64.b64encode(letter.data).decode()
    return record


def describe(console: Console, letter: Letter) -> None:
    """Print one letter whole, and what can be done with it."""
    console.print(f"[bold]{escape(letter.profile)}[/] {escape(letter.topic)}")
    console.print(f"  [red]{escape(letter.reason)}[/]")
    for name, value in (
        ("event", letter.event_id),
        ("run", letter.run_id),
        ("host", letter.host),
        ("stored", output.local(times.format_us(letter.stored_us))),
        ("origin", f"{letter.origin} {letter.origin_seq}" if letter.origin else ""),
        ("profile hash", letter.profile_hash),
        ("group", groups.key(letter)),
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
    if letter.events:
        console.print(f"  [dim]about {len(letter.events)} events, this one the last of them[/]")
        for ref in letter.events[:LISTED]:
            console.print(f"    [dim]{escape(ref.id)} (EVENTS {ref.seq})[/]")
        if len(letter.events) > LISTED:
            console.print(f"    [dim]and {len(letter.events) - LISTED} more: --json[/]")
    try:
        console.print_json(letter.data.decode())
    except ValueError:
        console.print(escape(repr(letter.data)))
    no = unfit(letter)
    console.print(f"[dim]next: {escape(no.hint if no else f'opsmesh dlq retry {letter.seq}')}[/]")


def report(what: str, settled: Settled, *, as_json: bool) -> None:
    """What was done, and what was not and why; ends with 1 when a letter was refused."""
    if as_json:
        output.as_json(
            {
                "done": [_brief(letter) for letter in settled.done],
                "refused": [{**_brief(one.letter), "why": one.why} for one in settled.refused],
                "gone": settled.gone,
            }
        )
    else:
        if settled.done:
            output.note(f"{what}: {numbers([letter.seq for letter in settled.done])}")
        if settled.gone:
            output.note(f"gone already: {numbers(settled.gone)}")
        if not settled.wanted:
            output.note("no dead letters")
    if settled.refused:
        _refusals(settled.refused)


def numbers(seqs: Sequence[int]) -> str:
    """A few numbers as they are, many as how many they are."""
    if len(seqs) <= LISTED:
        return ", ".join(map(str, seqs))
    return f"{len(seqs):,} letters, {seqs[0]} to {seqs[-1]}"


def stopped(what: str, settled: Settled) -> None:
    """Say how far a command got that was ended before its end."""
    done = len(settled.done)
    sys.stdout.flush()
    output.note(
        f"{what}: {done:,} of {settled.wanted:,}; the others wait as they did. "
        "Say it again to go on: what is done already is not done twice"
    )


def _refusals(refused: Sequence[Refused]) -> None:
    by_reason: dict[str, list[Refused]] = {}
    for one in refused:
        by_reason.setdefault(one.why, []).append(one)
    lines = [
        f"{why}: {numbers([one.letter.seq for one in several])}"
        for why, several in by_reason.items()
    ]
    output.fail("not sent again, they stay:\n" + "\n".join(lines), hint=refused[0].hint)


def _brief(letter: Letter) -> dict[str, Any]:
    return {"seq": letter.seq, "profile": letter.profile}


def _short(reason: str) -> str:
    if not sys.stdout.isatty() or len(reason) <= REASON:
        return reason
    return reason[: REASON - 1] + "…"
