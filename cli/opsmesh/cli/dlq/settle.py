"""Letters sent again or given up: recorded first, then done, then taken out, in this order.

The one rule: everything may be done twice. Record and trigger have ids derived from the letter, so
that a command that was cut off, and two people at once, leave one record and one run; a letter that
somebody else has taken out meanwhile is passed over. Many letters go together: a step of each, in
one batch, before the next step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from nats.aio.client import Client

from opsmesh.cli.said import new_event, person
from opsmesh.router import deadletter, redaction, trigger
from opsmesh.router.deadletter import Letter
from opsmesh.router.publish import Publisher
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS, TRIGGERS
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import Event, decode, encode, subject
from opsmesh.schemas.errors import SchemaError

#: Letters that are settled together; with the largest events they take a quarter of a gigabyte.
CHUNK: Final = 256
#: Letters of lines that never became an event; no profile can be handed them.
INGEST: Final = "ingest"

Act = Literal["retry", "drop"]
_TOPICS: Final[dict[Act, str]] = {
    "retry": "automation.deadletter.redriven",
    "drop": "automation.deadletter.dropped",
}


@dataclass(frozen=True)
class Refused:
    """A letter that cannot be sent again as it is."""

    letter: Letter
    why: str
    hint: str


@dataclass
class Settled:
    """What has been done so far; `gone` were taken out by somebody else meanwhile."""

    wanted: int
    done: list[Letter] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)


async def settle(
    client: Client,
    settings: Settings,
    seqs: Sequence[int],
    act: Act,
    *,
    comment: str = "",
    refuse: Callable[[Letter], Refused | None] = lambda letter: None,
    so_far: Settled,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Settle these letters, the oldest first; `so_far` tells what is done also when this ends with
    an exception."""
    work = _Work(client, settings, act, comment)
    for chunk in _chunks(seqs):
        letters = await deadletter.get_all(client, chunk)
        so_far.gone += sorted(set(chunk) - {letter.seq for letter in letters})
        able = []
        for letter in letters:
            no = (unfit(letter) or refuse(letter)) if act == "retry" else None
            if no is None:
                able.append(letter)
            else:
                so_far.refused.append(no)
        await work.carry_out(able)
        so_far.done += able
        progress(len(so_far.done) + len(so_far.refused) + len(so_far.gone))


def unfit(letter: Letter) -> Refused | None:
    """Why no profile can be handed this letter; None when one can."""
    show = f"read it: opsmesh dlq show {letter.seq} --raw; then opsmesh dlq drop {letter.seq}"
    if letter.profile == INGEST:
        why = "never became an event, and no profile can be handed it"
        return Refused(letter, why, f"{show}, and emit it mended")
    if not letter.profile:
        return Refused(letter, "names no profile; it was not written by opsmesh", show)
    if not letter.data:
        return Refused(
            letter,
            "its event had left the stream before the run began, and is not in the letter",
            f"opsmesh evidence find {letter.event_id}; then opsmesh dlq drop {letter.seq}",
        )
    try:
        decode(letter.data)
    except SchemaError as error:
        return Refused(letter, f"is no event: {error}", show)
    return None


class _Work:
    """One command's way of settling letters."""

    def __init__(self, client: Client, settings: Settings, act: Act, comment: str) -> None:
        self._client = client
        self._settings = settings
        self._act: Act = act
        self._comment = comment
        self._person = person()
        self._redactor = redaction.load(settings)
        self._events = Publisher(client, stream=EVENTS)
        self._triggers = Publisher(client, stream=TRIGGERS)

    async def carry_out(self, letters: Sequence[Letter]) -> None:
        await _all(self._record(letter) for letter in letters)
        if self._act == "retry":
            await _all(self._trigger(letter) for letter in letters)
        await deadletter.remove_all(self._client, [letter.seq for letter in letters])

    async def _record(self, letter: Letter) -> None:
        topic = _TOPICS[self._act]
        payload: dict[str, Any] = {
            "profile": letter.profile,
            "dlq_seq": letter.seq,
            "trigger_topic": letter.topic,
            "trigger_id": letter.event_id or None,
            "by": self._person,
            "reason": self._comment or None,
        }
        event = new_event(
            self._settings,
            topic,
            {name: value for name, value in payload.items() if value is not None},
            cause=_event(letter),
            event_id=ids.derived(letter.stored_us // 1000, topic, str(letter.seq)),
        )
        data, _ = self._redactor.event(encode(event))
        await self._events.publish(subject(event.host, topic), data, msg_id=event.id)

    async def _trigger(self, letter: Letter) -> None:
        origin = (letter.origin, letter.origin_seq, letter.origin_us) if letter.origin else None
        again = trigger.Trigger(
            kind="redrive",
            id=ids.derived(letter.stored_us // 1000, "redrive", str(letter.seq)),
            origin=origin,
            events=letter.events,
        )
        await trigger.publish(self._triggers, letter.profile, letter.data, again)


def _event(letter: Letter) -> Event | None:
    stored = (letter.origin, letter.origin_seq, letter.origin_us) if letter.origin else None
    try:
        return decode(letter.data, stored=stored)
    except SchemaError:
        return None


async def _all(calls: Iterable[Any]) -> None:
    """Every call to its end, then the first error: nothing is still under way when it is raised."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _chunks(seqs: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(seqs), CHUNK):
        yield seqs[start : start + CHUNK]
