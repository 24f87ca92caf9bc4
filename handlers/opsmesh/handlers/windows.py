"""Debounce windows in KV: they survive a restart, and expire by themselves."""

from __future__ import annotations

import msgspec
from nats.aio.client import Client

from opsmesh.router import topology
from opsmesh.router.decide import Debounce, Rule, Window, debounce_key
from opsmesh.router.kv import Bucket, Entry
from opsmesh.schemas.envelope import Event


class Windows:
    """The bucket of windows; a key is `<profile>.<hash of the debounce key's values>`."""

    def __init__(self, client: Client) -> None:
        self._bucket = Bucket(client, topology.WINDOWS)

    async def read(self, rule: Rule, event: Event) -> tuple[Window | None, int]:
        """The burst this event falls into, and the revision to write over."""
        entry: Entry | None = await self._bucket.get(self._key(rule, event))
        if entry is None:
            return None, 0
        return msgspec.json.decode(entry.value, type=Window), entry.revision

    async def write(self, rule: Rule, event: Event, window: Window, revision: int) -> None:
        """Note the burst's new state; Conflict when another handler was first."""
        await self._bucket.put(
            self._key(rule, event),
            msgspec.json.encode(window),
            revision=revision,
            ttl_s=_ttl_s(rule.debounce) if rule.debounce else None,
        )

    @staticmethod
    def _key(rule: Rule, event: Event) -> str:
        return f"{rule.name}.{debounce_key(rule, event)}"


def _ttl_s(debounce: Debounce) -> float:
    """Twice the time in which the window can still matter; at least a minute, since an event's
    stored time may lie a little in the past."""
    return max(60.0, 2e-6 * max(debounce.window_us, debounce.max_wait_us or 0))
