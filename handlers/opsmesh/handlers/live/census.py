"""Which hosts have a profile in force: each handlers process says so itself.

Profile files differ from host to host, and none of them is everybody's. The one rule: who has the
profile answers, who has not is silent; that nobody listens is known at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import TimeoutError as NatsTimeout

from opsmesh.router.errands import HAS
from opsmesh.router.rule import ProfileState

#: Seconds in which answers are gathered.
WINDOW: Final = 0.4
_NOBODY: Final = "503"


class Having(msgspec.Struct, frozen=True, kw_only=True):
    """A host that has a profile in force; `free` runs of it could begin there at once."""

    host: str
    pid: int
    run_on: str
    hash: str
    state: ProfileState
    free: int = 0


class Presence:
    """Says for one profile of this process that it is here."""

    def __init__(self, client: Client, name: str, facts: Callable[[], Having]) -> None:
        self._client = client
        self._subject = f"{HAS}.{name}"
        self._facts = facts
        self._open: Subscription | None = None

    async def start(self) -> None:
        """Answer from now on."""
        self._open = await self._client.subscribe(self._subject, cb=self._answer)

    async def stop(self) -> None:
        """Answer no more."""
        if self._open is not None:
            subscription, self._open = self._open, None
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def _answer(self, message: Msg) -> None:
        await message.respond(msgspec.json.encode(self._facts()))


async def ask(
    client: Client,
    name: str,
    *,
    enough: Callable[[Having], bool] = lambda _: False,
    window_s: float = WINDOW,
) -> list[Having]:
    """Who has the profile in force, by what was answered within `window_s`, or until one answer is
    `enough`."""
    found: list[Having] = []
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    try:
        await client.publish(f"{HAS}.{name}", b"", reply=inbox)
        loop = asyncio.get_running_loop()
        end = loop.time() + window_s
        while (left := end - loop.time()) > 0:
            message = await answers.next_msg(timeout=left)
            if (message.headers or {}).get("Status") == _NOBODY:
                break
            with contextlib.suppress(msgspec.DecodeError):
                one = msgspec.json.decode(message.data, type=Having)
                found.append(one)
                if enough(one):
                    break
    except NatsTimeout:
        pass
    finally:
        await answers.unsubscribe()
    return found
