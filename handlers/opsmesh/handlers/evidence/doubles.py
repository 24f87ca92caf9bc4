"""Is this event in the archive already? The check that reaches further back than the broker's.

The broker drops a second message with the same id for `events.duplicate_window`. What comes later
than that (a spool that was away for hours, a crash) is stored twice, and is found here. The one
rule: the everyday event costs nothing. What was stored under an id that had just been made cannot
have been stored before, so only ids of another age, and ids that tell no time, are looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from opsmesh.handlers.evidence.ids import Ids, id_of
from opsmesh.handlers.evidence.numbering import Stamp
from opsmesh.schemas import ids, times

#: Seconds between an id's time and its event's storing, either way, that are nothing unusual; less
#: where the broker's own window is short.
FRESH: Final = 60.0
#: How far a producer's clock may have been wrong, in microseconds: how much before an id's own time
#: its event is looked for.
CLOCKS: Final = 86_400_000_000
#: Ids that are known to stand for several events; of more, the oldest are forgotten.
MOST_REUSED: Final = 1000


#: A message that is to be archived: its sequence, when it was stored (microseconds), its bytes, and
#: what they say of themselves; None when they are no event.
Stamped = tuple[int, int, bytes, Stamp | None]
#: Whether a line's bytes are of the same message as these, which were stored then.
Same = Callable[[bytes, bytes, int], bool]


@dataclass(frozen=True, kw_only=True)
class Original:
    """The line that holds the event already, or, unless it is the `same`, another event with its
    id. `hash` is the line's; empty when it goes to disk together with its second."""

    id: str
    seq: int
    hash: str
    same: bool


class Doubles:
    """Finds what was archived before; `vigilant_us`: until then nothing counts as fresh."""

    def __init__(self, index: Ids, *, window_s: float, same: Same) -> None:
        self.vigilant_us = 0
        self._index = index
        self._same = same
        self._window_us = round(window_s * 1e6)
        self._fresh_us = round(min(FRESH, window_s / 2) * 1e6)
        self._reused: dict[str, None] = {}
        self._from_us = self._until_us = 0
        self._low = self._high = ""

    def suspicious(self, id: str, stored_us: int) -> bool:
        """Whether the id must be looked up."""
        if not self._from_us <= stored_us < self._until_us:
            self._bounds(stored_us)
        if self._low < id < self._high and id[14:15] == "7" and len(id) == 36:
            return stored_us < self.vigilant_us
        if (made_ms := ids.unix_ms(id)) is not None and id >= self._high:
            # A clock that is ahead: when its time has come, a copy of this event will look fresh.
            ahead_us = min(made_ms * 1000, stored_us + CLOCKS) + self._fresh_us
            self.vigilant_us = max(self.vigilant_us, ahead_us)
        return id not in self._reused

    def watch(self, now_us: int) -> None:
        """Something may be sent again that is as young as the broker's window: let none pass."""
        self.vigilant_us = max(self.vigilant_us, now_us + self._window_us)

    def find(self, suspects: Sequence[Stamped], messages: Sequence[Stamped]) -> dict[int, Original]:
        """The originals of those that have one, by the suspects' sequences. `messages` are all that
        are to be archived together, in order: an original may be among them."""
        wanted = {_id(one): _earliest(_id(one), one[1]) for one in suspects}
        places = self._index.find(wanted)
        stand = {place for found in places.values() for place in found}
        lines = dict(self._index.read(stand)) if stand else {}
        first = {id: one for one in reversed(messages) if (id := _id(one)) in wanted}
        found: dict[int, Original] = {}
        for one in suspects:
            seq, stored_us, data, _ = one
            id = _id(one)
            there = [lines[place] for place in places.get(id, ()) if place in lines]
            candidates = [
                Original(
                    id=id, seq=line.seq, hash=line.hash, same=self._same(line.data, data, stored_us)
                )
                for line in there
                if id_of(line) == id
            ]
            earlier_seq, _, earlier_data, _ = first[id]
            if earlier_seq < seq:
                same = self._same(earlier_data, data, stored_us)
                candidates.append(Original(id=id, seq=earlier_seq, hash="", same=same))
            if not candidates:
                continue
            found[seq] = next((c for c in candidates if c.same), candidates[0])
            if not found[seq].same:
                self._remember(id)
        return found

    def _remember(self, id: str) -> None:
        self._reused[id] = None
        if len(self._reused) > MOST_REUSED:
            del self._reused[next(iter(self._reused))]

    def _bounds(self, stored_us: int) -> None:
        step = max(self._fresh_us // 8, 1000)
        self._from_us, self._until_us = stored_us, stored_us + step
        self._low = _prefix(stored_us + step - self._fresh_us)
        self._high = _prefix(stored_us + self._fresh_us)


def _id(one: Stamped) -> str:
    stamp = one[3]
    return stamp.id if stamp is not None else ""


def _earliest(id: str, stored_us: int) -> str:
    """The first day on which an event may have been stored before; empty for any."""
    made_ms = ids.unix_ms(id)
    if made_ms is None:
        return ""
    return times.format_us(max(min(made_ms * 1000, stored_us) - CLOCKS, 0))[:10]


def _prefix(us: int) -> str:
    """How ids of this time begin."""
    text = f"{max(us, 0) // 1000:012x}"
    return f"{text[:8]}-{text[8:]}"
