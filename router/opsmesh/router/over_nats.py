"""The door for producers that speak NATS and nothing of ours: `ingest.<host>.<topic>`.

A message there is what a line on the ingest socket is: an event, in as few of its fields as there
are, or a CloudEvent in structured mode. It is completed, checked and redacted by this host's agent,
and answered as on the socket. Who publishes to `evt.…` directly has to write whole events, and
nobody looks at them before they are stored.

The one rule: where it was sent is what the sender may send. The topic is that of the subject, the
host this one; what says otherwise in itself is refused. An answer goes to an inbox, and nowhere
else: the broker would let us write anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from opsmesh.router import logs
from opsmesh.router.budget import OVERHEAD, Budget
from opsmesh.router.errors import PermissionDenied
from opsmesh.router.intake import REPLY
from opsmesh.schemas import cloudevents, envelope
from opsmesh.schemas.errors import EnvelopeError, SchemaError

#: What the subjects begin with.
INGEST: Final = "ingest"
#: Where answers may go: an inbox, and what the broker makes of one of another account.
INBOXES: Final = ("_INBOX.", "_R_.")

#: Takes a line as from the ingest socket; the answer to it.
Take = Callable[[bytes, bool], Awaitable[bytes | None]]
#: Keeps what is no event, with the reason.
Refuse = Callable[[bytes, Exception], Awaitable[None]]

log = structlog.get_logger()


def line(data: bytes, *, host: str, topic: str, reply: bool) -> bytes:
    """The message as a line for the agent; `reply`: which asks for an answer. SchemaError for one
    that is none, or another's."""
    raw = envelope.raw_fields(data)
    for key in [name for name in raw if name.startswith("_")]:
        del raw[key]  # what speaks to the agent is for its own clients
    if cloudevents.is_cloudevent(raw):
        raw = cloudevents.from_cloudevent(raw, topic=topic)
    raw.setdefault("topic", topic)
    for name, wanted in (("topic", topic), ("host", host)):
        given = _text(raw.get(name, wanted))
        if given != wanted and not (name == "host" and envelope.host_token(given) == host):
            raise EnvelopeError(f"{name} {given!r} was sent to that of {wanted}", field=name)
    return msgspec.json.encode({**raw, REPLY: True} if reply else raw)


def _text(value: Any) -> str:
    try:
        return value if isinstance(value, str) else str(msgspec.json.decode(value, type=str))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EnvelopeError(str(error)) from error


class OverNats:
    """Takes what is published on this host's subjects, over the agent's connection."""

    def __init__(self, take: Take, refuse: Refuse, *, host: str, budget: Budget) -> None:
        self._take, self._refuse = take, refuse
        self._host = envelope.host_token(host)
        self._budget = budget
        self._client: Client | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._throttle = logs.Throttle()

    async def attach(self, client: Client) -> None:
        """Listen over this connection from now on; nothing for one that is known, or whose
        credentials do not let us."""
        if client is self._client:
            return
        before, self._client = self._client, client
        try:
            await client.subscribe(f"{INGEST}.{self._host}.>", cb=self._heard)
            with contextlib.suppress(NatsError, OSError):  # slow, and subscribed all the same
                await client.flush()  # the broker knows of it
        except PermissionDenied as denied:
            log.info("ingest.not_over_nats", error=str(denied))
        except (NatsError, OSError) as error:  # the connection is gone: again with the next one
            log.warning("ingest.not_over_nats", error=str(error))
            self._client = before

    async def _heard(self, msg: Msg) -> None:
        size = len(msg.data) + OVERHEAD
        await self._budget.take(size)  # in the order of sending: the socket's lines wait, too
        task = asyncio.create_task(self._answer(msg, size))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, msg: Msg, size: int) -> None:
        try:
            answer = await self._taken(msg)
            if answer and msg.reply.startswith(INBOXES) and self._client is not None:
                await self._client.publish(msg.reply, answer)
        except (NatsError, OSError) as error:  # the asker's wait ends, and it sends again
            if self._throttle.allows("unanswered"):
                log.warning("ingest.unanswered", subject=msg.subject, error=str(error))
        finally:
            self._budget.give(size)

    async def _taken(self, msg: Msg) -> bytes | None:
        topic, asked = msg.subject.split(".", 2)[2], bool(msg.reply)
        try:
            taken = line(msg.data, host=self._host, topic=topic, reply=asked)
        except (SchemaError, RecursionError) as wrong:
            if asked:
                return msgspec.json.encode({"ok": False, "error": str(wrong)})
            await self._refuse(msg.data, wrong)
            return None
        return await self._take(taken, False)
