"""The mesh in memory: its streams, its buckets, and an event's way into it.

The one rule: an event goes through the agent's own `Intake`, so that what is refused, completed or
redacted here is so in a real mesh. Nothing of this machine is read: no config file, no spool.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from nats.js.api import AckPolicy, DeliverPolicy, StreamConfig
from nats.js.errors import NoStreamResponseError

from opsmesh.router import deadletter, topology
from opsmesh.router.intake import Intake, Message
from opsmesh.router.publish import PubAck
from opsmesh.router.settings import Settings
from opsmesh.router.testing import consumer as consumers
from opsmesh.router.testing import headers as h
from opsmesh.router.testing.bucket import MemoryBucket
from opsmesh.router.testing.clock import Clock
from opsmesh.router.testing.consumer import ConsumerSettings, MemoryConsumer
from opsmesh.router.testing.serve import serving
from opsmesh.router.testing.stream import MemoryStream, Outgoing, StoredMessage
from opsmesh.router.topic_patterns import overlap, topic_matches
from opsmesh.schemas import envelope, ids, times
from opsmesh.schemas.envelope import Event
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.registry import Registry, load_registry

#: When a mesh begins, unless it is told.
START = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An event as EVENTS holds it; `stored_us` is in microseconds since the epoch."""

    seq: int
    stored_us: int
    event: Event
    data: bytes


class MemoryMesh:
    """A whole broker with the streams of a mesh, for one test.

    `topics` are those of the installed packages unless given; `strict_topics` refuses all others.
    """

    def __init__(
        self,
        *,
        start: str = START,
        host: str = "test",
        topics: Registry | None = None,
        strict_topics: bool = False,
    ) -> None:
        self.clock = Clock(times.parse_us(start) * 1000)
        self.registry = load_registry() if topics is None else topics
        # not Settings(): that reads this machine's config file and environment
        settings = Settings.model_construct(host=host, strict_topics=strict_topics)
        self._host = host
        self.strict_topics = strict_topics
        self._intake = Intake(settings, self.registry)
        self._streams: dict[str, MemoryStream] = {}
        self._consumers: dict[tuple[str, str], MemoryConsumer] = {}
        for config in topology.streams(settings):
            self.add_stream(config)

    @property
    def host(self) -> str:
        """The host of events that name none."""
        return self._host

    def emit(self, topic: str, payload: Mapping[str, Any] | None = None, **fields: Any) -> Stored:
        """Store an event as the agent would; `fields` are the envelope's (host, severity, …).

        SchemaError when the agent would refuse it. An id that is known already gives the event
        that is stored under it.
        """
        line = msgspec.json.encode({"topic": topic, "payload": payload or {}, **fields})
        with self.clock.lock:
            message, seq = self.take(line)
            kept = self._stream(topology.EVENTS).messages.get(seq)
        if kept is None:  # an id outlives its message
            raise LookupError(f"event {message.id} was stored as {seq}, and has expired since")
        stored = _event(kept)
        if stored is None:
            raise LookupError(f"message {seq} has the id {message.id}, and is no event")
        return stored

    def events(self, topic: str = ">") -> list[Stored]:
        """The events of the topics that a pattern (`python.>`) covers, in the order of storing.

        What is in EVENTS and is no event is left out: `messages` has it.
        """
        found = map(_event, self.messages(topology.EVENTS))
        return [s for s in found if s is not None and topic_matches(topic, s.event.topic)]

    def publish(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> PubAck:
        """Store any message; APIError, as of nats-py, where the server would refuse it."""
        message = Outgoing(subject=subject, data=data, msg_id=msg_id, headers=headers or {})
        with self.clock.lock:
            return self._taking(subject).publish(message)

    def publish_batch(self, batch: Sequence[Outgoing]) -> list[PubAck]:
        """Store all messages or none."""
        if not batch:
            return []
        with self.clock.lock:
            stream, *others = {self._taking(message.subject).name for message in batch}
            if others:
                raise ValueError(f"one batch goes to one stream, not to {stream} and {others[0]}")
            return self._stream(stream).publish_batch(batch)

    def messages(self, stream: str) -> list[StoredMessage]:
        """Everything that a stream holds, as it was published."""
        with self.clock.lock:
            return list(self._stream(stream).messages.values())

    def delete_message(self, stream: str, seq: int) -> None:
        """Take one message out of its stream."""
        with self.clock.lock:
            self._stream(stream).remove(seq)

    def add_stream(self, config: StreamConfig) -> None:
        """One more stream, beside those of the mesh."""
        stream = MemoryStream(config, self.clock)
        with self.clock.lock:
            if stream.name in self._streams:
                raise h.refused(10058, "stream name already in use")
            for other in self._streams.values():
                if any(overlap(a, b) for a in stream.subjects for b in other.subjects):
                    raise h.refused(10065, "subjects overlap with an existing stream")
            self._streams[stream.name] = stream

    def consumer(
        self,
        stream: str,
        name: str,
        *,
        filter_subjects: Sequence[str] = (),
        ack_wait: float = consumers.ACK_WAIT,
        max_deliver: int = -1,
        max_ack_pending: int = consumers.MAX_ACK_PENDING,
        deliver_policy: DeliverPolicy = DeliverPolicy.ALL,
        opt_start_seq: int | None = None,
        ack_policy: AckPolicy = AckPolicy.EXPLICIT,
    ) -> MemoryConsumer:
        """The durable consumer of this name, made or updated; APIError as the server refuses it.

        The words are those of nats-py's ConsumerConfig.
        """
        settings = ConsumerSettings(
            filter_subjects=tuple(filter_subjects),
            ack_wait=ack_wait or consumers.ACK_WAIT,
            max_deliver=max_deliver or -1,
            max_ack_pending=max_ack_pending or consumers.MAX_ACK_PENDING,
            deliver_policy=DeliverPolicy(deliver_policy),
            opt_start_seq=opt_start_seq,
            ack_policy=AckPolicy(ack_policy),
        )
        with self.clock.lock:
            of = self._stream(stream)
            consumers.check(of, settings)
            if of.is_work_queue:
                others = [
                    c.settings.filter_subjects
                    for (on, other), c in self._consumers.items()
                    if on == stream and other != name
                ]
                consumers.check_unique(settings.filter_subjects, others)
            known = self._consumers.get((stream, name))
            if known is not None:
                known.update(settings)
                return known
            made = self._consumers[stream, name] = MemoryConsumer(of, name, settings, self.clock)
            return made

    def bucket(self, name: str) -> MemoryBucket:
        """A key-value bucket of the mesh."""
        with self.clock.lock:
            return MemoryBucket(self._stream(f"KV_{name}"), self.clock)

    @contextlib.contextmanager
    def ingest(self, folder: Path | None = None) -> Iterator[str]:
        """Serve the agent's ingest socket while the body runs; its path.

        It is `opsmesh/ingest.sock` in `folder` (a temporary one unless given): a process finds it
        with XDG_RUNTIME_DIR set to that folder.
        """
        with serving(self, folder) as path:
            yield path

    def take(self, line: bytes) -> tuple[Message, int]:
        """Take a line in as the agent does: the message in it, and its sequence in EVENTS.

        The time and id of an event that brings none come from this mesh's clock.
        """
        fields = envelope.raw_fields(line)
        with self.clock.lock:
            now_us = self.clock.now_us
            fields.setdefault("ts_utc", times.format_us(now_us))
            fields.setdefault("id", ids.uuid7(now_us // 1000))
            message = self._intake.message(msgspec.json.encode(fields))
            ack = self.publish(
                message.subject, message.data, msg_id=message.id, headers=message.headers
            )
        return message, ack.seq

    def dead_letter(self, line: bytes, error: Exception) -> None:
        """Keep a line that is no event, as the agent does."""
        line = self._intake.redactor.redact_bytes(line)
        facts = {"Profile": "ingest", "Topic": "invalid", "Host": self._host}
        headers = {deadletter.PREFIX + name: value for name, value in facts.items()}
        headers[deadletter.PREFIX + "Reason"] = " ".join(str(error).split())
        headers[deadletter.PREFIX + "Errors"] = json.dumps([{"error": str(error)}])
        subject = deadletter.subject("ingest", self._host, "invalid")
        self.publish(subject, line, msg_id=ids.uuid7(self.clock.now_us // 1000), headers=headers)

    def _stream(self, name: str) -> MemoryStream:
        try:
            return self._streams[name]
        except KeyError:
            raise h.refused(10059, "stream not found", code=404) from None

    def _taking(self, subject: str) -> MemoryStream:
        for stream in self._streams.values():
            if stream.takes(subject):
                return stream
        raise NoStreamResponseError


def _event(message: StoredMessage) -> Stored | None:
    where = (topology.EVENTS, message.seq, message.stored_us)
    try:
        event = envelope.decode(message.data, stored=where)
    except SchemaError:
        return None
    return Stored(seq=message.seq, stored_us=message.stored_us, event=event, data=message.data)
