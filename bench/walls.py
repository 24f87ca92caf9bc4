"""What one broker holds: connections, consumers, subjects, keys, streams; each in growing amounts.

Every function yields rows: an amount, and what was seen at it. What is measured is the server's
process (memory, processor time) and the time that a request takes.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import nats
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig

import servers
from hosts import hosts
from opsmesh.router import topology
from opsmesh.router.hub import node_certificates
from opsmesh.router.kv import Bucket, Put
from opsmesh.router.publish import Message, Publisher
from opsmesh.router.settings import Events, Settings
from servers import Server

Row = dict[str, Any]
#: Seconds for which processor time is counted while nothing happens.
STILL: Final = 5.0
#: Bytes of an event, about as many as ours have.
EVENT: Final = b'{"topic":"load.test","payload":{"text":"' + b"x" * 380 + b'"}}'
#: Topics that each host speaks of.
TOPICS: Final = 10
#: Requests of which the middle one is told.
TRIES: Final = 15


async def connections(folder: Path) -> AsyncIterator[Row]:
    """Connections of thin hosts, plain, that are silent."""
    for count in (100, 1_000, 5_000, 15_000):
        with servers.single(folder / str(count)) as one:
            before = one.rss_mb
            began = time.monotonic()
            async with hosts(count, [one.port]):
                took = time.monotonic() - began
                yield {
                    "connections": count,
                    "opened_per_s": round(count / took),
                    "kb_each": round((one.rss_mb - before) * 1024 / count, 1),
                    "rss_mb": round(one.rss_mb),
                    "idle_cpu_percent": await _idle(one),
                }


async def tls_connections(folder: Path) -> AsyncIterator[Row]:
    """The same with mutual TLS: what a hub's restart asks of it. The hosts' half of each handshake
    is made on this machine, too."""
    ca, own = node_certificates.make("scale", dict.fromkeys(("hub", "host"), servers.LOOPBACK))
    for name, data in {"ca": ca, **own}.items():
        (folder / f"{name}.pem").write_bytes(data)
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "host.pem")
    hub = str(folder / "hub.pem")
    tls = {"cert_file": hub, "key_file": hub, "ca_file": str(folder / "ca.pem"), "verify": True}
    # nats-server says INFO before TLS, unless it is told that TLS comes first
    first = {**tls, "handshake_first": True, "timeout": 30}
    for count in (100, 1_000, 3_000):
        with servers.single(folder / str(count), tls=first) as one:
            before, cpu = one.rss_mb, one.cpu_s
            began = time.monotonic()
            async with hosts(count, [one.port], tls=context):
                took = time.monotonic() - began
                yield {
                    "connections": count,
                    "handshakes_per_s": round(count / took),
                    "server_ms_each": round((one.cpu_s - cpu) * 1000 / count, 2),
                    "kb_each": round((one.rss_mb - before) * 1024 / count, 1),
                }


async def consumers(folder: Path) -> AsyncIterator[Row]:
    """Durable consumers of EVENTS as profiles have them, each of a topic of its own."""
    with servers.single(folder) as one:
        async with mesh(one) as client:
            publisher, js = Publisher(client), client.jetstream(timeout=30)
            await publisher.publish_all(_events(2_000, "seed"))
            made, before = 0, one.rss_mb
            for count in (0, 100, 1_000, 3_000, 9_000):
                began = time.monotonic()
                for start in range(made, count, 100):
                    several = range(start, min(count, start + 100))
                    await asyncio.gather(*(js.add_consumer("EVENTS", _reader(n)) for n in several))
                took, new, made = time.monotonic() - began, count - made, count
                yield {
                    "consumers": count,
                    "made_per_s": round(new / took) if new else None,
                    "kb_each": round((one.rss_mb - before) * 1024 / count, 1) if count else None,
                    "singles_per_s": await _singles(publisher, 500, f"s{count}"),
                    "batched_per_s": await _batched(publisher, 10_000, f"b{count}"),
                    "idle_cpu_percent": await _idle(one),
                }


async def subjects(folder: Path) -> AsyncIterator[Row]:
    """Subjects of EVENTS: hosts times topics, one event each."""
    with servers.single(folder) as one:
        async with mesh(one) as client:
            publisher, js = Publisher(client), client.jetstream(timeout=60)
            stored, before = 0, one.rss_mb
            for count in (1_000, 10_000, 100_000, 500_000):
                await _fill(publisher, stored, count)
                stored = count
                middle = f"evt.h{count // TOPICS // 2}.topic_3"

                async def last(subject: str = middle) -> None:
                    await js.get_last_msg("EVENTS", subject, direct=True)

                async def wide() -> None:
                    made = await js.add_consumer("EVENTS", _reader(3, durable=False))
                    await js.delete_consumer("EVENTS", made.name)

                row = {
                    "subjects": count,
                    "hosts": count // TOPICS,
                    "bytes_each": round((one.rss_mb - before) * 2**20 / count),
                    "rss_mb": round(one.rss_mb),
                    "last_of_subject_ms": await _middle(last),
                    "consumer_of_topic_ms": await _middle(wide),
                    "singles_per_s": await _singles(publisher, 500, f"s{count}"),
                }
                yield row
        one.kill()
        began = time.monotonic()
        one.begin()
        one.serve()
        yield {"subjects": stored, "start_s": round(time.monotonic() - began, 2)}


async def keys(folder: Path) -> AsyncIterator[Row]:
    """Keys of the bucket of windows: what profiles remember."""
    with servers.single(folder) as one:
        async with mesh(one) as client:
            bucket = Bucket(client, topology.WINDOWS)
            stored, before = 0, one.rss_mb
            for count in (1_000, 10_000, 100_000, 500_000):
                began = time.monotonic()
                for start in range(stored, count, 1000):
                    several = range(start, min(count, start + 1000))
                    value = b"x" * 120
                    await bucket.put_all([Put(f"p.w.debounce.{n}", value) for n in several])
                took, new, stored = time.monotonic() - began, count - stored, count

                async def get(key: str = f"p.w.debounce.{count // 2}") -> None:
                    await bucket.get(key)

                yield {
                    "keys": count,
                    "written_per_s": round(new / took),
                    "bytes_each": round((one.rss_mb - before) * 2**20 / count),
                    "get_ms": await _middle(get),
                }


async def groups(folder: Path) -> AsyncIterator[Row]:
    """Streams of three replicas in a cluster, each a Raft group, that are silent."""
    with servers.three(folder) as nodes:
        client = await nats.connect([one.url for one in nodes])
        js = client.jetstream(timeout=30)
        made, before = 0, sum(one.rss_mb for one in nodes)
        for count in (0, 50, 200, 500):
            began = time.monotonic()
            for start in range(made, count, 10):
                several = range(start, min(count, start + 10))
                await asyncio.gather(*(js.add_stream(_small(n)) for n in several))
            took, new, made = time.monotonic() - began, count - made, count
            idle = [await _idle(one, STILL / 2) for one in nodes]
            more = sum(one.rss_mb for one in nodes) - before
            yield {
                "groups": count,
                "made_per_s": round(new / took, 1) if new else None,
                "kb_each_on_a_node": round(more * 1024 / 3 / count) if count else None,
                "idle_cpu_percent_of_a_node": round(sum(idle) / 3, 1),
            }
        await client.close()


class mesh:
    """A connection to a server, its streams in place."""

    def __init__(self, *nodes: Server, replicas: int = 1) -> None:
        self._nodes, self._replicas = nodes, replicas

    async def __aenter__(self) -> Client:
        self._client = await nats.connect([one.url for one in self._nodes])
        settings = Settings(events=Events(replicas=self._replicas, max_bytes=32 * 2**30))
        known = topology.Known(self._nodes[0].folder / "known.json")
        await topology.ensure(self._client.jetstream(timeout=30), settings, known)
        return self._client

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()


def _reader(number: int, *, durable: bool = True) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=f"profile-p{number}" if durable else None,
        filter_subjects=[f"evt.*.topic_{number}"],
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.ALL,
        ack_wait=3600,
        max_ack_pending=8192,
    )


def _small(number: int) -> StreamConfig:
    return StreamConfig(name=f"S{number}", subjects=[f"small.{number}"], num_replicas=3)


def _events(count: int, mark: str) -> Iterable[Message]:
    return (Message("evt.h0.load.test", EVENT, f"{mark}-{n}") for n in range(count))


async def _fill(publisher: Publisher, stored: int, count: int) -> None:
    """One event under each of these subjects, as few batches."""
    for start in range(stored, count, 20_000):
        several = range(start, min(count, start + 20_000))
        await publisher.publish_all(
            Message(f"evt.h{n // TOPICS}.topic_{n % TOPICS}", EVENT, f"f{n}") for n in several
        )


async def _singles(publisher: Publisher, count: int, mark: str) -> int:
    began = time.monotonic()
    for n in range(count):
        await publisher.publish("evt.h0.topic_3", EVENT, msg_id=f"{mark}-{n}")
    return round(count / (time.monotonic() - began))


async def _batched(publisher: Publisher, count: int, mark: str) -> int:
    began = time.monotonic()
    await publisher.publish_all(_events(count, mark))
    return round(count / (time.monotonic() - began))


async def _middle(call: Any) -> float:
    took = []
    for _ in range(TRIES):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return round(sorted(took)[TRIES // 2] * 1000, 2)


async def _idle(one: Server, seconds: float = STILL) -> float:
    """Percent of a core while nothing is asked."""
    await asyncio.sleep(1)
    before = one.cpu_s
    await asyncio.sleep(seconds)
    return round((one.cpu_s - before) / seconds * 100, 1)
