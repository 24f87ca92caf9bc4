"""What the spool had to drop, told as events: one `mesh.gap.detected` for each source.

The one rule: told once. The event's id is made of the closed log's name and the source, so that a
crash between telling and noting that it was told gives the same event again, which is stored once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol

import structlog

from opsmesh.router import losses
from opsmesh.router.losses import Loss
from opsmesh.schemas import ids

#: The topic, and its `kind`.
TOPIC, KIND = "mesh.gap.detected", "dropped"

log = structlog.get_logger()


class Emit(Protocol):
    """Sends an event of the agent's own; whether it is safe."""

    def __call__(self, topic: str, payload: dict[str, Any], **more: Any) -> Awaitable[bool]: ...


async def tell(spool_dir: str, emit: Emit) -> None:
    """Tell everything that was dropped and has not been told; what cannot be told stays."""
    try:
        await asyncio.to_thread(losses.freeze, spool_dir)
        for name in losses.frozen(spool_dir):
            if not await _tell_log(spool_dir, name, emit):
                return
            await asyncio.to_thread(losses.close, spool_dir, name)
    except OSError as error:
        log.error("spool.losses_unreadable", error=str(error))  # noqa: TRY400


async def _tell_log(spool_dir: str, name: str, emit: Emit) -> bool:
    ms = int(name.removeprefix(losses.CLOSED).removesuffix(losses.END)) // 1_000_000
    for loss in await asyncio.to_thread(losses.summary, spool_dir, name):
        log.warning("spool.dropped", source=loss.source, events=loss.events, bytes=loss.bytes)
        if not await emit(TOPIC, payload(loss), id=ids.derived(ms, name, loss.source)):
            return False
    return True


def payload(loss: Loss) -> dict[str, Any]:
    """The event's payload."""
    times = {"from_time": loss.from_time, "to_time": loss.to_time}
    return {
        "source": loss.source,
        "kind": KIND,
        "lost": loss.events,
        "lost_bytes": loss.bytes,
        **{name: value for name, value in times.items() if value},
        "message": f"{loss.source} lost {loss.events} events, {loss.bytes} bytes, in the spool: "
        + ", ".join(WHY.get(reason, reason) for reason in loss.reasons),
    }


#: What a reason means, for people.
WHY = {
    "refuse": "it was full (spool.when_full: refuse), and their sender had asked for no answer",
    "drop_oldest": "it was full (spool.when_full: drop_oldest)",
    "drop_newest": "it was full (spool.when_full: drop_newest)",
    "error": "the plug-in that was to make them failed",
    "by hand": "removed by hand (opsmesh spool drop)",
}
