"""Events that a person's own command makes: what was done by hand is on record like the rest."""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client

from opsmesh.router import redaction, user
from opsmesh.router.publish import Publisher
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event, Severity, encode, subject


def new_event(
    settings: Settings,
    topic: str,
    payload: dict[str, Any],
    *,
    severity: Severity = "info",
    cause: Event | None = None,
    event_id: str = "",
) -> Event:
    """An event of this moment from the command line."""
    now_us = times.now_us()
    event_id = event_id or ids.uuid7(now_us // 1000)
    return Event(
        topic=topic,
        ts_utc=times.format_us(now_us),
        source="opsmesh",
        component="cli",
        severity=severity,
        correlation_id=cause.correlation_id if cause else event_id,
        host=settings.host,
        session_id="",
        workspace=cause.workspace if cause else "",
        payload=payload,
        id=event_id,
        schema_version=SCHEMA_VERSION,
        causation_id=cause.id if cause else None,
        hops=cause.hops + 1 if cause else 0,
    )


async def say(client: Client, event: Event) -> None:
    """Store the event durably; NotAcknowledged when the broker does not confirm it."""
    data, _ = redaction.load(Settings()).event(encode(event))
    await Publisher(client).publish(subject(event.host, event.topic), data, msg_id=event.id)


def person() -> str:
    """Who runs this command, whatever its environment claims."""
    return user.name()
