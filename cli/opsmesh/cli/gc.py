"""`opsmesh gc`: what nobody needs any more, shown first."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from opsmesh.cli import output, sizes
from opsmesh.handlers.care import backup, broker
from opsmesh.handlers.care import gc as care
from opsmesh.handlers.care.gc import Item
from opsmesh.router import paths, server
from opsmesh.router.errors import RouterError
from opsmesh.router.settings import Settings
from opsmesh.schemas import times

_NAMES = [kind.name for kind in care.KINDS]


def gc(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND",
            help="Only these; all but replaced unless given.",
            autocompletion=lambda: _NAMES,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it. Otherwise: show.")] = False,
    keep: Annotated[
        int, typer.Option(min=0, metavar="N", help="How many of the newest backups stay.")
    ] = backup.KEEP,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show what nobody needs any more, with its size and age; remove it with --yes.

    \b
    chunks     parts of shared bundles whose upload was broken off
    consumers  consumers and positions of profiles that were removed
    work       working folders of runs that have ended
    bundles    bundles beyond bundles.keep and bundles.max_bytes
    backups    backups beyond the newest --keep, and those that were broken off
    logs       logs that nothing has written to for a month
    replaced   what a restore has set aside; only when named

    Events, dead letters, evidence, decisions and the spool are never touched: they have limits of
    their own (docs/operations.md).

    \b
    Examples: opsmesh gc
              opsmesh gc --yes
              opsmesh gc backups --keep 2 --yes
    """
    wanted = kinds or []
    if unknown := [name for name in wanted if name not in _NAMES]:
        output.fail(
            f"there is no kind {unknown[0]!r}",
            hint=f"one of {', '.join(_NAMES)}",
            code=output.USAGE,
        )
    found, gone, unseen = asyncio.run(_work(wanted, keep=keep, yes=yes))
    if unseen:
        output.note(f"only what lies on this host was looked at: {unseen}")
    if as_json:
        done = {id(item) for item in gone}
        output.as_json([{**_record(item), "removed": id(item) in done} for item in found])
    else:
        output.table([_row(item) for item in found], _COLUMNS, empty="nothing is to go")
        if found:
            output.note(
                _told(gone, "removed") if yes else f"{_told(found, 'would remove')}; --yes does it"
            )
    if yes and len(gone) < len(found):
        output.fail(f"{len(found) - len(gone)} could not be removed", hint="see the reasons above")


async def _work(kinds: list[str], *, keep: int, yes: bool) -> tuple[list[Item], list[Item], str]:
    """What was found, what is gone of it, and why the broker was not asked."""
    settings = Settings()
    asks = not kinds or any(kind.at_broker for kind in care.KINDS if kind.name in kinds)
    never = not settings.nats.url and server.known(Path(paths.state_dir())) is None
    if not asks or (never and not broker.guest(settings)):  # no broker is made for this
        found = await care.find(settings, None, kinds=kinds, keep=keep)
        return found, await care.remove(found, left=_left) if yes else [], ""
    try:
        async with broker.reached(settings) as client:
            found = await care.find(settings, client, kinds=kinds, keep=keep)
            gone = await care.remove(found, left=_left) if yes else []
            return found, gone, "" if client is not None else "the streams are the hub's"
    except RouterError as error:
        found = await care.find(settings, None, kinds=kinds, keep=keep)
        return found, await care.remove(found, left=_left) if yes else [], str(error)


def _left(item: Item, error: OSError) -> None:
    output.note(f"{item.kind} {item.name}: {error}")


_COLUMNS = ["kind", "age", "size", "why", "name"]


def _row(item: Item) -> dict[str, str]:
    days = (times.now_us() - item.at_us) / 1e6 / 86400
    return {
        "kind": item.kind,
        "age": f"{days:.0f}d" if days >= 1 else "<1d",
        "size": sizes.text(item.size) if item.size else "-",
        "why": item.why,
        "name": item.name,
    }


def _record(item: Item) -> dict[str, object]:
    return {
        "kind": item.kind,
        "name": item.name,
        "bytes": item.size,
        "since": times.format_us(item.at_us),
        "why": item.why,
    }


def _told(items: list[Item], what: str) -> str:
    counts = Counter(item.kind for item in items)
    kinds = ", ".join(f"{kind} {number}" for kind, number in counts.items()) or "nothing"
    return f"{what}: {kinds}; {sizes.text(sum(item.size for item in items))}"
