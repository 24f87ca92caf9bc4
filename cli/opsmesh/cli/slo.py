"""`opsmesh slo`: how profiles stand by their objectives. Exit code 1 when one is missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from nats.aio.client import Client

from opsmesh.cli import output
from opsmesh.cli.profiles import lookup
from opsmesh.cli.session import with_client
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.slo import book
from opsmesh.handlers.slo.book import Book, described
from opsmesh.handlers.slo.objectives import HOUR_US, MINUTE_US, SHOWN_US
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.schemas import durations, times
from opsmesh.schemas.envelope import host_token

_COLOURS: Final = {"ok": "green", "burning": "yellow", "breached": "red", "too few runs": "dim"}
_WORDS: Final = {"too_few": "too few runs"}


def slo(
    profile: Annotated[str, typer.Argument(help="One profile; all that have objectives.")] = "",
    window: Annotated[
        str,
        typer.Option("--window", help="Look back so long, instead of what each says: 24h, 30d."),
    ] = "",
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="From the archive alone; no broker is asked."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """How profiles stand by their objectives (`slo:` in a profile): what is wanted, what there is,
    what is left of the error budget, and how fast it is being spent.

    Exit code: 0 all are met, or too few runs tell; 1 one is burning or breached.

    Examples: opsmesh slo
              opsmesh slo triage-failed-service --window 24h
              opsmesh slo --evidence --json
    """
    chosen = _chosen(profile, _seconds(window))
    if not chosen:
        output.note("no profile has objectives; write one: slo: {success: 99%, latency_p99: 500ms}")
        if as_json:
            output.as_json([])
        return
    now_us = times.now_us()
    since_us = now_us - max(one.slo.window_us for one in chosen if one.slo)
    settings = Settings()
    if evidence:
        found = book.of_archive(Path(paths.evidence_dir()), since_us=since_us)
    else:

        async def body(client: Client, _: Settings) -> Book:
            return await book.of_stream(client, since_us=since_us)

        found = with_client(body)
    rows = [row for one in chosen for row in _rows(one, found, host=settings.host, now_us=now_us)]
    _show(rows, as_json)
    if any(row["verdict"] in ("burning", "breached") for row in rows):
        raise typer.Exit(output.FAILED)


def _chosen(name: str, window_s: float | None) -> list[Profile]:
    known = lookup.load()
    found = [lookup.find(known, name)] if name else list(known.profiles.values())
    if name and found[0].slo is None:
        output.fail(
            f"profile {name} has no objectives",
            hint="write some into it: slo: {success: 99%, latency_p99: 500ms}",
            code=output.NOT_FOUND,
        )
    return [_over(one, window_s) for one in found if one.slo is not None]


def _over(profile: Profile, window_s: float | None) -> Profile:
    if window_s is None or profile.slo is None:
        return profile
    policy = msgspec.structs.replace(profile.slo, window_us=round(window_s * 1e6))
    return dataclasses.replace(profile, slo=policy)


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        return durations.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--window") from error


def _rows(profile: Profile, found: Book, *, host: str, now_us: int) -> list[dict[str, Any]]:
    if profile.slo is None:
        return []
    own = host_token(host)
    of = own if profile.run_on == "origin" else None
    return [
        {
            "profile": profile.name,
            **described(one),
            "window_s": profile.slo.window_us / 1e6,
            "min_runs": profile.slo.min_runs,
            "burn_rates": {_span(span): _rounded(one.burn.get(span)) for span in SHOWN_US},
            "verdict": _WORDS.get(one.verdict, one.verdict),
        }
        for one in found.standings(profile.name, profile.slo, host=own, of=of, now_us=now_us)
    ]


def _show(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.as_json(list(rows))
        return
    output.table(
        [_row(row) for row in rows],
        ("profile", "objective", "wanted", "is", "runs", "bad", "left", "burn_1h", "verdict"),
        empty="",
        style=lambda name, value: _COLOURS.get(value, "") if name == "verdict" else "",
    )


def _row(row: dict[str, Any]) -> dict[str, Any]:
    latency = row["within_ms"] is not None
    return {
        **row,
        "wanted": f"≤ {_ms(row['within_ms'])}" if latency else _percent(row["target"]),
        "is": _ms(row["value_ms"]) if latency else _percent(row["good"]),
        "left": _percent(row["budget_left"]),
        "burn_1h": "-" if row["burn_rate_1h"] is None else f"{row['burn_rate_1h']:.3g}×",
    }


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.4g}%"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def _span(us: int) -> str:
    return f"{us // MINUTE_US}m" if us < HOUR_US else f"{us // HOUR_US}h"


def _rounded(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else round(value, 4)
