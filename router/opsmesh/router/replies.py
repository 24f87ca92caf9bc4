"""Answers of the broker to what was sent: one inbox, and a future for each answer.

The one rule: every future ends. An answer that does not come in time, or a connection that breaks
meanwhile, ends it with NotAcknowledged: what was sent is then perhaps stored, and perhaps not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from opsmesh.router import wire
from opsmesh.router.errors import NotAcknowledged
from opsmesh.router.wire import Received

#: Seconds between looks at the connection while answers are awaited.
LOOK: Final = 0.05

Reply = asyncio.Future[Received]
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Replies:
    """What is awaited over one connection; `timeout` in seconds is the same for all."""

    def __init__(self, client: Client, *, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._inbox = client.new_inbox()
        self._listening: wire.Listening | None = None
        self._awaited: dict[str, tuple[Reply, float, int]] = {}
        self._tokens = 0
        self._looking = False

    async def ready(self) -> None:
        """Listen. Call it before `expect`; a second call costs nothing."""
        if self._listening is None:
            self._listening = await wire.listen(self._client, f"{self._inbox}.*", self._heard)

    @property
    def is_ready(self) -> bool:
        """Whether answers can be heard."""
        return self._listening is not None

    def expect(self) -> tuple[str, Reply]:
        """A subject for an answer, and what will hold it."""
        self._tokens += 1
        subject = f"{self._inbox}.{self._tokens}"
        loop = asyncio.get_running_loop()
        reply: Reply = loop.create_future()
        reconnects = self._client.stats["reconnects"]
        self._awaited[subject] = (reply, loop.time() + self._timeout, reconnects)
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK, self._look)
        return subject, reply

    def _heard(self, msg: Received) -> None:
        awaited = self._awaited.pop(msg.subject, None)
        if awaited is not None and not awaited[0].done():
            awaited[0].set_result(msg)

    def _look(self) -> None:
        """End what has waited in vain. Those that were sent first are looked at first, and the
        first that may go on waiting ends the look."""
        loop = asyncio.get_running_loop()
        now, reconnects = loop.time(), self._client.stats["reconnects"]
        connected = self._client.is_connected
        for subject, (reply, deadline, before) in list(self._awaited.items()):
            if reply.done():
                error = None
            elif not connected or reconnects != before:
                error = NotAcknowledged("the connection to the broker broke")
            elif now >= deadline:
                error = NotAcknowledged(f"no acknowledgement within {self._timeout:g} s")
            else:
                break
            del self._awaited[subject]
            if error is not None:
                reply.set_exception(error)
        self._looking = bool(self._awaited)
        if self._looking:
            loop.call_later(LOOK, self._look)


def forget(replies: Iterable[Reply]) -> None:
    """Nobody waits for these any more."""
    for reply in replies:
        if not reply.cancel() and not reply.cancelled():
            reply.exception()  # heard: asyncio complains of errors that nobody has asked for


def acknowledgement(msg: Received, stream: str) -> dict[str, Any]:
    """JetStream's answer to a publication: `seq` and `duplicate`, or `error`; NotAcknowledged when
    it is none, or another stream's."""
    if not msg.data:  # 503: no stream listens on the subject, or JetStream is not ready
        raise NotAcknowledged(f"nothing stores {stream}'s subjects at the broker")
    ack = _decode(msg.data)
    if "error" not in ack and ack.get("stream") != stream:
        raise NotAcknowledged(f"stored in {ack.get('stream')}, expected {stream}")
    return ack
