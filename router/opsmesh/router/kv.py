"""A key-value bucket with compare-and-set: one message per key in a stream, as NATS KV (ADR-8).

The wire format is that of every NATS KV client, so that `nats kv get` reads what is here. Values
that expire carry `Nats-TTL` (ADR-43).
"""

from __future__ import annotations

from dataclasses import dataclass

from nats.aio.client import Client
from nats.js.api import Header
from nats.js.errors import APIError, NotFoundError

#: JetStream's error code for an expected last sequence that is not the last one.
WRONG_LAST_SEQUENCE = (10071, 10164)
#: Seconds to wait for the broker.
TIMEOUT = 5.0


class Conflict(Exception):
    """Another writer was first: read again and decide again."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} has changed since it was read")
        self.key = key


@dataclass(frozen=True)
class Entry:
    """A key's value, and the revision that a change of it has to name."""

    key: str
    value: bytes
    revision: int


class Bucket:
    """One bucket; keys are NATS subject tokens joined by dots."""

    def __init__(self, client: Client, name: str) -> None:
        self._js = client.jetstream(timeout=TIMEOUT)
        self.stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def get(self, key: str) -> Entry | None:
        """The newest value; None when there is none."""
        try:
            found = await self._js.get_last_msg(self.stream, self._prefix + key, direct=True)
        except NotFoundError:
            return None
        if found.headers and "KV-Operation" in found.headers:  # a delete marker
            return None
        return Entry(key, found.data or b"", found.seq or 0)

    async def put(
        self, key: str, value: bytes, *, revision: int = 0, ttl_s: float | None = None
    ) -> int:
        """Write over `revision` (0: the key must not exist); the new revision, or Conflict."""
        headers = {Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(revision)}
        if ttl_s is not None:
            headers[Header.MSG_TTL.value] = str(max(1, round(ttl_s)))
        try:
            ack = await self._js.publish(self._prefix + key, value, headers=headers)
        except APIError as error:
            if error.err_code in WRONG_LAST_SEQUENCE:
                raise Conflict(key) from error
            raise
        return ack.seq

    async def delete(self, key: str) -> None:
        """Remove the key and its past."""
        await self._js.purge_stream(self.stream, subject=self._prefix + key)

    def key(self, subject: str) -> str:
        """The key of a message's subject."""
        return subject.removeprefix(self._prefix)

    @property
    def subjects(self) -> str:
        """Every key, as a filter subject."""
        return self._prefix + ">"
