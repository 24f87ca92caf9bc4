"""What outlives a step: one of each thing for all steps of a process, made when first asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar, cast

import structlog

from opsmesh.router.current import Current

#: Seconds that each thing has to close itself.
CLOSE_S: Final = 5.0

log = structlog.get_logger()


class Closable(Protocol):
    """What can be shared."""

    async def aclose(self) -> None:
        """Let go of everything."""


T = TypeVar("T", bound=Closable)


class Shared:
    """Things by their keys, and the settings in force. Whoever makes a thing names the kind in its
    key: `mcp:git`."""

    def __init__(self, settings: Current | None = None) -> None:
        self.settings = settings or Current()
        self._made: dict[str, asyncio.Task[Closable]] = {}

    async def get(self, key: str, factory: Callable[[], Awaitable[T]]) -> T:
        """The thing of this key; made once, however many ask at the same time. Whatever the factory
        raises, all of them get; the next one who asks has it made again."""
        making = self._made.get(key)
        if making is None or _failed(making):
            making = asyncio.create_task(_make(factory), name=f"make {key}")
            self._made[key] = making
        # who stops waiting must not end it for the others
        return cast(T, await asyncio.shield(making))

    async def drop(self, key: str) -> None:
        """Close the thing of this key; the next who asks gets a new one."""
        making = self._made.pop(key, None)
        if making is not None:
            await _close(key, making)

    async def aclose(self) -> None:
        """Close everything, all at once."""
        made, self._made = self._made, {}
        await asyncio.gather(*(_close(key, making) for key, making in made.items()))


async def _make(factory: Callable[[], Awaitable[Any]]) -> Closable:
    return cast(Closable, await factory())


def _failed(making: asyncio.Task[Closable]) -> bool:
    return making.done() and (making.cancelled() or making.exception() is not None)


async def _close(key: str, making: asyncio.Task[Closable]) -> None:
    if not making.done():
        making.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await making
    if _failed(making):
        return
    try:
        async with asyncio.timeout(CLOSE_S):
            await making.result().aclose()
    except Exception as error:
        log.warning("shared.not_closed", key=key, error=f"{type(error).__name__}: {error}")
