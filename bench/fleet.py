"""Many thin hosts that publish, and many leaf hosts that a hub sources.

Thin hosts are raw connections (`hosts.py`): all that the hub sees of one. Leaf hosts are real
nats-servers with a domain and a stream of their own, joined to the hub as `opsmesh join` joins
them, without credentials.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import nats
from nats.aio.client import Client
from nats.js.api import StreamConfig

import servers
from figure import FigureError, percentile
from hosts import Host, hosts
from opsmesh.router import topology
from opsmesh.router.hub import leaf
from opsmesh.router.publish import Message, Publisher
from servers import Server
from walls import EVENT, STILL, Row, mesh

#: Seconds of a measurement.
SECONDS: Final = 8.0
#: Events of a leaf that the hub has to bring in.
EACH: Final = 500
#: Seconds for the hub to have them.
PATIENCE: Final = 110.0


async def hub(folder: Path) -> AsyncIterator[Row]:
    """Hosts that publish one event after the other, each as fast as it is acknowledged."""
    for count in (1, 10, 100, 1_000, 5_000):
        with servers.single(folder / str(count)) as one:
            async with mesh(one), hosts(count, [one.port]) as all_hosts:
                yield {"hosts": count, **await _load(all_hosts, [one])}


async def cluster(folder: Path) -> AsyncIterator[Row]:
    """The same at a hub of three nodes, three replicas, the hosts spread over them."""
    for count in (1, 10, 100, 1_000, 5_000):
        with servers.three(folder / str(count)) as nodes:
            ports = [one.port for one in nodes]
            async with mesh(*nodes, replicas=3), hosts(count, ports) as all_hosts:
                yield {"hosts": count, **await _load(all_hosts, nodes)}


async def shards(folder: Path) -> AsyncIterator[Row]:
    """A thousand hosts that publish as fast as they are acknowledged, over more and more streams of
    one server: what is gained when EVENTS is divided."""
    for count in (1, 2, 4, 8):
        with servers.single(folder / str(count)) as one:
            client = await nats.connect(one.url)
            roots = [f"evt{n}" for n in range(count)]
            for root in roots:
                stream = StreamConfig(name=root.upper(), subjects=[f"{root}.>"], allow_direct=True)
                await client.jetstream().add_stream(stream)
            async with hosts(1_000, [one.port], roots=roots) as all_hosts:
                yield {"streams": count, **await _load(all_hosts, [one])}
            await client.close()


async def everyday(folder: Path) -> AsyncIterator[Row]:
    """As many hosts as one process here holds, each with an event every half a minute on average,
    while an archive reads all of it."""
    for count in (1_000, 5_000, 15_000):
        with servers.single(folder / str(count)) as one:
            async with mesh(one) as client, hosts(count, [one.port]) as all_hosts:
                read = await _archive(client)
                yield {"hosts": count, **await _now_and_then(all_hosts, one, read)}


async def leaves(folder: Path) -> AsyncIterator[Row]:
    """Leaf hosts: what each costs the hub, how fast it has what they have, and how soon it goes on
    after kill -9."""
    for count in (5, 20, 60):
        hub_port = servers.ports(1)[0]
        listen = {"listen": f"{servers.LOOPBACK}:{hub_port}"}
        hub = servers.make(folder / f"{count}-hub", "hub", domain="hub", leafnodes=listen)
        names = [f"l{n}" for n in range(count)]
        below = [
            servers.make(
                folder / f"{count}-{name}", name, domain=name, leafnodes=_remote(hub_port, name)
            )
            for name in names
        ]
        with servers.running([hub, *below]):
            yield {"leaves": count, **await _sourced(hub, dict(zip(names, below, strict=True)))}


def _remote(port: int, name: str) -> dict[str, Any]:
    urls = [f"nats-leaf://{servers.LOOPBACK}:{port}"]
    # without credentials nothing else keeps the hub's own subjects from crossing
    return {"remotes": [{"urls": urls, "deny_imports": leaf.refused(name), "deny_exports": _KEPT}]}


_KEPT: Final = ["evt.>", "dec.>", "fir.>", "ver.>", "dlq.>", "$KV.>", "$JS.API.>"]


async def _load(all_hosts: Sequence[Host], nodes: Sequence[Server]) -> Row:
    took: list[float] = []
    until = time.monotonic() + SECONDS
    cpu = sum(one.cpu_s for one in nodes)

    async def one(host: Host) -> None:
        while time.monotonic() < until:
            took.append(await host.publish("topic_3", EVENT))

    began = time.monotonic()
    await asyncio.gather(*(one(host) for host in all_hosts))
    seconds = time.monotonic() - began
    return {
        "events_per_s": round(len(took) / seconds),
        "p50_ms": round(percentile(took, 0.5) * 1000, 1),
        "p99_ms": round(percentile(took, 0.99) * 1000, 1),
        "server_us_an_event": round((sum(o.cpu_s for o in nodes) - cpu) * 1e6 / len(took)),
    }


async def _now_and_then(all_hosts: Sequence[Host], one: Server, read: list[int]) -> Row:
    took: list[float] = []
    until = time.monotonic() + 3 * SECONDS
    cpu, began = one.cpu_s, time.monotonic()

    async def sometimes(host: Host) -> None:
        while True:
            await asyncio.sleep(random.expovariate(1 / 30))
            if time.monotonic() > until:
                return
            took.append(await host.publish(f"topic_{random.randrange(10)}", EVENT))

    tasks = [asyncio.create_task(sometimes(host)) for host in all_hosts]
    await asyncio.sleep(3 * SECONDS)
    for task in tasks:
        if not task.done():
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    seconds = time.monotonic() - began
    return {
        "events_per_s": round(len(took) / seconds),
        "p50_ms": round(percentile(took, 0.5) * 1000, 1),
        "p99_ms": round(percentile(took, 0.99) * 1000, 1),
        "cpu_percent": round((one.cpu_s - cpu) / seconds * 100),
        "rss_mb": round(one.rss_mb),
        "archived": len(read) >= len(took) - 5,
    }


async def _archive(client: Client) -> list[int]:
    """Reads everything, as a sink does; what it has read."""
    read: list[int] = []

    async def heard(message: Any) -> None:
        read.append(len(message.data))

    await client.jetstream().subscribe("evt.>", cb=heard, ordered_consumer=True)
    return read


async def _sourced(hub: Server, below: dict[str, Server]) -> Row:
    for name, one in below.items():
        async with mesh(one) as client:
            config = leaf.consumer_config(name, topology.EVENTS)
            asked = msgspec.json.encode({"stream_name": topology.EVENTS, "config": config})
            subject = f"$JS.API.CONSUMER.CREATE.{topology.EVENTS}.{leaf.consumer(name)}"
            answer = msgspec.json.decode((await client.request(subject, asked, timeout=10)).data)
            if "error" in answer:
                raise FigureError(f"no consumer at {name}: {answer['error']}")
            await Publisher(client).publish_all(
                Message(f"evt.{name}.load.test", EVENT, f"{name}-{n}") for n in range(EACH)
            )
    async with mesh(hub) as client:
        js = client.jetstream(timeout=30)
        before, wanted = hub.rss_mb, (await js.stream_info(topology.EVENTS)).config
        wanted.sources = [leaf.source(name, topology.EVENTS) for name in below]
        began = time.monotonic()
        await js.update_stream(wanted)
        total = EACH * len(below)
        await _has(client, total)
        caught_up = time.monotonic() - began
        await asyncio.sleep(1)
        cpu = (hub.cpu_s, sum(one.cpu_s for one in below.values()))
        await asyncio.sleep(STILL)
        idle = (hub.cpu_s - cpu[0], sum(one.cpu_s for one in below.values()) - cpu[1])
        grown = hub.rss_mb - before
    for name, one in below.items():
        client = await nats.connect(one.url)
        hub.kill() if hub.process else None
        message = Message(f"evt.{name}.load.test", EVENT, f"{name}-after")
        await Publisher(client).publish_all([message])
        await client.close()
    began = time.monotonic()
    hub.begin()
    hub.serve()
    client = await nats.connect(hub.url)
    await _has(client, total + len(below))
    resumed = time.monotonic() - began
    await client.close()
    return {
        "hub_kb_each": round(grown * 1024 / len(below)),
        "leaf_rss_mb": round(sum(one.rss_mb for one in below.values()) / len(below), 1),
        "events_per_s": round(total / caught_up),
        "hub_idle_cpu_percent": round(idle[0] / STILL * 100, 1),
        "leaf_idle_cpu_percent": round(idle[1] / STILL / len(below) * 100, 2),
        "resumed_after_kill_s": round(resumed, 1),
    }


async def _has(client: Client, count: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        info = await client.jetstream(timeout=30).stream_info(topology.EVENTS)
        if info.state.messages >= count:
            return
        if time.monotonic() > until:
            raise FigureError(f"{info.state.messages} of {count} within {PATIENCE:g} s")
        await asyncio.sleep(0.1)
