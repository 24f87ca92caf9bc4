"""Between a thread that reads a tool and the main thread that emits.

A tool that has to wait for its reader drops it, or stands still: the reader must never wait for
the mesh. So putting never blocks; when the mesh is too slow for too long the oldest goes, counted.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Feed(Generic[Item]):
    """A bounded queue that loses its oldest rather than keep anybody waiting."""

    def __init__(self, limit: int) -> None:
        self._items: deque[Item] = deque()
        self._limit = limit
        self._lost = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Item) -> None:
        """Add an item; at once, always."""
        with self._changed:
            if len(self._items) >= self._limit:
                self._items.popleft()
                self._lost += 1
            self._items.append(item)
            self._changed.notify()

    def get(self, timeout: float | None = None) -> Item | None:
        """The oldest item; None after `timeout` seconds, or when the feed is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._closed, timeout)
            return self._items.popleft() if self._items else None

    def lost(self) -> int:
        """How many items have gone since this was last asked."""
        with self._changed:
            lost, self._lost = self._lost, 0
            return lost

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        with self._changed:
            return self._closed and not self._items

    def close(self) -> None:
        """Nothing more will come; what is here can still be had."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
