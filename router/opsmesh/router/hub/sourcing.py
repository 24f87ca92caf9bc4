"""Keeps the streams of a hub and of its leaves joined: sources there, consumers here.

Idempotent, for the agent at every start and for `opsmesh hub` when a host comes or goes. The one
rule: a consumer that is there is left as it is, for it knows what the hub has; a source that goes
and comes back goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig, StreamSource
from nats.js.errors import APIError, NotFoundError

from opsmesh.router import joined
from opsmesh.router.hub import leaf, plan, standing
from opsmesh.router.hub.plan import Plan
from opsmesh.router.joined import Joined
from opsmesh.schemas.envelope import host_token

#: Seconds to wait for the broker's answer.
TIMEOUT = 5.0


async def ensure(client: Client) -> list[str]:
    """What this machine is, hub or leaf or neither, in its streams; those that it changed."""
    hub, member = plan.read(), joined.read()
    changed = [] if hub is None else await sources(client.jetstream(), hub)
    if member is not None and member.hub.kind == "leaf":
        changed += await consumers(client, member)
    return changed


async def sources(js: JetStreamContext, hub: Plan) -> list[str]:
    """The hub's streams source every leaf of the plan, and nobody else; those that now do."""
    changed = []
    for name in leaf.SOURCED:
        wanted = [leaf.source(host, name) for host in hub.leaves]
        config = (await js.stream_info(name)).config
        if _facts(config.sources or ()) == _facts(wanted):
            continue
        await js.update_stream(_with(config, wanted))
        changed.append(name)
    return changed


async def silent(client: Client, hub: Plan, connected: set[str]) -> set[tuple[str, str]]:
    """Each stream and leaf of which nothing comes, though its server is connected (`connected`:
    the hosts by their names in subjects); also where `again` was broken off in its middle."""
    found = set()
    for name in leaf.SOURCED:
        heard = await standing.heard(client, name)
        for host in hub.leaves:
            one = heard.get(leaf.domain(host))
            if host_token(host) in connected and (one is None or not one.connected):
                found.add((name, host))
    return found


async def again(js: JetStreamContext, hub: Plan, stuck: set[tuple[str, str]]) -> None:
    """Have the server ask these leaves anew, now: after tries in vain it waits for up to two
    minutes (2.15.1), and seldom does not notice that a leaf is back. Nothing is lost by it."""
    for name in sorted({stream for stream, _ in stuck}):
        kept = [host for host in hub.leaves if (name, host) not in stuck]
        for hosts in (kept, hub.leaves):
            config = (await js.stream_info(name)).config
            await js.update_stream(_with(config, [leaf.source(host, name) for host in hosts]))


async def consumers(client: Client, member: Joined) -> list[str]:
    """Each stream that the hub sources has the consumer for it; those that had none."""
    made = []
    host, js = member.hub.host, client.jetstream()
    for name in leaf.SOURCED:
        try:
            await js.consumer_info(name, leaf.consumer(host))
            continue
        except NotFoundError:
            pass
        config = leaf.consumer_config(host, name)
        asked = msgspec.json.encode({"stream_name": name, "config": config})
        subject = f"$JS.API.CONSUMER.CREATE.{name}.{leaf.consumer(host)}"
        answer = msgspec.json.decode((await client.request(subject, asked, timeout=TIMEOUT)).data)
        if "error" in answer:
            raise APIError.from_error(answer["error"])
        made.append(name)
    return made


async def forget(js: JetStreamContext, host: str) -> None:
    """A host that has left: nobody is to be fed from here any more."""
    for name in leaf.SOURCED:
        try:
            await js.delete_consumer(name, leaf.consumer(host))
        except NotFoundError:
            continue


def _with(config: StreamConfig, wanted: list[StreamSource]) -> StreamConfig:
    config.sources = wanted
    return config


def _facts(sources: Sequence[StreamSource]) -> set[tuple[object, ...]]:
    return {
        (
            one.name,
            one.external.api if one.external else None,
            one.consumer.name if one.consumer else None,
            one.consumer.deliver_subject if one.consumer else None,
            tuple((t.src, t.dest) for t in one.subject_transforms or ()),
        )
        for one in sources
    }
