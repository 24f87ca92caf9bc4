"""A bound on the memory of what is under way: whoever wants more waits for its turn.

The one rule: first come, first served, so that a connection with large lines is not passed by for
ever. One that wants more than there is at all gets it once everything else has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

#: Bytes of lines under way in the agent, over all connections. A few times as much is resident: a
#: line, the event made of it, and their tasks.
MAX_BYTES: Final = 32 * 1024 * 1024
#: Bytes that a line counts beside its own length: its task, its event and its answer.
OVERHEAD: Final = 4096


class Budget:
    """Bytes to share between connections; for one event loop."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self.limit = limit
        self.used = 0
        self._turns: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._turns)

    def has(self, size: int) -> bool:
        """Whether `take` would return at once."""
        return not self._turns and self._fits(size)

    async def take(self, size: int) -> None:
        """Returns once there is room for `size` bytes; give them back with `give`."""
        if self.has(size):
            self.used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._turns.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had its turn, but will not use it
                self.give(size)
            elif entry in self._turns:
                self._turns.remove(entry)
                self._pass_on()
            raise

    def give(self, size: int) -> None:
        """These bytes are free again."""
        self.used -= size
        self._pass_on()

    def _pass_on(self) -> None:
        while self._turns:
            size, turn = self._turns[0]
            if not turn.done():  # who waits may have been cancelled
                if not self._fits(size):
                    return
                self.used += size
                turn.set_result(None)
            self._turns.popleft()

    def _fits(self, size: int) -> bool:
        return self.used + size <= self.limit or not self.used
