"""A gap in words: `pytest lost 12 events between 14:02 and 14:05`.

One sentence for the event's own `message` (in UTC, for everybody) and for `opsmesh status` (on this
machine's clock): both make it here, from the payload of `mesh.gap.detected`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from opsmesh.schemas import times

#: Numbers of a source are missing: its events were made, and never arrived.
SEQUENCE: Final = "sequence"
#: The stream removed messages before the source, a consumer, had read them.
REMOVED: Final = "removed"


def sentence(payload: Mapping[str, Any], *, local: bool = False) -> str:
    """What the payload of a gap says, in one sentence; times in UTC unless `local`."""
    source, lost = payload.get("source", "?"), payload.get("lost")
    when = _between(payload.get("from_time"), payload.get("to_time"), local=local)
    if payload.get("kind") == REMOVED:
        missed = (
            f"missed {_events(lost)}" if lost is not None else f"may have missed {_some(payload)}"
        )
        return f"{source} {missed} that the stream removed unread{when}"
    if lost is None:
        return f"{source} may have lost events{when}"
    return f"{source} lost {_events(lost)}{when}"


def filled(payload: Mapping[str, Any], *, local: bool = False) -> str:
    """What the payload of a filled gap says: how much of it came late."""
    found, left = payload.get("found", 0), payload.get("lost", 0)
    when = _between(payload.get("from_time"), payload.get("to_time"), local=local)
    rest = "none is missing" if not left else f"{left} still missing"
    return (
        f"{payload.get('source', '?')}: {_events(found)} that seemed lost{when} came late, {rest}"
    )


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count:,} events"


def _some(payload: Mapping[str, Any]) -> str:
    match payload.get("last_known"), payload.get("first_known"):
        case int(last), int(first) if first > last + 1:
            return f"some of {_events(first - last - 1)}"
    return "events"


def _between(first: str | None, last: str | None, *, local: bool) -> str:
    begin, end = _moment(first, local=local), _moment(last, local=local)
    if begin is None and end is None:
        return ""
    zone = "" if local else " UTC"
    if begin is None or end is None:
        word, moment = ("before", end) if begin is None else ("after", begin)
        return f" {word} {_shown(moment, local=local)}{zone}" if moment else ""
    begin, end = min(begin, end), max(begin, end)
    exact = begin.replace(second=0, microsecond=0) == end.replace(second=0, microsecond=0)
    if exact and begin.second == end.second:
        return f" at {_shown(begin, local=local, exact=True)}{zone}"
    text = _shown(begin, local=local, exact=exact)
    until = _clock(end, exact=exact)
    if end.date() != begin.date():
        until = _shown(end, local=local, exact=exact)
    return f" between {text} and {until}{zone}"


def _shown(moment: datetime, *, local: bool, exact: bool = False) -> str:
    """A time of day; with its date unless that is today's, here."""
    text = _clock(moment, exact=exact)
    if local and moment.date() == datetime.now().astimezone().date():
        return text
    return f"{moment:%Y-%m-%d} {text}"


def _clock(moment: datetime, *, exact: bool) -> str:
    return f"{moment:%H:%M:%S}" if exact else f"{moment:%H:%M}"


def _moment(text: str | None, *, local: bool) -> datetime | None:
    try:
        moment = datetime.fromtimestamp(times.parse_us(text or "") / 1e6, UTC)
    except (ValueError, OverflowError):
        return None
    return moment.astimezone() if local else moment
