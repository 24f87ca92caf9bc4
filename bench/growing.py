"""Growth: whether an event reaches its action as fast among many profiles and many stored events.

Each row stands beside the smallest of its kind, measured in the same run.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from typing import Final

import dispatching
from figure import Figure, Target, percentile
from lab import Lab, broker
from latency import Handlers, handlers, renamed
from opsmesh.router.intake import Message
from opsmesh.router.publish import Publisher
from samples import TOPIC, intake, line, messages, publish_all

#: Profiles in force, each with a topic of its own: an event concerns one of them.
PROFILES: Final = (1, 10, 100, 1000)
#: Events that are stored before. The full run ends with the last but one: `--scale 10` has all.
STORED: Final = (10_000, 100_000, 1_000_000, 10_000_000)
#: Events that are made ready at once, so that ten million need no memory.
SLICE: Final = 20_000
#: How much slower the largest may be.
LIMIT: Final = 1.5


async def profiles(lab: Lab) -> list[Figure]:
    """Latency with 1 to 1,000 profiles."""
    amount = lab.amount(300)
    sizes = [size for size in PROFILES if size <= max(1, 1000 * lab.scale)]
    base = dispatching.profile("firing")
    found: list[list[float]] = []
    for size in sizes:
        with broker():
            named = [renamed(base, f"p{size}-{n}", f"grown.topic_{n}") for n in range(size)]
            async with handlers(named) as (_, _, owned):
                ready = [_about(f"grown.topic_{random.randrange(size)}") for _ in range(amount)]
                found.append(await _rounds(owned, ready, lab.rounds))
    return _figures("profiles", sizes, found, amount)


async def stored(lab: Lab) -> list[Figure]:
    """Latency with 10,000 to 10 million stored events."""
    amount = lab.amount(300)
    sizes = [size for size in STORED if size <= max(STORED[0], 1_000_000 * lab.scale)]
    if lab.scale < 0.01:
        sizes = [100]
    found: list[list[float]] = []
    with broker():
        async with handlers([renamed(dispatching.profile("firing"), "grown", "grown.topic")]) as (
            sending,
            _,
            owned,
        ):
            publisher, count = Publisher(sending), 0
            for size in sizes:
                while count < size:
                    part = min(SLICE, size - count)
                    await publish_all(publisher, messages(part))
                    count += part
                ready = [_about("grown.topic") for _ in range(amount)]
                found.append(await _rounds(owned, ready, lab.rounds))
    return _figures("stored", sizes, found, amount)


def _about(topic: str) -> Message:
    """One event of a topic that nobody has registered, with a payload that fires."""
    return intake().message(line(TOPIC).replace(TOPIC.encode(), topic.encode()))


async def _rounds(owned: Handlers, ready: Sequence[Message], rounds: int) -> list[float]:
    """The median of each round, in µs."""
    waiting = iter(ready)
    size = max(1, len(ready) // rounds)
    found = []
    for _ in range(rounds):
        took = [await owned.took_us(one) for one in islice(waiting, size)]
        if took:
            found.append(percentile(took, 0.5))
    return found


def _figures(
    what: str, sizes: Sequence[int], found: Sequence[Sequence[float]], amount: int
) -> list[Figure]:
    return [
        Figure(
            name=f"latency_{what}_{size}",
            what=f"publish until the action's first line, p50, {what}: {size:,}",
            unit="µs",
            ours=ours,
            beside=f"{what}: {sizes[0]:,}",
            plain=found[0],
            target=Target(of="ratio", at="most", limit=LIMIT),
            details={"events": amount},
        )
        for size, ours in zip(sizes, found, strict=True)
    ]
