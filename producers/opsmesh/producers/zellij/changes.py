"""What is another than it was: from what is remembered and what is seen to the events between.

Pure. What is remembered is JSON: for each session (its socket's identity as text) its name, its
layout's hash, and which of its panes' commands have ended, with a number that counts how often.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from opsmesh.producers.zellij.sessions import Identity, Seen, Session

STARTED: Final = "term.session.started"
ENDED: Final = "term.session.ended"
LAYOUT: Final = "term.layout.changed"
FAILED: Final = "term.pane.command.failed"
#: The value of `multiplexer`.
ZELLIJ: Final = "zellij"

_KEY: Final = re.compile(r"\d+:\d+")

Remembered = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Change:
    """One event to be; `born_ms` and `parts` make its id, `at_us` is None for now."""

    topic: str
    session: str
    payload: dict[str, Any]
    born_ms: int
    parts: tuple[str, ...]
    at_us: int | None = None


def changes(old: Mapping[str, Any], seen: Seen, *, now_us: int) -> tuple[list[Change], Remembered]:
    """The events since `old`, in a sensible order, and what to remember once they are emitted."""
    told: list[Change] = []
    new: Remembered = {}
    alive = {_key(known): (known, session) for known, session in seen.alive.items()}
    dead = {_key(known) for known in seen.dead}
    for key, was in old.items():
        if key not in alive and _KEY.fullmatch(key) and _is_memory(was):
            told.append(_ended(key, was, crashed=key in dead, now_us=now_us))
    for key, (known, session) in alive.items():
        before = old.get(key)
        was = before if _is_memory(before) else None
        named = _count(was, "named")
        if was is None or was["name"] != session.name:
            named += 1
            told += _named(key, known, session, was["name"] if was else None, named)
        told += _laid_out(session, was)
        failed, panes = _panes(key, known, session, was)
        told += failed
        new[key] = {
            "name": session.name,
            "named": named,
            "layout": session.layout.hash if session.layout else (was or {}).get("layout"),
            "panes": panes,
        }
    return told, new


def _named(
    key: str, known: Identity, session: Session, name_was: str | None, named: int
) -> list[Change]:
    """A session is there under a name that it did not have: new, or renamed."""
    payload = {"session": session.name, "multiplexer": ZELLIJ}
    parts = (key, str(named))
    if name_was is None:
        at_us = known[1] // 1000
        return [Change(STARTED, session.name, payload, _ms(known), (STARTED, *parts), at_us)]
    ended = {"session": name_was, "multiplexer": ZELLIJ, "renamed_to": session.name}
    started = {**payload, "renamed_from": name_was}
    return [
        Change(ENDED, name_was, ended, _ms(known), (ENDED, *parts)),
        Change(STARTED, session.name, started, _ms(known), (STARTED, *parts)),
    ]


def _ended(key: str, was: Mapping[str, Any], *, crashed: bool, now_us: int) -> Change:
    born_us = _bound_ns(key) // 1000
    payload = {
        "session": was["name"],
        "multiplexer": ZELLIJ,
        # a session that was renamed leaves its socket behind also when it ends properly: Zellij
        # removes it under the first name (zellij-server/src/lib.rs), so nobody can tell
        **({"crashed": crashed} if _count(was, "named") < 2 else {}),
        "duration_s": round(max(0, now_us - born_us) / 1e6, 3),
    }
    return Change(ENDED, was["name"], payload, born_us // 1000, (ENDED, key, was["name"]))


def _laid_out(session: Session, was: Mapping[str, Any] | None) -> list[Change]:
    """The first layout of a session belongs to its start, and is no change."""
    layout, before = session.layout, was.get("layout") if was else None
    if layout is None or not before or before == layout.hash:
        return []
    payload = {
        "session": session.name,
        "tabs": layout.tabs,
        "panes": layout.panes,
        "layout_hash": layout.hash,
        "multiplexer": ZELLIJ,
    }
    return [Change(LAYOUT, session.name, payload, 0, ())]


def _panes(
    key: str, known: Identity, session: Session, was: Mapping[str, Any] | None
) -> tuple[list[Change], dict[str, int]]:
    """Commands that have ended badly since; and for each pane how often its command has ended,
    negative while it has and is still to be seen."""
    counts: dict[str, int] = dict(was["panes"]) if was else {}
    if session.layout is None:
        return [], counts
    told = []
    ended = {pane.pane: pane for pane in session.layout.ended}
    for pane in counts.keys() - ended.keys():
        counts[pane] = abs(counts[pane])  # run again, or closed
    for pane, end in ended.items():
        if counts.get(pane, 0) < 0:
            continue
        count = counts.get(pane, 0) + 1
        counts[pane] = -count
        if end.status:
            payload = {
                "command": end.command,
                "exit_code": end.status,
                "session": session.name,
                "pane": pane,
            }
            parts = (FAILED, key, pane, str(count))
            told.append(Change(FAILED, session.name, payload, _ms(known), parts))
    return told, counts


def _key(known: Identity) -> str:
    return f"{known[0]}:{known[1]}"


def _bound_ns(key: str) -> int:
    return int(key.partition(":")[2])


def _ms(known: Identity) -> int:
    return known[1] // 1_000_000


def _count(was: Mapping[str, Any] | None, name: str) -> int:
    count = was.get(name) if was else None
    return count if isinstance(count, int) else 0


def _is_memory(was: Any) -> bool:
    """Whether it is what we wrote: the file may be from another version, or damaged."""
    return (
        isinstance(was, dict)
        and isinstance(was.get("name"), str)
        and isinstance(was.get("panes"), dict)
        and all(isinstance(count, int) for count in was["panes"].values())
    )
