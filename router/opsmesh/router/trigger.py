"""Events sent to one profile: by hand, by another's step, a redriven dead letter, a live replay.

They travel on the work queue TRIGGERS (`trg.<profile>`, and `trg.<profile>.<host>` once it is known
which host has to act), so that no other profile sees them and the event is not stored twice in
EVENTS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

import msgspec
from nats.aio.client import Client

from opsmesh.router.decide import EventRef
from opsmesh.router.publish import Publisher
from opsmesh.schemas.envelope import host_token

Kind = Literal["manual", "redrive", "replay", "step"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

KIND: Final = "Opsmesh-Trigger"
ID: Final = "Opsmesh-Trigger-Id"
ORIGIN: Final = "Opsmesh-Origin"
REFS: Final = "Opsmesh-Events"
#: Seconds to wait for the broker.
TIMEOUT: Final = 5.0


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """Why one profile is handed one event. A manual trigger and a redrive always run; a replay is
    decided like the event itself was, and what a step of another profile asks for runs unless the
    profile is disabled or in shadow, or the event is too many hops away. `origin` is the (stream,
    sequence, microseconds) it had, and `events` are all of a firing that was about several."""

    kind: Kind
    id: str
    origin: tuple[str, int, int] | None = None
    events: tuple[EventRef, ...] = ()

    def headers(self) -> dict[str, str]:
        """The headers that carry it; the id makes sending it twice harmless."""
        origin = {ORIGIN: ",".join(map(str, self.origin))} if self.origin else {}
        events = {REFS: msgspec.json.encode(self.events).decode()} if self.events else {}
        return {KIND: self.kind, ID: self.id, "Nats-Msg-Id": self.id, **origin, **events}


def read(headers: Mapping[str, str]) -> Trigger:
    """The trigger that a message of TRIGGERS carries."""
    stream, seq, us = ([*headers.get(ORIGIN, "").split(","), "", ""])[:3]
    origin = (stream, int(seq), int(us)) if seq.isdigit() and us.isdigit() else None
    known: Kind = next((kind for kind in KINDS if kind == headers.get(KIND)), "manual")
    events = msgspec.json.decode(headers.get(REFS, "[]"), type=tuple[EventRef, ...])
    return Trigger(kind=known, id=headers.get(ID, ""), origin=origin, events=events)


async def send(client: Client, profile: str, data: bytes, trigger: Trigger) -> int:
    """Store the trigger durably; its sequence in TRIGGERS."""
    ack = await client.jetstream(timeout=TIMEOUT).publish(
        f"trg.{profile}", data, headers=trigger.headers()
    )
    return ack.seq


async def hand_on(
    client: Client,
    profile: str,
    host: str,
    data: bytes,
    headers: Mapping[str, str],
    *,
    seq: int,
    stored_us: int,
) -> None:
    """Store a trigger for one host alone; `seq` and `stored_us` are its place until now. Handing it
    on twice is harmless."""
    asked = read(headers)
    if asked.origin is None:
        origin = ("TRIGGERS", seq, stored_us)
        asked = msgspec.structs.replace(asked, origin=origin)
    id = f"{asked.id}:{host_token(host)}:{seq}"
    await client.jetstream(timeout=TIMEOUT).publish(
        f"trg.{profile}.{host_token(host)}",
        data,
        headers={**headers, **asked.headers(), "Nats-Msg-Id": id},
    )


async def publish(publisher: Publisher, profile: str, data: bytes, trigger: Trigger) -> None:
    """The same through a publisher of TRIGGERS, for many: they go in batches."""
    headers = {k: v for k, v in trigger.headers().items() if k != "Nats-Msg-Id"}
    await publisher.publish(f"trg.{profile}", data, msg_id=trigger.id, headers=headers)
