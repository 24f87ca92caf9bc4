"""Turns: how many at once for each key, and who is next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import eventually, run

from opsmesh.handlers.runs.concurrency import Turns


class Visitor:
    """A task that holds a turn until it is told to go."""

    def __init__(self, turns: Turns, key: str, *, note: Callable[[Visitor], None]) -> None:
        self.key = key
        self.inside = False
        self._note = note
        self._go = asyncio.Event()
        self.task = asyncio.create_task(self._visit(turns))

    async def _visit(self, turns: Turns) -> None:
        async with turns.turn(self.key):
            self.inside = True
            self._note(self)
            try:
                await self._go.wait()
            finally:
                self.inside = False

    async def leave(self) -> None:
        self._go.set()
        await self.task


class Room:
    """Turns, who has one, and in which order they came in."""

    def __init__(self, limit: int) -> None:
        self.turns = Turns(limit)
        self.entered: list[Visitor] = []
        self.visitors: list[Visitor] = []

    async def arrive(self, key: str = "") -> Visitor:
        visitor = Visitor(self.turns, key, note=self.entered.append)
        self.visitors.append(visitor)
        await settle()
        return visitor

    def inside(self, key: str = "") -> list[Visitor]:
        return [v for v in self.visitors if v.inside and v.key == key]


async def settle() -> None:
    """Until every task has gone as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_as_many_as_the_limit(limit: int) -> None:
    """At most `limit` have a turn at once, and the next comes in when one leaves."""

    async def body() -> None:
        room = Room(limit)
        visitors = [await room.arrive() for _ in range(limit + 2)]
        assert room.inside() == visitors[:limit]
        await visitors[0].leave()
        await eventually(lambda: room.inside() == visitors[1 : limit + 1])
        for visitor in visitors[1:]:
            await visitor.leave()

    run(body())


def test_first_come_first_served() -> None:
    """Turns are given in the order in which they were asked for."""

    async def body() -> None:
        room = Room(1)
        visitors = [await room.arrive() for _ in range(20)]
        for visitor in visitors:
            await eventually(lambda visitor=visitor: visitor.inside)
            await visitor.leave()
        assert room.entered == visitors

    run(body())


def test_keys_do_not_wait_for_one_another() -> None:
    """Each key has turns of its own."""

    async def body() -> None:
        room = Room(1)
        first, second, third = [await room.arrive(key) for key in "xxy"]
        assert (first.inside, second.inside, third.inside) == (True, False, True)
        await third.leave()
        assert not second.inside
        await first.leave()
        await eventually(lambda: second.inside)
        await second.leave()

    run(body())


def test_who_gives_up_takes_no_turn() -> None:
    """A cancelled wait leaves the queue, wherever it stood; those behind it move up."""

    async def body() -> None:
        room = Room(1)
        visitors = [await room.arrive() for _ in range(4)]
        for gone in visitors[1:3]:
            gone.task.cancel()
        await settle()
        await visitors[0].leave()
        await eventually(lambda: visitors[3].inside)
        assert room.entered == [visitors[0], visitors[3]]
        await visitors[3].leave()
        assert (await room.arrive()).inside

    run(body())


def test_cancelled_when_the_turn_has_just_come() -> None:
    """A turn that was given to a wait which is cancelled at that moment goes to the next."""

    async def body() -> None:
        room = Room(1)
        first, second, third = [await room.arrive() for _ in range(3)]
        first._go.set()
        await asyncio.sleep(0)  # `first` leaves, and `second` has its turn without knowing it
        second.task.cancel()
        await eventually(lambda: third.inside)
        assert room.entered == [first, third]
        await third.leave()
        assert (await room.arrive()).inside

    run(body())


def test_a_failure_gives_its_turn_back() -> None:
    """Whoever ends with an error, or is cancelled inside, has left."""

    async def body() -> None:
        turns = Turns(1)
        with pytest.raises(ZeroDivisionError):
            async with turns.turn("k"):
                raise ZeroDivisionError
        room = Room(1)
        first, second = [await room.arrive() for _ in range(2)]
        first.task.cancel()
        await eventually(lambda: second.inside)
        await second.leave()
        async with turns.turn("k"):
            pass

    run(body())


def test_another_limit() -> None:
    """A higher limit lets those who wait in; with a lower one nobody new comes before it fits."""

    async def body() -> None:
        room = Room(1)
        visitors = [await room.arrive() for _ in range(5)]
        room.turns.change(3)
        await eventually(lambda: room.inside() == visitors[:3])
        room.turns.change(1)
        await settle()
        assert room.inside() == visitors[:3]
        for gone, left in ((0, 2), (1, 1)):
            await visitors[gone].leave()
            await settle()
            assert len(room.inside()) == left
        await visitors[2].leave()
        await eventually(lambda: room.inside() == [visitors[3]])

    run(body())


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(
            st.sampled_from(("arrive", "arrive", "leave", "cancel", "change")),
            st.integers(0, 2**32),
        ),
        max_size=30,
    ),
)
def test_any_coming_and_going(limit: int, script: list[tuple[str, int]]) -> None:
    """Whatever happens, never more than the limit come in, and nobody waits while there is room."""

    async def body() -> None:
        room, most = Room(limit), limit
        for what, seed in script:
            rng = Random(seed)
            before = {key: len(room.inside(key)) for key in "xy"}
            here = [v for v in room.visitors if not v.task.done()]
            if what == "arrive":
                await room.arrive(rng.choice("xy"))
            elif what == "change":
                most = rng.randint(1, 3)
                room.turns.change(most)
            elif here:
                visitor = rng.choice(here)
                if what == "leave" and visitor.inside:
                    await visitor.leave()
                elif what == "cancel":
                    visitor.task.cancel()
            await settle()
            for key in "xy":
                waiting = [
                    v for v in room.visitors if v.key == key and not v.inside and not v.task.done()
                ]
                assert not waiting or len(room.inside(key)) >= most
                assert len(room.inside(key)) <= max(most, before[key])
            order = [room.visitors.index(v) for v in room.entered if v.key == "x"]
            assert order == sorted(order)
        for visitor in room.visitors:
            visitor.task.cancel()
        await asyncio.gather(*(v.task for v in room.visitors), return_exceptions=True)

    run(body())


def test_a_turn_that_is_taken() -> None:
    """A turn is taken at once or not at all, never before somebody who waits, and is held like any
    other."""

    async def body() -> None:
        turns = Turns(1)
        assert turns.take("k")
        assert not turns.take("k")
        assert turns.take("other")
        room = Room(1)
        assert room.turns.take("")
        visitor = await room.arrive()
        assert not visitor.inside
        async with room.turns.turn("", taken=True):
            assert not visitor.inside
        await eventually(lambda: visitor.inside)
        assert not room.turns.take("")
        await visitor.leave()
        assert room.turns.take("")

    run(body())
