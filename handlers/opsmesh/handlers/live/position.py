"""A profile's place in the stream: what its decider remembers, and how far it has read.

One writer a consumer. Whoever takes the position writes itself into the cursor; every later commit
names the cursor's revision, and goes to disk whole or not at all (one atomic batch). A decider that
has been replaced without knowing it is told so by its next commit, and nothing of that is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from nats.aio.client import Client

from opsmesh.router import topology
from opsmesh.router.kv import Bucket, Conflict, Put
from opsmesh.router.scan import scan
from opsmesh.router.stages import Window

#: Seconds that a window without a timer is kept beyond its end: a decider that is behind decides by
#: the events' time, and may need it still.
KEEP_S: Final = 86400.0

#: Windows that one write changes at most: with the cursor they have to fit into one batch.
MOST_CHANGES: Final = 900

_CURSOR: Final = "cursor"
_WINDOW: Final = "w"


class Fenced(Exception):
    """Another decider has taken this position over."""

    def __init__(self, consumer: str) -> None:
        super().__init__(f"another process decides for {consumer} now")
        self.consumer = consumer


class Cursor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a consumer's events are decided: all up to `seq`. `at_us` is when that was noted.

    Events up to `shadow_until` are decided as in shadow. `last` holds the sequences of what
    `last(…)` stands for, by its text, and `latest_us` the time that its decider has come to.
    `server` is the broker's id at that time; none: its owner has let go, and left nothing open.
    `told` is the revision of the ledger up to which the ends of runs are told as events.
    """

    seq: int
    owner: str
    count: int
    at_us: int
    shadow_until: int = 0
    last: dict[str, int] = msgspec.field(default_factory=dict)
    latest_us: int = 0
    server: str = ""
    told: int = 0


class Positions:
    """Every consumer's position, in the bucket of windows: `<consumer>.cursor` and
    `<consumer>.w.<stage>.<key>`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._bucket = Bucket(client, topology.WINDOWS)

    async def cursor(self, consumer: str, *, after: int = 0) -> tuple[Cursor | None, int]:
        """The cursor and its revision; one `after` that revision, where it is known to be there."""
        entry = await self._bucket.get(f"{consumer}.{_CURSOR}", after=after)
        if entry is None:
            return None, 0
        return msgspec.json.decode(entry.value, type=Cursor), entry.revision

    async def windows(self, consumer: str) -> dict[str, Window]:
        """All that is remembered for a consumer. Take the position before you read them."""
        found: dict[str, Window] = {}
        prefix = f"{consumer}.{_WINDOW}."
        subject = self._bucket.subjects.removesuffix(">") + f"{prefix}>"
        stream = self._bucket.stream
        async for msg in scan(self._client, stream, subjects=[subject], newest_per_subject=True):
            if msg.data:  # the mark of a removed one has none
                name = self._bucket.key(msg.subject).removeprefix(prefix)
                found[name] = msgspec.json.decode(msg.data, type=Window)
        return found

    async def write(
        self,
        consumer: str,
        cursor: Cursor,
        revision: int,
        changes: Mapping[str, Window | None] | None = None,
    ) -> int:
        """Go on to `cursor` and change windows, all or nothing; the cursor's new revision.

        Raises Fenced when the cursor is not at `revision` any more. A commit whose answer was lost
        may be written again.
        """
        puts = [self._put(f"{consumer}.{_WINDOW}.{k}", w) for k, w in (changes or {}).items()]
        key = f"{consumer}.{_CURSOR}"
        puts.append(Put(key, msgspec.json.encode(cursor), revision=revision))
        try:
            return await self._bucket.put_all(puts)
        except Conflict:
            found, at = await self.cursor(consumer, after=revision)
            if found == cursor:
                return at
            raise Fenced(consumer) from None

    async def forget(self, consumer: str) -> None:
        """Remove everything of a consumer: its profile is gone."""
        await self._bucket.purge(f"{consumer}.>")

    @staticmethod
    def _put(key: str, window: Window | None) -> Put:
        if window is None:
            return Put(key, None)
        if window.due_us is not None:
            return Put(key, msgspec.json.encode(window))
        ttl_s = KEEP_S + (window.until_us - window.last_us) / 1e6
        return Put(key, msgspec.json.encode(window), ttl_s=ttl_s)
