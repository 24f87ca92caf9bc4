"""A key-value bucket in memory, in the shape of `opsmesh.router.kv.Bucket` without the waiting."""

from __future__ import annotations

from nats.js.errors import APIError

from opsmesh.router.kv import WRONG_LAST_SEQUENCE, Conflict, Entry
from opsmesh.router.testing import headers as h
from opsmesh.router.testing.clock import Clock
from opsmesh.router.testing.stream import MemoryStream, Outgoing


class MemoryBucket:
    """One bucket; keys are NATS subject tokens joined by dots."""

    def __init__(self, stream: MemoryStream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._prefix = f"$KV.{stream.name.removeprefix('KV_')}."

    def get(self, key: str) -> Entry | None:
        """The newest value; None when there is none."""
        with self._clock.lock:
            found = self._stream.last_of(self._prefix + key)
        if found is None or "KV-Operation" in found.headers:  # a delete marker
            return None
        return Entry(key, found.data, found.seq)

    def put(self, key: str, value: bytes, *, revision: int = 0, ttl_s: float | None = None) -> int:
        """Write over `revision` (0: the key must not exist); the new revision, or Conflict."""
        headers = {h.EXPECTED_SUBJECT_SEQ: str(revision)}
        if ttl_s is not None:
            headers[h.TTL] = str(max(1, round(ttl_s)))
        message = Outgoing(subject=self._prefix + key, data=value, headers=headers)
        try:
            with self._clock.lock:
                return self._stream.publish(message).seq
        except APIError as error:
            if error.err_code in WRONG_LAST_SEQUENCE:
                raise Conflict(key) from error
            raise

    def delete(self, key: str) -> None:
        """Remove the key and its past."""
        with self._clock.lock:
            self._stream.purge(self._prefix + key)

    def keys(self) -> list[str]:
        """Every key that has a value."""
        with self._clock.lock:
            subjects = {m.subject for m in self._stream.messages.values()}
        names = sorted(subject.removeprefix(self._prefix) for subject in subjects)
        return [name for name in names if self.get(name) is not None]
