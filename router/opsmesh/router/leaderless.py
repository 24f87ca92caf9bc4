"""JetStream's API while nobody takes requests for it: a cluster that has to choose a leader.

The one rule: only what nobody has heard is said again, so nothing is done twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js.errors import ServiceUnavailableError

#: Seconds that a command waits; a cluster chooses a leader in four to nine (docs/cluster.md).
PATIENCE = 8.0
#: Seconds between two requests.
AGAIN = 0.5


class NobodyLeads(ServiceUnavailableError):
    """Nobody takes such requests, for longer than a cluster takes to choose a leader."""

    def __init__(self, subject: str) -> None:
        super().__init__(code=503)
        self.subject = subject

    def __str__(self) -> str:
        return (
            f"nobody takes {self.subject}: JetStream is off, or no node of the cluster leads it "
            f"(waited {PATIENCE:g} s)"
        )


async def asked(subject: str, request: Callable[[], Awaitable[Msg]]) -> Msg:
    """The answer to a `request` to this subject; NobodyLeads when there is nobody for PATIENCE.

    A read that any replica answers (`DIRECT`) is not said again: nobody takes it for a stream that
    is not there.
    """
    api = subject.startswith("$JS.") and ".API." in subject and ".API.DIRECT." not in subject
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await request()
        except NoRespondersError:
            if not api:
                raise
            if time.monotonic() > deadline:
                raise NobodyLeads(subject) from None
        await asyncio.sleep(AGAIN)
