"""`events` and `package_history`: what the mesh itself knows of the time before the event."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from pydantic import AfterValidator, Field

from opsmesh.handlers.actions.contract import Past
from opsmesh.handlers.actions.spec import Duration, Spec
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.files import read_end
from opsmesh.router.errors import PermissionDenied, RouterError
from opsmesh.schemas.envelope import Event

#: Seconds before the event that are looked at.
SINCE_S: Final = 3600.0
#: Events, the newest ones, that are kept.
LIMIT: Final = 100
#: Transactions of packages are looked for so many seconds back: an upgrade of last night is felt
#: today.
HISTORY_S: Final = 3 * 86400.0
#: Bytes of a log that are read from its end.
LOG_BYTES: Final = 512 * 1024
#: The package managers' own logs.
PACMAN_LOG: Final = Path("/var/log/pacman.log")
DPKG_LOG: Final = Path("/var/log/dpkg.log")
TRANSACTION: Final = "package.txn.completed"

_PATTERN = re.compile(r"(?:\*|[a-z0-9_]+)(?:\.(?:\*|[a-z0-9_]+)){0,5}(?:\.>)?|>")
# pacman(8), lib/libalpm/add.c and remove.c; older ones have no zone and no seconds.
_PACMAN = re.compile(
    r"\[(?P<time>[^\]]+)\] \[ALPM\] (?:installed|upgraded|downgraded|reinstalled|removed) .*"
)
# dpkg(1), src/main/log.c
_DPKG = re.compile(r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:install|upgrade|remove|purge) .*")


def _topic(value: str) -> str:
    if not _PATTERN.fullmatch(value):
        raise ValueError(f"{value!r} is no pattern of topics, like service.> or config.*.failed")
    return value


class EventsSpec(Spec):
    """Which events; `story` are those with the event's correlation id."""

    topics: Annotated[
        list[Annotated[str, AfterValidator(_topic)]], Field(min_length=1, max_length=32)
    ] = Field(default_factory=lambda: [">"])
    since: Duration = SINCE_S
    limit: Annotated[int, Field(ge=1, le=1000)] = LIMIT
    of: Annotated[
        Literal["host", "story", "all"],
        Field(description="host: of the event's host; story: with its correlation id; all."),
    ] = "host"


class RecentEvents:
    """The newest events before the event: a line each, and all of them as JSON lines."""

    key: ClassVar[str] = "events"
    spec: ClassVar[type[EventsSpec]] = EventsSpec

    def __init__(self, spec: EventsSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        spec, event = self._spec, request.ctx.event
        found = await recent(
            request,
            spec.topics,
            since_s=spec.since,
            limit=spec.limit,
            host=event.host if spec.of == "host" else None,
            story=event.correlation_id if spec.of == "story" else None,
        )
        lines = b"".join(msgspec.json.encode(one.view()) + b"\n" for one in found)
        facts = {"count": len(found), "events": [_brief(one) for one in found[-20:]]}
        text = "".join(line(one) for one in found)
        return [
            request.piece(text or "none\n", facts=facts),
            request.beside(lines, ".jsonl", facts={}),
        ]


class PackageHistorySpec(Spec):
    """How far back."""

    since: Duration = HISTORY_S
    limit: Annotated[int, Field(ge=1, le=1000)] = 50


class PackageHistory:
    """What was installed, upgraded and removed before the event: the mesh's own events, and where
    there are none the package manager's log."""

    key: ClassVar[str] = "package_history"
    spec: ClassVar[type[PackageHistorySpec]] = PackageHistorySpec

    def __init__(self, spec: PackageHistorySpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        spec, event = self._spec, request.ctx.event
        since_us = event.ts_us - round(spec.since * 1e6)
        try:
            found = await recent(
                request, [TRANSACTION], since_s=spec.since, limit=spec.limit, host=event.host
            )
            reason = "the mesh knows of no transaction in this time"
        except Unavailable as error:
            found, reason = [], str(error)
        if found:
            text = "".join(_transaction(one) for one in found)
            facts = {"source": "events", "transactions": [_brief(one) for one in found[-10:]]}
            return [request.piece(text, facts=facts)]
        parts, seen = [], False
        for log, pattern in ((PACMAN_LOG, _PACMAN), (DPKG_LOG, _DPKG)):
            try:
                data, _ = await asyncio.to_thread(read_end, log, LOG_BYTES)
            except (OSError, ValueError):
                continue
            seen = True
            told = _logged(data, pattern, since_us, event.ts_us)
            parts += [f"{line}\n" for line in list(told)[-10 * spec.limit :]]
        if not seen:
            raise Unavailable(f"{reason}, and there is no pacman.log and no dpkg.log")
        text = f"({reason}; from the package manager's log)\n" + ("".join(parts) or "none\n")
        return [request.piece(text, facts={"source": "log", "lines": len(parts)})]


async def recent(
    request: Request,
    topics: Sequence[str],
    *,
    since_s: float,
    limit: int,
    host: str | None = None,
    story: str | None = None,
) -> list[Event]:
    """Stored events up to the event, its own left out, the oldest first; Unavailable when the
    stream cannot be read."""
    event = request.ctx.event
    try:
        past = Past(
            topics=topics,
            since_us=event.ts_us - round(since_s * 1e6),
            until_us=event.ts_us,
            limit=limit + 1,
            host=host,
            story=story,
        )
        found = await request.ctx.recent(past)
    except PermissionDenied as error:
        raise Unavailable(f"{error}; {error.hint}") from None
    except (RouterError, TimeoutError) as error:
        raise Unavailable(f"the stream cannot be read: {error}") from None
    return [one for one in found if one.id != event.id][-limit:]


def line(event: Event) -> str:
    """One event for people."""
    payload = msgspec.json.encode(event.payload).decode()
    short = payload if len(payload) <= 300 else payload[:299] + "…"
    return f"{event.ts_utc}  {event.severity:<8} {event.topic}  {event.component}  {short}\n"


def _brief(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "topic": event.topic,
        "time": event.ts_utc,
        "severity": event.severity,
        "component": event.component,
    }


def _transaction(event: Event) -> str:
    payload = event.payload
    packages = payload.get("packages")
    lines = [f"{event.ts_utc}  {payload.get('command') or payload.get('manager') or ''}\n"]
    for one in packages if isinstance(packages, list) else []:
        if isinstance(one, dict):
            versions = [one.get("old_version"), one.get("version")]
            change = " → ".join(str(v) for v in versions if v)
            lines.append(f"    {one.get('operation')} {one.get('name')} {change}\n")
    return "".join(lines)


def _logged(data: bytes, pattern: re.Pattern[str], since_us: int, until_us: int) -> Iterator[str]:
    for text in data.decode(errors="replace").splitlines():
        found = pattern.fullmatch(text)
        if found is None:
            continue
        at_us = _local_us(found["time"])
        if at_us is not None and since_us <= at_us <= until_us + 1_000_000:
            yield text


def _local_us(text: str) -> int | None:
    try:
        return round(datetime.fromisoformat(text).astimezone().timestamp() * 1e6)
    except (ValueError, OverflowError):
        return None
