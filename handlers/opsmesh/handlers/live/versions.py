"""Which text of a profile was in force from which event on.

A version is written before the first event is decided with it, so that any decision can be made
again from the event and the text of then, also one that was not recorded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.profiles.profile import Profile, from_source
from opsmesh.router import sourced
from opsmesh.router.rule import ProfileState
from opsmesh.router.scan import scan
from opsmesh.router.topology import VERSIONS
from opsmesh.schemas import times

#: Seconds to wait for the broker.
TIMEOUT = 5.0


class Version(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One text in one state on one consumer, from the event `from_seq` of EVENTS on.

    While it is disabled, or removed (`source` is None), nothing is decided. `leaf`, which is not
    stored, tells of which leaf it is where a hub has it: `from_seq` is a sequence there.
    """

    consumer: str
    profile: str
    host: str
    hash: str
    state: ProfileState
    from_seq: int
    at_us: int
    source: dict[str, Any] | None = None
    leaf: str = ""

    def read(self) -> Profile:
        """The profile as it was; ConfigError when this version of opsmesh does not take it."""
        return from_source(self.profile, self.source or {}).with_state(self.state)


async def write(
    client: Client, profile: Profile, *, consumer: str, host: str, from_seq: int
) -> None:
    """Note that `profile` decides from `from_seq` on; the same as the newest is noted once."""
    version = Version(
        consumer=consumer,
        profile=profile.name,
        host=host,
        hash=profile.hash,
        state=profile.state,
        from_seq=from_seq,
        at_us=times.now_us(),
        source=msgspec.to_builtins(dict(profile.source)),
    )
    known = await newest(client, consumer)
    if known is not None and (known.hash, known.state) == (version.hash, version.state):
        return
    await _publish(client, version)


async def removed(client: Client, profile: Profile, *, consumer: str, host: str) -> None:
    """Note that the profile is gone."""
    version = Version(
        consumer=consumer,
        profile=profile.name,
        host=host,
        hash=profile.hash,
        state="disabled",
        from_seq=0,
        at_us=times.now_us(),
    )
    await _publish(client, version)


async def history(client: Client, consumer: str | None = None) -> AsyncIterator[Version]:
    """Every version, oldest first."""
    subjects = [f"ver.{consumer}"] if consumer else None
    async for msg in scan(client, VERSIONS, subjects=subjects):
        version = msgspec.json.decode(msg.data, type=Version)
        there = sourced.origin(msg.headers)
        yield msgspec.structs.replace(version, leaf=there.leaf) if there else version


async def newest_of_all(client: Client) -> AsyncIterator[Version]:
    """The newest version on each consumer."""
    async for msg in scan(client, VERSIONS, subjects=["ver.>"], newest_per_subject=True):
        yield msgspec.json.decode(msg.data, type=Version)


async def newest(client: Client, consumer: str) -> Version | None:
    """The version in force, or the last that was."""
    try:
        found = await client.jetstream(timeout=TIMEOUT).get_last_msg(
            VERSIONS, f"ver.{consumer}", direct=True
        )
    except NotFoundError:
        return None
    return msgspec.json.decode(found.data or b"", type=Version)


async def _publish(client: Client, version: Version) -> None:
    await client.jetstream(timeout=TIMEOUT).publish(
        f"ver.{version.consumer}", msgspec.json.encode(version)
    )
