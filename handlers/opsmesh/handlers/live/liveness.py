"""Who decides for a consumer, as its owner says itself.

No answer has two meanings: nobody listens, or somebody does and hangs.
"""

from __future__ import annotations

from typing import Final

import msgspec
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from opsmesh.handlers.live.owner import presence

#: Seconds that an owner has to answer: one beside a busy machine may need one.
PATIENCE: Final = 2.0


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """An owner's answer: `seq` is what it has noted as decided, and `at_us` when it did; `asks`
    are some of the `asking` runs that wait for a person's answer."""

    host: str
    pid: int
    seq: int
    since_us: int
    at_us: int = 0
    asks: tuple[str, ...] = ()
    asking: int = 0


class Hangs(msgspec.Struct, frozen=True):
    """Somebody owns it, and did not answer in time."""

    patience_s: float


async def owner(
    client: Client, consumer: str, *, patience_s: float = PATIENCE
) -> Alive | Hangs | None:
    """The owner's answer; None when nobody decides for this consumer."""
    try:
        answer = await client.request(presence(consumer), b"", timeout=patience_s)
        return msgspec.json.decode(answer.data, type=Alive)
    except NoRespondersError:
        return None
    except (NatsTimeout, msgspec.DecodeError):
        return Hangs(patience_s)
