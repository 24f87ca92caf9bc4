"""The agent's figures: which are read from where they are when somebody asks, and what an event
that was taken adds to the others (and to its trace)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opsmesh.router import traces
from opsmesh.router.metrics import figures

if TYPE_CHECKING:
    from opsmesh.router.ingest import Ingest
    from opsmesh.router.intake import Message
    from opsmesh.router.outbox import Outbox
    from opsmesh.router.publish import PubAck
    from opsmesh.router.settings import Settings


def show(settings: Settings, ingest: Ingest, outbox: Outbox) -> None:
    """From now on they are those of this agent."""
    budget, followers = ingest.budget, ingest.followers
    figures.SPOOL_BYTES.read_from(lambda: outbox.spooled_bytes)
    figures.SPOOL_LIMIT.set(settings.spool.max_bytes)
    figures.UNDER_WAY.read_from(lambda: budget.used)
    figures.UNDER_WAY_LIMIT.set(budget.limit)
    figures.CONNECTIONS.read_from(lambda: ingest.connections)
    figures.FOLLOWERS.read_from(lambda: len(followers) if followers is not None else 0)
    figures.BROKER_OPEN.read_from(lambda: int(outbox.is_open))


def taken(message: Message, ack: PubAck | None, began: float) -> None:
    """Count an event that is safe; `ack` is None for one in the spool, `began` when it was handed
    over, by `time.perf_counter`."""
    took_s = time.perf_counter() - began
    became = "spooled" if ack is None else "duplicate" if ack.duplicate else "stored"
    figures.TAKEN.add(became)
    if ack is not None:
        figures.PUBLISH.observe(took_s)
    figures.BY_TOPIC.add(message.source, message.topic)
    figures.LAST.set(time.time(), message.source)
    if traces.on():
        traces.record(
            f"take in {message.topic}",
            message.traceparent,
            took_s=took_s,
            root=message.id,
            kind="producer",
            event_id=message.id,
            source=message.source,
            result=became,
        )
