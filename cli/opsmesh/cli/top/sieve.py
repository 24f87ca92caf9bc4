"""Which items of a listing a filter lets through, at ten looks a second over thousands of items.

The one rule: an item is looked at once. Items never change; a changed one is another object.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opsmesh.cli.top.filters import Filter
from opsmesh.cli.top.listing import Listing


class Sieve:
    """Remembers what it has let through, of the items that are still there."""

    def __init__(self) -> None:
        self._of: tuple[Listing, Filter] | None = None
        #: By identity; the item is held, so that nothing else can be there in its place.
        self._known: dict[int, tuple[Any, bool]] = {}

    def through(self, listing: Listing, items: Iterable[Any], wanted: Filter) -> Sequence[Any]:
        """The items that are shown, in their order."""
        if not wanted:
            self._of, self._known = None, {}
            return list(items)
        if self._of != (listing, wanted):
            self._of, self._known = (listing, wanted), {}
        before, self._known = self._known, {}
        found = []
        for item in items:
            known = before.get(id(item))
            if known is None:
                lets = wanted.lets(listing.topic(item), lambda one=item: listing.text(one))  # type: ignore[misc]
                known = (item, lets)
            self._known[id(item)] = known
            if known[1]:
                found.append(item)
        return found
