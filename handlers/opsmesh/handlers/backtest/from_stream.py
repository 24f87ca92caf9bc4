"""The stream written down as an archive, so that a backtest can read what was never archived."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nats.aio.client import Client

from opsmesh.handlers.evidence.archive import Archive
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.topic_patterns import disjoint
from opsmesh.router.topology import EVENTS

if TYPE_CHECKING:
    from opsmesh.handlers.profiles.profile import Profile

#: Messages of the stream that are written down at once.
COMMIT: Final = 10_000


async def copy(
    client: Client,
    folder: Path,
    profiles: Sequence[Profile],
    *,
    since_us: int,
    until_us: int,
) -> None:
    """What the profiles listen to, out of the stream, as the sink would write it."""
    patterns = disjoint(pattern for profile in profiles for pattern in profile.rule.listens)
    subjects = [f"evt.*.{pattern}" for pattern in patterns]
    messages = scan(client, EVENTS, subjects=subjects, since_us=since_us)
    with Archive(folder, stream=EVENTS, segment_bytes=64 * 2**20) as written:
        async with contextlib.aclosing(messages):  # type: ignore[type-var]
            count = 0
            async for msg in messages:
                where = delivery(msg.reply)
                stored_us = where.timestamp_ns // 1000
                if stored_us >= until_us:
                    break
                written.event(where.stream_seq, stored_us, msg.data)
                count += 1
                if count % COMMIT == 0:
                    written.commit()
        written.commit()
