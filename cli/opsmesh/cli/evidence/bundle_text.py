"""How bundles read, for people and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from opsmesh.cli import output, sizes
from opsmesh.handlers.bundles.catalog import Known
from opsmesh.handlers.bundles.folders import REPORT
from opsmesh.handlers.bundles.retention import Old
from opsmesh.schemas import times, unseen


def row(known: Known) -> dict[str, Any]:
    """One line of the list."""
    size = _count(known, "bytes")
    return {
        "time": times.clock(known.made_us) if known.made_us else "-",
        "bundle": known.bundle_id[:12],
        "where": known.where,
        "size": None if size is None else sizes.text(size),
        "errors": _count(known, "errors") or None,
        **{
            key: unseen.marked(str(known.told.get(key) or "-"))
            for key in ("profile", "topic", "host")
        },
    }


def record(known: Known) -> dict[str, Any]:
    """The same for programs."""
    folder = None if known.folder is None else str(known.folder)
    facts = {"bundle": known.bundle_id, "where": known.where, "folder": folder}
    return {**facts, **known.told, **{key: _count(known, key) for key in ("bytes", "errors")}}


def _count(known: Known, key: str) -> int | None:
    """A number that a manifest, or an object's message, tells; the latter tells it as text."""
    text = str(known.told.get(key))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def old_row(old: Old) -> dict[str, Any]:
    """One line of what would go."""
    return {
        "time": times.clock(old.made_us),
        "why": old.why,
        "size": sizes.text(old.size),
        "folder": str(old.folder),
    }


def old_record(old: Old, *, removed: bool) -> dict[str, Any]:
    """The same for programs."""
    facts = {"folder": str(old.folder), "bytes": old.size, "why": old.why, "removed": removed}
    return {**facts, "made": times.format_us(old.made_us)}


def show(console: Console, bundle_id: str, folder: Path, manifest: dict[str, Any]) -> None:
    """A manifest, to be read in a minute."""
    files = [one for one in manifest.get("files", []) if isinstance(one, dict)]
    told = {key: unseen.marked(str(manifest.get(key, "-"))) for key in manifest}
    console.print(
        f"[bold]{escape(told.get('profile', '-'))}[/] step {escape(told.get('step', '-'))}, "
        f"on {escape(told.get('host', '-'))}"
    )
    made = told.get("created_utc", "")
    took = manifest.get("duration_ms")
    errors = sum(1 for one in files if one.get("error"))
    size = sum(_number(one.get("size")) for one in files)
    made_of = f"{len(files)} pieces, {sizes.text(size)}"
    if errors:
        made_of += f", {errors} with an error"
    removed = manifest.get("removed")
    taken = removed if isinstance(removed, dict) else _removed(files)
    for name, value in (
        ("bundle", bundle_id),
        ("folder", str(folder)),
        ("run", f"{told.get('run_id', '-')}, attempt {told.get('attempt', '-')}"),
        ("event", f"{told.get('event_id', '-')} ({told.get('topic', '-')})"),
        ("made", f"{_local(made)}{f' in {took:.0f} ms' if isinstance(took, int | float) else ''}"),
        ("holds", made_of),
        ("taken out", ", ".join(f"{rule} {count}" for rule, count in taken.items()) or "nothing"),
    ):
        console.print(f"  [dim]{name:<10}[/]{escape(unseen.marked(value))}")
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("FILE", "SIZE", "TOOK", "FROM", ""):
        drawn.add_column(column, overflow="fold")
    for one in files:
        drawn.add_row(*(escape(unseen.marked(cell)) for cell in _cells(one)))
    console.print(drawn)
    if (folder / REPORT).exists():
        console.print(
            f"[dim]read it: opsmesh evidence bundle show {bundle_id[:12]} --file {REPORT}[/]"
        )


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    size, took = one.get("size"), one.get("duration_ms")
    notes = []
    if one.get("error"):
        notes.append(str(one["error"])[:300])
    if one.get("truncated"):
        notes.append("not all of it")
    if one.get("redacted"):
        removed = one.get("removed")
        count = sum(map(_number, removed.values())) if isinstance(removed, dict) else 1
        notes.append(f"{count} taken out")
    return (
        str(one.get("name")),
        sizes.text(size) if isinstance(size, int) else "-",
        f"{took:.0f} ms" if isinstance(took, int | float) and took else "-",
        str(one.get("source") or "-"),
        "; ".join(notes),
    )


def _removed(files: list[dict[str, Any]]) -> dict[str, int]:
    """Of a manifest of before, which has no sum."""
    total: dict[str, int] = {}
    for one in files:
        removed = one.get("removed")
        for rule, count in removed.items() if isinstance(removed, dict) else ():
            total[rule] = total.get(rule, 0) + _number(count)
    return total


def _number(value: Any) -> int:
    """A count of a manifest, which another host may have made of anything."""
    return value if isinstance(value, int) else 0


def _local(ts_utc: str) -> str:
    try:
        return output.local(ts_utc)
    except ValueError:
        return "-"
