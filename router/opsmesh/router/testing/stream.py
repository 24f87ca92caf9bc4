"""One stream in memory: what a publish must pass, what is kept, and what removes it again.

The one rule: a publish is refused for the reason that the server finds first; the orders of the
checks in `publish` and `publish_batch` are the server's (measured with nats-server 2.15.1).
Expiry is to the nanosecond; the server's own may be up to a second late. Not modelled: `max_bytes`,
`max_msgs`, and how a rollup or purge moves on the sequences that a consumer tells of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nats.js.api import RetentionPolicy, StreamConfig

from opsmesh.router.publish import PubAck
from opsmesh.router.testing import headers as h
from opsmesh.router.testing.clock import Clock, nanoseconds
from opsmesh.router.topic_patterns import listens, topic_matches

#: The server looks at its schedules this often at most, in nanoseconds: one that is due at once
#: waits as long (nats-server 2.15.1).
SCHEDULE_LATENCY = 250_000_000
#: The server's window for message ids where the stream sets none, in seconds.
DUPLICATE_WINDOW = 120.0
#: Most messages in an atomic batch (nats-server 2.15.1).
MAX_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message as a stream holds it; `stored_us` is in microseconds since the epoch."""

    seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str]
    stored_ns: int

    @property
    def stored_us(self) -> int:
        """When it was stored."""
        return self.stored_ns // 1000


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """One message of an atomic batch."""

    subject: str
    data: bytes = b""
    msg_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def all_headers(self) -> dict[str, str]:
        """With the message id among them."""
        own = {h.MSG_ID: self.msg_id} if self.msg_id else {}
        return {**self.headers, **own}


class MemoryStream:
    """Messages by sequence; `on_removed` hears of each that goes."""

    def __init__(self, config: StreamConfig, clock: Clock) -> None:
        if config.retention == RetentionPolicy.INTEREST:
            raise ValueError(f"stream {config.name}: MemoryMesh knows no interest retention")
        self.config = config
        self.name = config.name or ""
        self.subjects = tuple(config.subjects or [self.name])
        self.last_seq = 0
        self.messages: dict[int, StoredMessage] = {}
        self.on_removed: list[Callable[[StoredMessage], None]] = []
        self._clock = clock
        self._of_subject: dict[str, dict[int, None]] = {}
        self._ids: dict[str, tuple[int, int]] = {}
        self._last_id = ""
        self._batches = 0
        window = config.duplicate_window or min(config.max_age or DUPLICATE_WINDOW, 120.0)
        self._window = nanoseconds(window)

    @property
    def is_work_queue(self) -> bool:
        """Whether an acknowledged message is gone."""
        return self.config.retention == RetentionPolicy.WORK_QUEUE

    def takes(self, subject: str) -> bool:
        """Whether the subject is one of this stream's."""
        return listens(self.subjects, subject)

    def last_of(self, subject: str) -> StoredMessage | None:
        """The newest message of one subject."""
        seqs = self._of_subject.get(subject)
        return self.messages[next(reversed(seqs))] if seqs else None

    def publish(self, message: Outgoing) -> PubAck:
        """Store it, or tell where its id is stored already; APIError as the server refuses it."""
        headers = message.all_headers()
        self._check_stream(headers)
        self._check_expected(message.subject, headers)
        self._check_schedule(message.subject, headers)
        known = self._known(headers)
        if known is not None:
            return PubAck(known, True)
        last_id = headers.get(h.EXPECTED_MSG_ID)
        if last_id is not None and last_id != self._last_id:
            raise h.refused(10070, f"wrong last msg ID: {self._last_id}")
        self._check_rollup(headers)
        self._check_ttl(headers)
        return PubAck(self._store(message.subject, message.data, headers), False)

    def publish_batch(self, batch: Sequence[Outgoing]) -> list[PubAck]:
        """Store all of them in one run of sequences, or nothing (ADR-50).

        The headers that a client sends with a batch are stored, as the server does.
        """
        if not self.config.allow_atomic:
            raise h.refused(10174, "atomic publish is disabled")
        if len(batch) > MAX_BATCH:
            raise h.refused(10199, "atomic publish batch is too large: 1000")
        subjects: set[str] = set()
        ids: set[str] = set()
        for n, message in enumerate(batch):
            headers = message.all_headers()
            if h.EXPECTED_MSG_ID in headers:
                raise h.refused(
                    10177, f"atomic publish unsupported header used: {h.EXPECTED_MSG_ID}"
                )
            self._check_stream(headers)
            self._check_ttl(headers)
            msg_id = headers.get(h.MSG_ID)
            if msg_id and (msg_id in ids or self._known(headers) is not None):
                raise h.refused(10201, "atomic publish batch contains duplicate message id")
            self._check_expected(message.subject, headers, ahead=n, in_batch=subjects)
            self._check_schedule(message.subject, headers)
            self._check_rollup(headers)
            subjects.add(message.subject)
            ids.add(msg_id or "")
        self._batches += 1
        acks = []
        for n, message in enumerate(batch, 1):
            own = {"Nats-Batch-Id": f"b{self._batches}", "Nats-Batch-Sequence": str(n)}
            if n == len(batch):
                own["Nats-Batch-Commit"] = "1"
            headers = {**message.all_headers(), **own}
            acks.append(PubAck(self._store(message.subject, message.data, headers), False))
        return acks

    def remove(self, seq: int) -> None:
        """Take a message out; one that has gone already is no error."""
        message = self.messages.pop(seq, None)
        if message is None:
            return
        seqs = self._of_subject[message.subject]
        del seqs[seq]
        if not seqs:
            del self._of_subject[message.subject]
        for told in self.on_removed:
            told(message)

    def purge(self, subject: str) -> None:
        """Take out all messages of the subjects that a pattern covers."""
        for message in list(self.messages.values()):
            if topic_matches(subject, message.subject):
                self.remove(message.seq)

    def _check_stream(self, headers: Mapping[str, str]) -> None:
        if headers.get(h.EXPECTED_STREAM, self.name) != self.name:
            raise h.refused(10060, "expected stream does not match")

    def _check_expected(
        self,
        subject: str,
        headers: Mapping[str, str],
        *,
        ahead: int = 0,
        in_batch: set[str] | frozenset[str] = frozenset(),
    ) -> None:
        of = headers.get(h.EXPECTED_SUBJECT, subject)
        wanted = h.expected(headers, h.EXPECTED_SUBJECT_SEQ)
        if wanted is None and h.EXPECTED_SUBJECT in headers:
            raise h.refused(10193, "missing sequence for expected last sequence per subject")
        if wanted is not None:
            if of in in_batch:
                raise h.refused(10164, "wrong last sequence")
            newest = self.last_of(of)
            found = newest.seq if newest else 0
            if found != wanted:
                raise h.wrong_last(found)
        last = h.expected(headers, h.EXPECTED_SEQ)
        if last is not None and last != self.last_seq + ahead:
            raise h.wrong_last(self.last_seq + ahead)
        if last is not None and ahead:  # a batch may expect it of its first message alone
            raise h.refused(10164, "wrong last sequence")

    def _check_schedule(self, subject: str, headers: Mapping[str, str]) -> None:
        if h.SCHEDULE not in headers:
            return
        if not self.config.allow_msg_schedules:
            raise h.refused(10188, "message schedules is disabled")
        for name in h.NOT_MODELLED:
            if name in headers:
                raise NotImplementedError(f"MemoryMesh knows no {name}")
        try:
            h.schedule_ns(headers[h.SCHEDULE])
        except ValueError:
            raise h.refused(10189, "message schedules pattern is invalid") from None
        if h.SCHEDULE_TTL in headers:
            try:
                h.ttl_ns(headers[h.SCHEDULE_TTL])
            except ValueError:
                raise h.refused(10191, "message schedules invalid per-message TTL") from None
            if not self.config.allow_msg_ttl:
                raise h.refused(10166, "per-message TTL is disabled")
        target = headers.get(h.TARGET, "")
        wildcard = {"*", ">"} & set(target.split("."))
        if not target or wildcard or target == subject or not self.takes(target):
            raise h.refused(10190, "message schedules target is invalid")

    def _check_rollup(self, headers: Mapping[str, str]) -> None:
        rollup = headers.get(h.ROLLUP)
        allowed = self.config.allow_rollup_hdrs or self.config.allow_msg_schedules
        if rollup is not None and not (allowed and rollup in ("sub", "all")):
            raise h.refused(10111, "rollup not permitted", code=500)

    def _check_ttl(self, headers: Mapping[str, str]) -> None:
        if h.TTL not in headers:
            return
        if not self.config.allow_msg_ttl:
            raise h.refused(10166, "per-message TTL is disabled")
        try:
            h.ttl_ns(headers[h.TTL])
        except ValueError:
            raise h.refused(10165, "invalid per-message TTL") from None

    def _known(self, headers: Mapping[str, str]) -> int | None:
        """The sequence under which a message id is stored. It counts from when it was stored, even
        when the message itself has gone."""
        seq, stored_ns = self._ids.get(headers.get(h.MSG_ID, ""), (0, 0))
        return seq if seq and self._clock.now_ns - stored_ns < self._window else None

    def _store(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        now = self._clock.now_ns
        if h.SCHEDULE in headers:  # one schedule a subject: a new one replaces it (ADR-51)
            headers[h.ROLLUP] = "sub"
        self.last_seq += 1
        seq = self.last_seq
        self.messages[seq] = StoredMessage(
            seq=seq, subject=subject, data=data, headers=headers, stored_ns=now
        )
        seqs = self._of_subject.setdefault(subject, {})
        seqs[seq] = None
        self._last_id = headers.get(h.MSG_ID, "")
        if self._last_id:
            self._ids[self._last_id] = (seq, now)
        self._make_room(seq, seqs, headers.get(h.ROLLUP))
        self._plan(seq, headers)
        return seq

    def _make_room(self, seq: int, seqs: Mapping[int, None], rollup: str | None) -> None:
        limit = self.config.max_msgs_per_subject
        if rollup == "all":
            old = list(self.messages)[:-1]
        elif rollup == "sub":
            old = list(seqs)[:-1]
        else:
            old = list(seqs)[: -limit if limit > 0 else 0]
        for number in old:
            self.remove(number)

    def _plan(self, seq: int, headers: Mapping[str, str]) -> None:
        now = self._clock.now_ns
        lifetimes = []
        if h.TTL in headers:
            lifetime = h.ttl_ns(headers[h.TTL])
            if lifetime is not None:
                lifetimes.append(lifetime)
        if self.config.max_age and headers.get(h.TTL) != h.NEVER:
            lifetimes.append(nanoseconds(self.config.max_age))
        if lifetimes:
            self._clock.call_at(now + min(lifetimes), lambda: self.remove(seq))
        if h.SCHEDULE in headers:
            due = max(h.schedule_ns(headers[h.SCHEDULE]), now + SCHEDULE_LATENCY)
            self._clock.call_at(due, lambda: self._fire(seq))

    def _fire(self, seq: int) -> None:
        message = self.messages.get(seq)
        if message is None or self.last_of(message.subject) is not message:
            return  # anything newer on its subject cancels a schedule
        target = message.headers[h.TARGET]
        self._store(target, message.data, h.fired(message.headers, message.subject))
        self.remove(seq)
