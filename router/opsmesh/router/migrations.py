"""Steps that bring older state to the form of this version, one form at a time.

The one rule: a step may be cut off anywhere and run again. What it did is noted after it, at the
broker with EVENTS last: until that says so, everybody else waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.router import state_format, topology
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS


@dataclass(frozen=True, kw_only=True)
class Migration:
    """From the form before to `to`: `what` it does, for people; what is done at the broker, and to
    the folders of this host."""

    to: int
    what: str
    broker: Callable[[Client, Settings], Awaitable[None]] | None = None
    folders: Callable[[Settings], None] | None = None


#: In their order; the last one leads to `state_format.FORMAT`.
MIGRATIONS: Final[tuple[Migration, ...]] = ()


def pending(mark: int) -> list[Migration]:
    """The steps from a form to this version's."""
    return [one for one in MIGRATIONS if mark < one.to <= state_format.FORMAT]


async def at_broker(client: Client) -> state_format.Mark | None:
    """The form of the broker's streams; None while there are none."""
    try:
        info = await client.jetstream().stream_info(EVENTS)
    except NotFoundError:
        return None
    return state_format.of(info.config.metadata)


async def apply(
    client: Client | None,
    settings: Settings,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Run what is pending, at the broker and here; how many steps that were. Doing it again, or
    beside another host, changes nothing more."""
    done = 0
    if client is not None:
        done += await _at_broker(client, settings, say)
    for one in pending(state_format.local().format):
        say(f"form {one.to} in this host's folders: {one.what}")
        if one.folders is not None:
            one.folders(settings)
        state_format.mark_local(one.to)
        done += 1
    return done


async def _at_broker(client: Client, settings: Settings, say: Callable[[str], None]) -> int:
    mark = await at_broker(client)
    due = pending(mark.format) if mark is not None else []
    for one in due:
        say(f"form {one.to} at the broker: {one.what}")
        if one.broker is not None:
            await one.broker(client, settings)
        await _mark(client, settings, one.to)
    return len(due)


async def _mark(client: Client, settings: Settings, number: int) -> None:
    js = client.jetstream()
    names = [wanted.name or "" for wanted in topology.streams(settings)]
    for name in sorted(names, key=lambda name: name == EVENTS):
        try:
            config = (await js.stream_info(name)).config
        except NotFoundError:
            continue
        metadata = {**(config.metadata or {}), **state_format.metadata_of(number)}
        # what the server itself says of a stream is not for us to set
        ours = {key: value for key, value in metadata.items() if not key.startswith("_nats.")}
        await js.update_stream(replace(config, metadata=ours))
