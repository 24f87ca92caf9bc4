"""What the agent counts. Names and labels are a promise to dashboards: docs/metrics.md has the
rules."""

from __future__ import annotations

from typing import Final

from opsmesh.router.metrics.book import Book, Counter, Gauge, Histogram

#: What becomes of an event that is handed to the agent.
RESULTS: Final = ("stored", "duplicate", "spooled", "dropped", "refused", "not_kept")

TAKEN: Final = Counter(
    "opsmesh_ingest_events_total",
    "Events that were handed to the agent, by what became of them.",
    "result",
    known=[(result,) for result in RESULTS],
)
BY_TOPIC: Final = Counter(
    "opsmesh_source_events_total", "Events that were accepted, by who told them.", "source", "topic"
)
LAST: Final = Gauge(
    "opsmesh_source_last_event_timestamp_seconds",
    "When a source told its last event, in Unix time.",
    "source",
)
REDACTED: Final = Counter(
    "opsmesh_ingest_redacted_events_total", "Events out of which secrets were taken."
)
DRAINED: Final = Counter(
    "opsmesh_spool_drained_events_total", "Events that went from the spool to the broker."
)
PUBLISH: Final = Histogram(
    "opsmesh_publish_duration_seconds",
    "From an event's acceptance to the broker's acknowledgement; what is spooled does not count.",
)
SPOOL_BYTES: Final = Gauge("opsmesh_spool_bytes", "What waits in the spool, on disk.")
SPOOL_LIMIT: Final = Gauge("opsmesh_spool_limit_bytes", "What the spool may take on disk.")
UNDER_WAY: Final = Gauge("opsmesh_ingest_under_way_bytes", "What the agent holds in memory.")
UNDER_WAY_LIMIT: Final = Gauge(
    "opsmesh_ingest_under_way_limit_bytes", "What it may hold; beyond, it reads no more."
)
CONNECTIONS: Final = Gauge(
    "opsmesh_ingest_connections", "Clients that are connected to the ingest socket."
)
FOLLOWERS: Final = Gauge("opsmesh_ingest_followers", "Clients that follow events on it.")
PAUSES: Final = Counter(
    "opsmesh_ingest_pauses_total", "Times that a client had to wait, for want of room."
)
BROKER_OPEN: Final = Gauge(
    "opsmesh_agent_broker_open", "1 while the agent can store events at the broker, else 0."
)

AGENT: Final = Book(
    *(TAKEN, BY_TOPIC, LAST, REDACTED, DRAINED, PUBLISH, SPOOL_BYTES, SPOOL_LIMIT),
    *(UNDER_WAY, UNDER_WAY_LIMIT, CONNECTIONS, FOLLOWERS, PAUSES, BROKER_OPEN),
)
