"""Clients that follow events on the ingest socket (ADR 0018).

The one rule: a follower never holds the agent up. What does not fit into its buffer is left out
and counted, and it is told how many those were. Nothing is subscribed while nobody follows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from opsmesh.router.topic_patterns import topic_matches

#: How a line begins that asks to follow.
ASKS_TO_FOLLOW: Final = b'{"_follow"'
#: Patterns of one follower, and characters of one.
MAX_PATTERNS, MAX_PATTERN = 32, 256
#: Bytes that may wait for a follower; what comes beyond is left out and counted.
MAX_WAITING: Final = 256 * 1024

_TOKEN: Final = r"(?:\*|[A-Za-z0-9_-]+)"  # noqa: S105 (of a topic)
_PATTERN: Final = re.compile(rf"{_TOKEN}(?:\.{_TOKEN})*(?:\.>)?|>")

log = structlog.get_logger()


class Outlet(Protocol):
    """The part of an `asyncio.StreamWriter` that a follower needs."""

    @property
    def transport(self) -> asyncio.WriteTransport: ...

    def is_closing(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...


@dataclass(eq=False)
class Follower:
    """One connection; `missed`: how many events it has not been told about yet."""

    outlet: Outlet
    patterns: tuple[str, ...]
    missed: int = 0
    telling: asyncio.Task[None] | None = field(default=None, repr=False)

    def give(self, line: bytes) -> None:
        """Hand it an event, or count it."""
        if self.outlet.is_closing():
            return
        waiting = self.outlet.transport.get_write_buffer_size()
        if self.missed or (waiting and waiting + len(line) > MAX_WAITING):
            self.missed += 1
            if self.telling is None:
                self.telling = asyncio.create_task(self._tell())
            return
        self.outlet.write(line)

    def interrupted(self) -> None:
        """Tell it that nobody knows what it missed; who has missed some anyway is told so."""
        if not self.missed and not self.outlet.is_closing():
            self.outlet.write(_missed(None))

    async def _tell(self) -> None:
        """Say how many it missed, once it reads again."""
        try:
            await self.outlet.drain()
            missed, self.missed = self.missed, 0
            self.outlet.write(_missed(missed))
        except OSError as error:
            log.debug("follow.gone", error=str(error))
        finally:
            self.telling = None


class Followers:
    """Who follows what, and one subscription for each pattern that somebody follows."""

    def __init__(self) -> None:
        self._followers: dict[Outlet, Follower] = {}
        self._client: Client | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._changing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._followers)

    @property
    def patterns(self) -> frozenset[str]:
        """What the broker is asked for just now."""
        return frozenset(self._subscriptions)

    async def ask(self, line: bytes, outlet: Outlet) -> bytes:
        """Take a line that asks to follow; the answer to it. A later line takes the place of an
        earlier one of the same connection, and an empty list ends it."""
        try:
            patterns = _patterns(line)
        except ValueError as wrong:
            return msgspec.json.encode({"ok": False, "error": str(wrong)})
        known = self._followers.get(outlet)
        if not patterns:
            self._followers.pop(outlet, None)
        elif known is not None:
            known.patterns = patterns
        else:
            self._followers[outlet] = Follower(outlet, patterns)
        await self._agree()
        return msgspec.json.encode({"ok": True, "follow": patterns})

    async def leave(self, outlet: Outlet) -> None:
        """The connection has ended."""
        gone = self._followers.pop(outlet, None)
        if gone is not None:
            if gone.telling is not None:
                gone.telling.cancel()
            await self._agree()

    async def attach(self, client: Client) -> None:
        """The broker is there, by this connection; also after it was away. Followers are told that
        something may be missing: what was stored meanwhile did not come by."""
        if client is not self._client:
            self._client, self._subscriptions = client, {}
        await self._agree()
        for follower in self._followers.values():
            follower.interrupted()

    async def _agree(self) -> None:
        async with self._changing:
            client = self._client
            if client is None or client.is_closed:
                return  # `attach` does it
            wanted = {pattern for one in self._followers.values() for pattern in one.patterns}
            try:
                for pattern in wanted - self._subscriptions.keys():
                    self._subscriptions[pattern] = await client.subscribe(
                        f"evt.*.{pattern}", cb=self._hearing(pattern)
                    )
                for pattern in self._subscriptions.keys() - wanted:
                    await self._subscriptions.pop(pattern).unsubscribe()
                if client.is_connected:
                    await client.flush()
            except Exception as error:  # nats-py: whatever the connection's end was
                log.warning("follow.not_subscribed", error=str(error))

    def _hearing(self, pattern: str) -> Callable[[Msg], Awaitable[None]]:
        async def hear(message: Msg) -> None:
            topic = message.subject.split(".", 2)[2]
            line = message.data.replace(b"\n", b" ") + b"\n"
            for follower in list(self._followers.values()):
                # two patterns of one follower may match: the first one is what it is told by
                first = next((one for one in follower.patterns if topic_matches(one, topic)), "")
                if first == pattern:
                    follower.give(line)

        return hear


def _patterns(line: bytes) -> tuple[str, ...]:
    asked = msgspec.json.decode(line)
    patterns = asked.get("_follow") if isinstance(asked, dict) else None
    if not isinstance(patterns, list) or len(patterns) > MAX_PATTERNS:
        raise ValueError(f"_follow is not a list of at most {MAX_PATTERNS} topic patterns")
    for pattern in patterns:
        text = pattern if isinstance(pattern, str) else ""
        if len(text) > MAX_PATTERN or not _PATTERN.fullmatch(text):
            raise ValueError(f"_follow: {text[:MAX_PATTERN]!r} is not a topic pattern")
    return tuple(dict.fromkeys(patterns))


def _missed(count: int | None) -> bytes:
    return msgspec.json.encode({"_missed": count}) + b"\n"
