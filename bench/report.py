"""The report: a table for people, and JSON with every round's numbers for everybody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from figure import Figure, Target

#: The version of the JSON's form.
FORMAT: Final = 1


@dataclass(kw_only=True)
class Report:
    """What a run has measured so far, and what it could not."""

    machine: Mapping[str, Any]
    started_utc: str
    scale: float
    rounds: int
    figures: list[Figure] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": FORMAT,
            "started_utc": self.started_utc,
            "seconds": round(self.seconds, 1),
            "scale": self.scale,
            "rounds": self.rounds,
            "sync_interval": "always",
            "machine": dict(self.machine),
            "figures": [figure.as_dict() for figure in self.figures],
            "failed": self.failed,
        }

    def print(self, console: Console) -> None:
        """Write the table, and what it is to be read with."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("figure", no_wrap=True)
        for name in ("ours", "plain nats-py", "ratio", "min–max", "target"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("met", no_wrap=True)
        for figure in self.figures:
            table.add_row(*_row(figure))
        if self.figures:
            console.print(table)
        for row in self._processes():
            console.print(row, highlight=False)
        for name, error in self.failed.items():
            console.print(f"{name}: not measured: {error}", highlight=False, soft_wrap=True)
        m = self.machine
        console.print(
            f"\n{m['cores']} cores, {m['memory_gib']} GiB, Python {m['python']}, "
            f"nats-server {m['nats_server']} (sync_interval: always), {m['filesystem']}; "
            f"medians of {self.rounds} interleaved rounds; {self.seconds:.0f} s",
            highlight=False,
            soft_wrap=True,
        )

    def _processes(self) -> list[str]:
        rows = [row for figure in self.figures for row in figure.details.get("processes", ())]
        return [
            f"  {row['name']:<28} {row['rss_mb']:>6.1f} MB resident {row['pss_mb']:>6.1f} MB "
            f"proportional {row['cpu_s_a_minute']:>6.2f} s CPU a minute"
            for row in rows
        ]


def _row(figure: Figure) -> tuple[str, ...]:
    ratio, spread = "", ""
    if figure.ratio is not None:
        ratio = f"{figure.ratio:.2f} ×"
        spread = f"{min(figure.ratios):.2f}–{max(figure.ratios):.2f}"
    met = {None: "open" if figure.target else "", True: "yes", False: "no"}[figure.met]
    plain = _number(figure.plain, figure.unit) if figure.plain else ""
    target = _target(figure.target, figure.unit)
    return figure.name, _number(figure.ours, figure.unit), plain, ratio, spread, target, met


def _number(values: Any, unit: str) -> str:
    return _shown(median(values), unit)


def _shown(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1 if value >= 1 else 2
    return f"{value:,.{digits}f} {unit}"


def _target(target: Target | None, unit: str) -> str:
    if target is None:
        return ""
    sign = "≥" if target.at == "least" else "≤"
    limit = f"{target.limit:g} ×" if target.of == "ratio" else _shown(target.limit, unit)
    return f"{sign} {limit}"
