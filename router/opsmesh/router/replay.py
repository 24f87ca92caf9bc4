"""Replay: stored events again, at their own pace or faster, where live handlers do not listen.

Copies travel on `rpl.<replay id>.<host>.<topic>`. Their bytes are the original ones; the header
`Opsmesh-Origin` says where each came from.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from nats.aio.client import Client

from opsmesh.router.publish import Publisher
from opsmesh.router.topology import EVENTS, REPLAY
from opsmesh.router.trigger import ORIGIN

#: Copies under way to the broker at most.
IN_FLIGHT: Final = 1000


class Pace:
    """Holds events back so that the time between them is what it was, divided by `speed`.

    A speed of 0 holds nothing back.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began: float | None = None
        self._first_us = 0

    async def wait(self, stored_us: int) -> None:
        """Return when an event stored at `stored_us` is due."""
        if not self._speed:
            return
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began, self._first_us = now, stored_us
        due = self._began + (stored_us - self._first_us) / 1e6 / self._speed
        if due > now:
            await asyncio.sleep(due - now)


def subject(replay_id: str, event_subject: str) -> str:
    """`rpl.<replay id>.<host>.<topic>` for a message of `evt.<host>.<topic>`."""
    return f"rpl.{replay_id}.{event_subject.removeprefix('evt.')}"


async def copy(
    client: Client,
    replay_id: str,
    events: AsyncIterator[tuple[str, int, int, bytes]],
    *,
    pace: Pace,
) -> AsyncIterator[int]:
    """Copy events (subject, sequence, stored microseconds, bytes) into REPLAY.

    Yields the number copied so far, each time that it has grown and the broker has acknowledged.
    """
    publisher = Publisher(client, stream=REPLAY)
    waiting: list[asyncio.Task[object]] = []
    done = 0
    async for event_subject, seq, stored_us, data in events:
        await pace.wait(stored_us)
        waiting.append(
            asyncio.create_task(
                publisher.publish(
                    subject(replay_id, event_subject),
                    data,
                    msg_id=f"{replay_id}:{seq}",
                    headers={ORIGIN: f"{EVENTS},{seq},{stored_us}"},
                )
            )
        )
        if len(waiting) >= IN_FLIGHT:
            await asyncio.gather(*waiting)
            done += len(waiting)
            waiting.clear()
            yield done
    if waiting:
        await asyncio.gather(*waiting)
        yield done + len(waiting)
