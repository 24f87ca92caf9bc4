"""`opsmesh lsp --list`: the proxies that run; loaded only when somebody asks."""

from __future__ import annotations

import json as json_
import sys
from typing import Any, Final

from opsmesh.producers.lsp import running

_COLUMNS: Final = ("PID", "EDITOR", "SERVER", "EVENTS", "LAST EVENT", "NOTE")


def show(*, json: bool) -> int:
    """Print them; 1 when one of them could not tell something."""
    rows = running.proxies()
    if json:
        print(json_.dumps(rows, indent=2, ensure_ascii=False))
    elif not rows:
        print("no language server runs behind opsmesh lsp")
    else:
        _table([_COLUMNS, *(_row(row) for row in rows)])
    sys.stdout.flush()  # who called ends the process at once
    return 1 if any(trouble(row) for row in rows) else 0


def trouble(row: dict[str, Any]) -> str:
    """What a proxy could not tell, for people; "" when there is nothing."""
    told = [str(row["stopped"])] if row.get("stopped") else []
    if row.get("untold"):
        told.append(f"{row['untold']} events could not be kept")
    if row.get("bytes_lost"):
        told.append(f"{row['bytes_lost']} bytes were not seen: too much at once")
    if row.get("unread"):
        told.append(f"{row['unread']} messages could not be read")
    return "; ".join(told) + (f" (see {running.log_path()})" if told else "")


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    last = f"{row['last_time'][11:23]} {row['last_event']}" if row.get("last_event") else "-"
    editor = f"{row['editor'] or '?'} ({row['editor_pid']})"
    return str(row["pid"]), editor, str(row["server"]), str(row["events"]), last, trouble(row)


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[n]) for row in rows) for n in range(len(_COLUMNS))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
