"""The events that are measured with: one registered topic, a realistic payload, about 420 bytes."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Final

import msgspec
from nats.aio.client import Client

from opsmesh.router.intake import Intake, Message
from opsmesh.router.publish import Publisher
from opsmesh.router.settings import Settings
from opsmesh.schemas.registry import Registry, load_registry

#: Two topics of one kind, so that each side of a comparison can have its own.
TOPIC, OTHER_TOPIC = "python.lint.failed", "editor.format.failed"
#: Events under way at once, of ours and of plain nats-py (whose own default this is).
IN_FLIGHT: Final = 4000

_numbers = count(1)


def registry() -> Registry:
    """The topics that this installation knows."""
    return load_registry()


def intake() -> Intake:
    """What the agent does with every line: complete, check, redact."""
    return Intake(Settings(), registry())


def line(topic: str = TOPIC) -> bytes:
    """One event as a producer writes it; no two are alike."""
    number = next(_numbers)
    path = f"src/shop/module_{number % 97:02d}.py"
    payload: dict[str, object] = {"tool": "ruff", "path": path, "message": f"finding {number}"}
    if topic == TOPIC:
        payload |= {"count": number % 9 + 1, "line": number % 400 + 1, "column": 8, "code": "F401"}
    return msgspec.json.encode(
        {"topic": topic, "source": "bench", "component": "samples", "payload": payload}
    )


def messages(amount: int, topic: str = TOPIC) -> list[Message]:
    """Events that are ready to be stored, ids and all."""
    ready = intake()
    return [ready.message(line(topic)) for _ in range(amount)]


async def store(client: Client, amount: int) -> int:
    """Fill EVENTS with this many events of TOPIC; the bytes of one of them."""
    ready = messages(amount)
    await publish_all(Publisher(client), ready)
    return len(ready[-1].data)


async def publish_all(publisher: Publisher, ready: list[Message]) -> None:
    """Publish them with many in flight; returns when the broker has all."""
    waiting = iter(ready)

    async def work() -> None:
        for message in waiting:
            await publisher.publish(message.subject, message.data, msg_id=message.id)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(IN_FLIGHT, len(ready))):
            group.create_task(work())
