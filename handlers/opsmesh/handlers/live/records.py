"""Decision records: what every profile decided about every event it was shown, and why.

What nothing but the event and the profile's text decided is not written: it is decided again when
somebody asks (ADR 0007). Firings lie in a stream of their own, and are kept longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
from nats.aio.client import Client

from opsmesh.router import sourced
from opsmesh.router.decide import Decision
from opsmesh.router.publish import Message, Publisher
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.topology import DECISIONS, FIRINGS
from opsmesh.router.wire import Received
from opsmesh.schemas.envelope import host_token

#: The header that holds how long deciding took: not part of the decision, which has to be the same
#: bytes wherever it is made.
TOOK = "Opsmesh-Took-Us"
#: The header that holds for which consumer it was made: a candidate may have the active one's text.
CONSUMER = "Opsmesh-Consumer"

_decode = msgspec.json.Decoder(Decision).decode


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded decision; `data` are its bytes, `took_us` what it cost to make, `consumer` whose
    decision it is, and `leaf` of which leaf, where a hub has it from one."""

    decision: Decision
    data: bytes
    took_us: float
    stored_us: int
    consumer: str = ""
    leaf: str = ""


class Recorder:
    """Writes to DECISIONS (`dec.<profile>.<host>`) and FIRINGS (`fir.<profile>.<host>`)."""

    def __init__(self, client: Client) -> None:
        self._quiet = Publisher(client, stream=DECISIONS)
        self._firings = Publisher(client, stream=FIRINGS)

    async def write(self, consumer: str, decisions: Sequence[tuple[Decision, float]]) -> None:
        """Returns when all that are not derivable are stored; raises NotAcknowledged. Writing the
        same ones again is harmless."""
        quiet: list[Message] = []
        firings: list[Message] = []
        for decision, took_us in decisions:
            if not decision.derivable:
                message = _message(consumer, decision, took_us)
                (firings if decision.fires else quiet).append(message)
        await asyncio.gather(self._quiet.publish_all(quiet), self._firings.publish_all(firings))


def _message(consumer: str, decision: Decision, took_us: float) -> Message:
    kind = "fir" if decision.fires else "dec"
    about = decision.timer or "event"
    return Message(
        f"{kind}.{decision.profile}.{host_token(decision.host)}",
        decision.encode(),
        f"{consumer}:{decision.event_seq}:{about}:{decision.at_us}:{decision.profile_hash}",
        {TOOK: f"{took_us:.1f}", CONSUMER: consumer},
    )


async def records(
    client: Client,
    *,
    profile: str | None = None,
    firings: bool | None = None,
    since_us: int | None = None,
) -> AsyncIterator[Record]:
    """Recorded decisions, oldest first: of one profile or all; firings alone, or all but firings.

    Without `firings` the quiet ones come first, and then the firings.
    """
    streams = {None: ((DECISIONS, "dec"), (FIRINGS, "fir")), True: ((FIRINGS, "fir"),)}
    for stream, kind in streams.get(firings, ((DECISIONS, "dec"),)):
        subjects = [f"{kind}.{profile}.>"] if profile else None
        async for msg in scan(client, stream, subjects=subjects, since_us=since_us):
            found = read(msg)
            if found is not None:
                yield found


def read(msg: Received) -> Record | None:
    """The record in a message; None for one that this version cannot read."""
    try:
        decision = _decode(msg.data)
    except msgspec.DecodeError:
        return None
    headers = msg.headers or {}
    there = sourced.origin(headers)
    return Record(
        decision=decision,
        data=msg.data,
        took_us=float(headers.get(TOOK, "0")),
        stored_us=delivery(msg.reply).timestamp_ns // 1000,
        consumer=headers.get(CONSUMER, ""),
        leaf=there.leaf if there else "",
    )
