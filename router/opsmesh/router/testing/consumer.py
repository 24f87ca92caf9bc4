"""A durable pull consumer in memory: what is delivered next, and what a reply to it changes.

The one rule: redeliveries come before new messages, first due first, and do not count against
`max_ack_pending` (measured with nats-server 2.15.1, as all of this).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nats.js.api import AckPolicy, DeliverPolicy

from opsmesh.router.pull import Delivery
from opsmesh.router.testing import headers as h
from opsmesh.router.testing.clock import Clock, nanoseconds
from opsmesh.router.testing.stream import MemoryStream, StoredMessage
from opsmesh.router.topic_patterns import listens, overlap

#: The server's own where a consumer sets none: seconds, and messages.
ACK_WAIT, MAX_ACK_PENDING = 30.0, 1000
#: The server looks again this long after a delayed NAK at the earliest, in nanoseconds.
NAK_LATENCY = 10_000_000


@dataclass(frozen=True, kw_only=True)
class ConsumerState:
    """What the broker tells of a consumer; pairs are (consumer sequence, stream sequence)."""

    num_pending: int
    num_ack_pending: int
    num_redelivered: int
    delivered: tuple[int, int]
    ack_floor: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ConsumerSettings:
    """The part of a ConsumerConfig that changes what is delivered; defaults are the server's."""

    filter_subjects: tuple[str, ...] = ()
    ack_wait: float = ACK_WAIT
    max_deliver: int = -1
    max_ack_pending: int = MAX_ACK_PENDING
    deliver_policy: DeliverPolicy = DeliverPolicy.ALL
    opt_start_seq: int | None = None
    ack_policy: AckPolicy = AckPolicy.EXPLICIT


@dataclass(frozen=True, kw_only=True)
class MemoryMessage:
    """One delivery. A reply to an older delivery of the same message counts as well."""

    subject: str
    data: bytes
    headers: dict[str, str]
    delivery: Delivery
    _consumer: MemoryConsumer = field(repr=False, compare=False)

    @property
    def seq(self) -> int:
        """Its sequence in the stream."""
        return self.delivery.stream_seq

    @property
    def stored_us(self) -> int:
        """When the broker stored it, in microseconds since the epoch."""
        return self.delivery.timestamp_ns // 1000

    def ack(self) -> None:
        """Handled: never again."""
        self._consumer.acked(self.delivery)

    def nak(self, *, delay: float | None = None) -> None:
        """Once more: at once, or after `delay` seconds."""
        self._consumer.nak(self.delivery, delay=delay)

    def term(self) -> None:
        """Never again, whatever became of it."""
        self._consumer.acked(self.delivery)

    def in_progress(self) -> None:
        """Still at it: the ack wait begins anew."""
        self._consumer.in_progress(self.delivery)


@dataclass(slots=True)
class _Pending:
    consumer_seq: int
    deadline_ns: int


class MemoryConsumer:
    """Made by `MemoryMesh.consumer`."""

    def __init__(
        self, stream: MemoryStream, name: str, settings: ConsumerSettings, clock: Clock
    ) -> None:
        self.name = name
        self.settings = settings
        self._stream = stream
        self._clock = clock
        self._pending: dict[int, _Pending] = {}
        self._again: dict[int, None] = {}
        self._redelivered: dict[int, int] = {}
        self._looks: set[int] = set()
        self._next = _first(settings, stream)
        self._next_consumer_seq = 1
        self._floor = (0, self._next - 1)
        stream.on_removed.append(self._removed)

    def fetch(self, batch: int = 1) -> list[MemoryMessage]:
        """What can be delivered now, at most `batch` messages; it never waits."""
        with self._clock.lock:
            found: list[MemoryMessage] = []
            pending = self._count_pending()
            while len(found) < batch and (chosen := self._choose()) is not None:
                message, count = chosen
                pending -= count == 1
                found.append(self._deliver(message, count, pending))
            return found

    def state(self) -> ConsumerState:
        """The consumer as the broker would tell of it."""
        with self._clock.lock:
            return ConsumerState(
                num_pending=self._count_pending(),
                num_ack_pending=len(self._pending),
                num_redelivered=len(self._redelivered),
                delivered=(self._next_consumer_seq - 1, self._next - 1),
                ack_floor=self._floor,
            )

    def update(self, settings: ConsumerSettings) -> None:
        """Take over other settings, as the server does for a consumer that exists already."""
        for name, text in _FIXED.items():
            if getattr(settings, name) != getattr(self.settings, name):
                raise h.refused(10012, f"{text} can not be updated", code=500)
        self.settings = settings

    def acked(self, delivery: Delivery) -> None:
        """ACK and TERM, which differ in what a person is told alone."""
        with self._clock.lock:
            if self.settings.ack_policy == AckPolicy.ALL:
                self._ack_all(delivery.stream_seq, delivery.consumer_seq)
            else:
                self._ack_one(delivery.stream_seq)
                if self._stream.is_work_queue:
                    self._stream.remove(delivery.stream_seq)

    def nak(self, delivery: Delivery, *, delay: float | None) -> None:
        """Due again at once or after `delay` s; what is acknowledged already stays so."""
        with self._clock.lock:
            seq = delivery.stream_seq
            pending = self._pending.get(seq)
            if pending is None:
                return
            if delay is None:
                self._again[seq] = None
                return
            self._again.pop(seq, None)
            self._wait(pending, max(nanoseconds(delay), NAK_LATENCY))

    def in_progress(self, delivery: Delivery) -> None:
        """The ack wait begins anew; a message that is due again already stays so."""
        with self._clock.lock:
            pending = self._pending.get(delivery.stream_seq)
            if pending is not None:
                self._wait(pending, nanoseconds(self.settings.ack_wait))

    def _choose(self) -> tuple[StoredMessage, int] | None:
        """The message whose turn it is, and how many times it will have been delivered."""
        limit = self.settings.max_deliver
        while self._again:
            seq = next(iter(self._again))
            del self._again[seq]
            count = self._redelivered.get(seq, 1) + 1
            if 0 < limit < count:
                # Given up: no longer pending, yet never acknowledged: the floor stays below it.
                self._pending.pop(seq, None)
                self._redelivered[seq] = count
                continue
            self._redelivered[seq] = count
            return self._stream.messages[seq], count
        if 0 < self.settings.max_ack_pending <= len(self._pending):
            return None
        message = self._next_new()
        if message is None:
            return None
        self._next = message.seq + 1
        return message, 1

    def _deliver(self, message: StoredMessage, count: int, num_pending: int) -> MemoryMessage:
        consumer_seq = self._next_consumer_seq
        self._next_consumer_seq += 1
        pending = self._pending.setdefault(message.seq, _Pending(consumer_seq, 0))
        self._wait(pending, nanoseconds(self.settings.ack_wait))
        return MemoryMessage(
            subject=message.subject,
            data=message.data,
            headers=dict(message.headers),
            delivery=Delivery(
                self._stream.name,
                self.name,
                count,
                message.seq,
                consumer_seq,
                message.stored_ns,
                num_pending,
            ),
            _consumer=self,
        )

    def _wait(self, pending: _Pending, ns: int) -> None:
        pending.deadline_ns = deadline = self._clock.now_ns + ns
        if deadline not in self._looks:  # one look finds all that is due then
            self._looks.add(deadline)
            self._clock.call_at(deadline, self._look)

    def _look(self) -> None:
        """Queue whatever nobody has answered in time; what is due together goes by sequence."""
        now = self._clock.now_ns
        self._looks.discard(now)
        due = [seq for seq, p in self._pending.items() if p.deadline_ns <= now]
        self._again |= dict.fromkeys(seq for seq in sorted(due) if seq not in self._again)

    def _matches(self, message: StoredMessage) -> bool:
        filters = self.settings.filter_subjects
        return not filters or listens(filters, message.subject)

    def _next_new(self) -> StoredMessage | None:
        for seq in range(self._next, self._stream.last_seq + 1):
            message = self._stream.messages.get(seq)
            if message is not None and self._matches(message):
                return message
        return None

    def _count_pending(self) -> int:
        held = self._stream.messages.values()
        return sum(m.seq >= self._next and self._matches(m) for m in held)

    def _ack_one(self, seq: int) -> None:
        pending = self._pending.pop(seq, None)
        self._again.pop(seq, None)
        self._redelivered.pop(seq, None)
        if pending is None:
            return
        if not self._pending:
            self._floor = (self._next_consumer_seq - 1, self._next - 1)
        elif pending.consumer_seq == self._floor[0] + 1:
            self._floor = (pending.consumer_seq, seq)
            above = next((s for s in sorted(self._pending) if s > seq), None)
            if above is not None:
                self._floor = (self._pending[above].consumer_seq - 1, above - 1)

    def _ack_all(self, seq: int, consumer_seq: int) -> None:
        if consumer_seq <= self._floor[0] or seq <= self._floor[1]:
            return
        self._floor = (consumer_seq, seq)
        for number in [n for n in self._pending if n <= seq]:
            del self._pending[number]
            self._again.pop(number, None)
            self._redelivered.pop(number, None)

    def _removed(self, message: StoredMessage) -> None:
        """What has left the stream counts as acknowledged; with ack policy all, so does whatever
        came before it, as at the server (2.15.1)."""
        pending = self._pending.get(message.seq)
        if pending is None:
            return
        if self.settings.ack_policy == AckPolicy.ALL:
            self._ack_all(message.seq, pending.consumer_seq)
        else:
            self._ack_one(message.seq)


#: Settings that a consumer keeps for life, and the server's name for them.
_FIXED = {
    "deliver_policy": "deliver policy",
    "opt_start_seq": "start sequence",
    "ack_policy": "ack policy",
}


def check(stream: MemoryStream, settings: ConsumerSettings) -> None:
    """APIError as the server refuses to make this consumer."""
    filters = settings.filter_subjects
    pairs = [(a, b) for n, a in enumerate(filters) for b in filters[n + 1 :]]
    if any(overlap(a, b) for a, b in pairs):
        raise h.refused(10138, "consumer subject filters cannot overlap")
    policy, start = settings.deliver_policy, settings.opt_start_seq
    if policy == DeliverPolicy.BY_START_SEQUENCE:
        if not start:
            raise h.refused(
                10094,
                "consumer delivery policy is deliver by start sequence, "
                "but optional start sequence is not set",
            )
    elif policy not in (DeliverPolicy.ALL, DeliverPolicy.NEW):
        raise ValueError(f"MemoryMesh knows no deliver policy {policy.value}")
    elif start:
        raise h.refused(
            10094,
            f"consumer delivery policy is deliver {policy.value}, "
            "but optional start sequence is also set",
        )
    if settings.ack_policy not in (AckPolicy.EXPLICIT, AckPolicy.ALL):
        raise ValueError(f"MemoryMesh knows no ack policy {settings.ack_policy.value}")
    if stream.is_work_queue:
        if settings.ack_policy != AckPolicy.EXPLICIT:
            raise h.refused(10098, "workqueue stream requires explicit ack")
        if policy != DeliverPolicy.ALL:
            raise h.refused(10101, "consumer must be deliver all on workqueue stream")


def check_unique(filters: Sequence[str], others: Sequence[Sequence[str]]) -> None:
    """APIError where two consumers of a work queue would want the same message."""
    if others and not (filters and all(others)):
        raise h.refused(10099, "multiple non-filtered consumers not allowed on workqueue stream")
    if any(overlap(a, b) for other in others for a in filters for b in other):
        raise h.refused(10100, "filtered consumer not unique on workqueue stream")


def _first(settings: ConsumerSettings, stream: MemoryStream) -> int:
    """The sequence that a new consumer looks at first."""
    if settings.deliver_policy == DeliverPolicy.NEW:
        return stream.last_seq + 1
    if settings.opt_start_seq:
        return settings.opt_start_seq
    return next(iter(stream.messages), stream.last_seq + 1)
