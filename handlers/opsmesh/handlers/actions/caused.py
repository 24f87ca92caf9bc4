"""Events that a step makes: in the story (correlation id) of the event that fired its profile."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.template import Rendered
from opsmesh.schemas import times
from opsmesh.schemas.envelope import MAX_PAYLOAD, SCHEMA_VERSION, Event, Severity
from opsmesh.schemas.errors import PayloadTooLarge

#: The `source` of events that profiles publish; `component` is the profile.
SOURCE: Final = "opsmesh"


def payload(ctx: StepContext, rendered: Rendered) -> dict[str, Any]:
    """What a template gives, as a payload; ValueError where it is no mapping, or too large."""
    found = rendered.render(ctx.variables)
    if not isinstance(found, dict):
        raise ValueError(f"the payload became {found!r:.80}, not a mapping")  # noqa: TRY004
    return sized(found)


def sized(found: dict[str, Any]) -> dict[str, Any]:
    """The payload; PayloadTooLarge for one that no event may have."""
    size = len(msgspec.json.encode(found))
    if size > MAX_PAYLOAD:
        raise PayloadTooLarge(size, MAX_PAYLOAD)
    return found


def event(
    ctx: StepContext,
    topic: str,
    payload: dict[str, Any],
    *,
    severity: Severity,
    id: str,
    source: str = SOURCE,
    component: str = "",
    workspace: str = "",
    evidence_path: str | None = None,
) -> Event:
    """The event, one hop further. Its `id` is derived by whoever makes it from what it is about:
    a step that is run again makes the same one."""
    cause = ctx.event
    return Event(
        topic=topic,
        ts_utc=times.format_us(times.now_us()),
        source=source,
        component=component or ctx.profile,
        severity=severity,
        correlation_id=cause.correlation_id,
        host=ctx.host,
        session_id=cause.session_id,
        workspace=workspace or cause.workspace,
        payload=payload,
        run_id=ctx.run_id,
        attempt=ctx.attempt,
        evidence_path=evidence_path,
        id=id,
        schema_version=SCHEMA_VERSION,
        causation_id=cause.id,
        hops=cause.hops + 1,
        traceparent=cause.traceparent,
    )
