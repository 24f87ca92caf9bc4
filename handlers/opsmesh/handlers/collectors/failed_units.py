"""`failed_units`: units that are failed now, and which of them failed since the event began."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Duration, Spec
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.errors import Unstartable
from opsmesh.schemas import times

#: Units that are told.
MAX_UNITS: Final = 100
_PROPERTIES: Final = "Id,Description,Result,InactiveEnterTimestamp"


class FailedUnitsSpec(Spec):
    """From when on a failure counts as new."""

    since: Annotated[
        Duration, Field(description="So long before the event; a transaction's own start counts.")
    ] = 600.0


class FailedUnits:
    """Units of the system's and the user's manager."""

    key: ClassVar[str] = "failed_units"
    spec: ClassVar[type[FailedUnitsSpec]] = FailedUnitsSpec

    def __init__(self, spec: FailedUnitsSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        event = request.ctx.event
        since_us = event.ts_us - round(self._spec.since * 1e6)
        found: list[dict[str, Any]] = []
        unheard: list[str] = []
        for manager in ("system", "user"):
            try:
                found += await _of(request, manager)
            except Unavailable as error:
                unheard.append(f"{manager}: {error}")
        if len(unheard) == 2:
            raise Unavailable("; ".join(unheard))
        for one in found:
            one["new"] = one["since_us"] >= since_us
        found.sort(key=lambda one: (not one["new"], one["unit"]))
        lines = [
            f"{'new  ' if one['new'] else 'older'}  {_when(one['since_us'])}  {one['unit']} "
            f"({one['manager']}): {one['result']}\n"
            for one in found
        ]
        new = [one["unit"] for one in found if one["new"]]
        text = "".join(lines) or "no unit is failed\n"
        text += "".join(f"({why})\n" for why in unheard)
        return [request.piece(text, facts={"count": len(found), "new": new})]


async def _of(request: Request, manager: str) -> list[dict[str, Any]]:
    base = ["systemctl", f"--{manager}", "--no-pager"]
    listed = await _said(
        request, [*base, "list-units", "--state=failed", "--plain", "--no-legend", "--full"]
    )
    units = [line.split()[0] for line in listed.splitlines() if line.split()][:MAX_UNITS]
    if not units:
        return []
    shown = await _said(
        request, [*base, "show", "--timestamp=unix", f"--property={_PROPERTIES}", "--", *units]
    )
    found = []
    for block in shown.strip().split("\n\n"):
        facts = dict(line.partition("=")[::2] for line in block.splitlines())
        at = facts.get("InactiveEnterTimestamp", "").removeprefix("@")
        found.append(
            {
                "unit": facts.get("Id", ""),
                "manager": manager,
                "result": facts.get("Result", ""),
                "since_us": int(at) * 1_000_000 if at.isascii() and at.isdigit() else 0,
            }
        )
    return found


async def _said(request: Request, argv: Sequence[str]) -> str:
    try:
        ended = await request.run(argv, timeout_s=request.timeout_s / 3)
    except Unstartable as error:
        raise Unavailable(error.reason) from None
    if not ended.ok:
        lines = ended.stderr_tail.strip().splitlines()
        raise Unavailable(lines[0] if lines else f"exit code {ended.exit_code}")
    return ended.stdout_tail


def _when(at_us: int) -> str:
    return times.format_us(at_us) if at_us else "-"
