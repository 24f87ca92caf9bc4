"""What `status` says of losses: gaps of the last day, and streams that remove what is old.

Gaps are read from EVENTS, where whoever found one has told it (`mesh.gap.detected`); a gap that was
filled meanwhile says so. Nothing here is a problem of now: what is lost is lost.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.js.api import StreamConfig, StreamState

from opsmesh.router import loss_report
from opsmesh.router.scan import scan
from opsmesh.router.topology import DECISIONS, DLQ, EVENTS, FIRINGS, REPLAY, TRIGGERS, VERSIONS
from opsmesh.schemas import gaps, times
from opsmesh.schemas.envelope import decode
from opsmesh.schemas.errors import SchemaError

#: How far back gaps are told, in microseconds.
RECENT: Final = 86_400_000_000
#: Gaps that are told one by one; of more, the newest.
SHOWN: Final = 20
#: The part of its limit from which on a stream is told to be full.
FULL: Final = 0.9

#: What a stream removes first when it is full, and what that costs.
_COSTS: Final = {
    EVENTS: "its oldest events go before their age; what nobody has read by then is lost",
    DLQ: "its oldest dead letters go, and can no longer be retried",
    TRIGGERS: "the oldest triggers go before a profile has had them",
    DECISIONS: "`why` no longer knows why profiles did not fire then",
    FIRINGS: "`why` no longer knows why profiles fired then",
    VERSIONS: "`why --rederive` no longer knows the profiles' texts of then",
    REPLAY: "its oldest copies go",
}


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """One gap, in words: `what` is lost, `fix` what can be done about it, `filled` what came
    late."""

    id: str
    time: str
    what: str
    fix: str
    payload: dict[str, Any]
    filled: str = ""


class Full(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that is at its limit, or nearly."""

    stream: str
    bytes: int
    max_bytes: int
    what: str
    fix: str


async def recent(client: Client, *, now_us: int) -> list[Gap]:
    """The gaps that were told within the last day, oldest first."""
    found: dict[str, Gap] = {}
    subjects = ["evt.*.mesh.gap.detected", "evt.*.mesh.gap.filled"]
    async for msg in scan(client, EVENTS, subjects=subjects, since_us=now_us - RECENT):
        try:
            event = decode(msg.data)
        except SchemaError:
            continue
        payload = event.payload
        if event.topic == "mesh.gap.detected":
            found[event.id] = Gap(
                id=event.id,
                time=event.ts_utc,
                what=gaps.sentence(payload, local=True),
                fix=_fix(payload, event.ts_us),
                payload=payload,
            )
        elif (gap := found.get(str(payload.get("gap")))) is not None:
            told = gaps.filled(payload, local=True)
            found[gap.id] = msgspec.structs.replace(gap, filled=told)
    return list(found.values())


def full(config: StreamConfig, state: StreamState) -> Full | None:
    """What to say of a stream that is full or nearly so; None of any other."""
    limit, name = config.max_bytes or 0, config.name or ""
    if limit <= 0 or state.bytes < FULL * limit:
        return None
    share = min(state.bytes / limit, 1.0)
    return Full(
        stream=name,
        bytes=state.bytes,
        max_bytes=limit,
        what=f"{name} is {share:.0%} full: {_COSTS.get(name, 'its oldest messages go')}",
        fix="raise events.max_bytes in config.yaml" if name == EVENTS else "",
    )


def _fix(payload: dict[str, Any], told_us: int) -> str:
    kind, source = payload.get("kind"), payload.get("source", "")
    if kind == gaps.REMOVED:
        return "raise events.max_bytes or events.max_age in config.yaml: opsmesh config show"
    if kind == loss_report.KIND:
        return "the spool had no room, or was emptied by hand: opsmesh spool, and spool.max_bytes"
    if kind == gaps.SEQUENCE:
        since = str(payload.get("from_time") or times.format_us(told_us))
        tail = f"opsmesh tail --no-follow --since {since[:19]}Z"
        return f"what was stored around it: {tail}; what was refused: opsmesh dlq ls"
    return f"what {source} still has is read again; see the limits of its own history"
