"""One suite against the mesh in memory and a real server: what holds for one holds for the other.

Here are both brokers behind one Protocol, and the contract of buckets; test_testing_streams,
test_testing_consumers and test_testing_model hold the rest. The real server's `advance` waits, for
time is the subject here; nowhere else in the tests.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import pytest
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import (
    ConsumerConfig,
    SequenceInfo,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError

from opsmesh.router import server
from opsmesh.router.kv import Bucket, Conflict, Entry
from opsmesh.router.publish import PubAck
from opsmesh.router.pull import Delivery, delivery
from opsmesh.router.testing import ConsumerState, MemoryMesh, Outgoing, StoredMessage
from opsmesh.router.wire import Received
from opsmesh.schemas import times

T = TypeVar("T")

#: Seconds that a scenario of the first length may spend on anything but waiting: less than lies
#: between any two of its moments.
SLACK = 0.1
#: The longest that a scenario is made.
LONGEST = 16


class Delivered(Protocol):
    """A message in a consumer's hands."""

    @property
    def data(self) -> bytes: ...
    @property
    def seq(self) -> int: ...
    @property
    def delivery(self) -> Delivery: ...
    def ack(self) -> None: ...
    def nak(self, *, delay: float | None = None) -> None: ...
    def term(self) -> None: ...
    def in_progress(self) -> None: ...


class Consumer(Protocol):
    """A durable pull consumer."""

    def fetch(self, batch: int = 1) -> Sequence[Delivered]: ...
    def state(self) -> ConsumerState: ...


class KeyValue(Protocol):
    """A bucket."""

    def get(self, key: str) -> Entry | None: ...
    def put(
        self, key: str, value: bytes, *, revision: int = 0, ttl_s: float | None = None
    ) -> int: ...
    def delete(self, key: str) -> None: ...


class Broker(Protocol):
    """What the suite does to both."""

    def now_us(self) -> int: ...
    def advance(self, seconds: float) -> None: ...
    def add_stream(self, config: StreamConfig) -> None: ...
    def publish(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> PubAck: ...
    def publish_batch(self, batch: Sequence[Outgoing]) -> list[PubAck]: ...
    def messages(self, stream: str) -> list[StoredMessage]: ...
    def delete_message(self, stream: str, seq: int) -> None: ...
    @property
    def consumer(self) -> Callable[..., Consumer]: ...
    def bucket(self, name: str) -> KeyValue: ...


class Memory(MemoryMesh):
    """The mesh in memory is the suite's broker as it is."""

    def now_us(self) -> int:
        return self.clock.now_us

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)


@dataclass
class RealMessage:
    real: Real
    msg: Received

    @property
    def data(self) -> bytes:
        return self.msg.data

    @property
    def delivery(self) -> Delivery:
        return delivery(self.msg.reply)

    @property
    def seq(self) -> int:
        return self.delivery.stream_seq

    def ack(self) -> None:
        self._say(b"+ACK")

    def nak(self, *, delay: float | None = None) -> None:
        wait = b"" if delay is None else b' {"delay": %d}' % round(delay * 1e9)
        self._say(b"-NAK" + wait)

    def term(self) -> None:
        self._say(b"+TERM")

    def in_progress(self) -> None:
        self._say(b"+WPI")

    def _say(self, body: bytes) -> None:
        # as a request: the server answers when it has taken note
        self.real.run(self.real.client.request(self.msg.reply, body, timeout=60))


@dataclass
class RealConsumer:
    real: Real
    stream: str
    name: str

    def fetch(self, batch: int = 1) -> list[RealMessage]:
        return self.real.run(self._fetch(batch))

    async def _fetch(self, batch: int) -> list[RealMessage]:
        client = self.real.client
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        body = json.dumps({"batch": batch, "no_wait": True}).encode()
        await client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.name}", body, reply=inbox
        )
        found: list[RealMessage] = []
        deadline = time.monotonic() + 60
        while len(found) < batch:
            try:
                msg = await subscription.next_msg(0.1)
            except NatsTimeout:
                assert time.monotonic() < deadline
                if await self._stalled():  # the server answers such a request later, or never
                    break
                continue
            if not msg.reply:  # a status: there is no more
                break
            found.append(RealMessage(self.real, msg))
        await subscription.unsubscribe()
        return found

    async def _stalled(self) -> bool:
        info = await self.real.js.consumer_info(self.stream, self.name)
        return (info.num_ack_pending or 0) >= (info.config.max_ack_pending or 1000)

    def state(self) -> ConsumerState:
        info = self.real.run(self.real.js.consumer_info(self.stream, self.name))

        def pair(of: SequenceInfo | None) -> tuple[int, int]:
            assert of is not None
            return of.consumer_seq, of.stream_seq

        return ConsumerState(
            num_pending=info.num_pending or 0,
            num_ack_pending=info.num_ack_pending or 0,
            num_redelivered=info.num_redelivered or 0,
            delivered=pair(info.delivered),
            ack_floor=pair(info.ack_floor),
        )


@dataclass
class RealBucket:
    real: Real
    name: str

    def __post_init__(self) -> None:
        self._bucket = Bucket(self.real.client, self.name)

    def get(self, key: str) -> Entry | None:
        return self.real.run(self._bucket.get(key))

    def put(self, key: str, value: bytes, *, revision: int = 0, ttl_s: float | None = None) -> int:
        return self.real.run(self._bucket.put(key, value, revision=revision, ttl_s=ttl_s))

    def delete(self, key: str) -> None:
        self.real.run(self._bucket.delete(key))


@dataclass
class Real:
    """A real server, spoken to without async."""

    client: Client
    loop: asyncio.AbstractEventLoop
    batches: int = field(default=0, init=False)
    waited: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.js = self.client.jetstream()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def now_us(self) -> int:
        return times.now_us()

    def advance(self, seconds: float) -> None:
        time.sleep(seconds)
        self.waited += seconds

    def add_stream(self, config: StreamConfig) -> None:
        self.run(self.js.add_stream(config))

    def clear(self) -> None:
        for info in self.run(self.js.streams_info()):
            self.run(self.js.delete_stream(info.config.name or ""))

    def publish(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> PubAck:
        own = {"Nats-Msg-Id": msg_id} if msg_id else {}
        ack = self.run(self.js.publish(subject, data, headers={**(headers or {}), **own} or None))
        return PubAck(ack.seq, bool(ack.duplicate))

    def publish_batch(self, batch: Sequence[Outgoing]) -> list[PubAck]:
        return self.run(self._publish_batch(batch))

    async def _publish_batch(self, batch: Sequence[Outgoing]) -> list[PubAck]:
        self.batches += 1
        answer = b""
        for n, message in enumerate(batch, 1):
            own = {"Nats-Batch-Id": f"b{self.batches}", "Nats-Batch-Sequence": str(n)}
            if n == len(batch):
                own["Nats-Batch-Commit"] = "1"
            headers = {**message.all_headers(), **own}
            reply = await self.client.request(message.subject, message.data, 60, headers=headers)
            answer = reply.data or answer
        ack = json.loads(answer)
        if "error" in ack:
            APIError.from_error(ack["error"])
        first = ack["seq"] - ack["count"] + 1
        return [PubAck(first + n, False) for n in range(ack["count"])]

    def messages(self, stream: str) -> list[StoredMessage]:
        state = self.run(self.js.stream_info(stream)).state
        found = []
        for seq in range(max(1, state.first_seq), state.last_seq + 1):
            try:
                msg = self.run(self.js.get_msg(stream, seq))
            except NotFoundError:
                continue
            found.append(
                StoredMessage(
                    seq=seq,
                    subject=msg.subject or "",
                    data=msg.data or b"",
                    headers=msg.headers or {},
                    stored_ns=0,
                )
            )
        return found

    def delete_message(self, stream: str, seq: int) -> None:
        self.run(self.js.delete_msg(stream, seq))

    def consumer(self, stream: str, name: str, **config: Any) -> Consumer:
        wanted = ConsumerConfig(durable_name=name, **config)
        self.run(self.js.add_consumer(stream, config=wanted))
        return RealConsumer(self, stream, name)

    def bucket(self, name: str) -> KeyValue:
        return RealBucket(self, name)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """One real server for all tests of the module."""
    prepared = server.prepare(tmp_path_factory.mktemp("nats"), name="contract")
    running = server.EmbeddedServer(prepared)
    running.start()
    loop = asyncio.new_event_loop()
    client = Client()
    try:
        loop.run_until_complete(
            client.connect(prepared.url, user_credentials=str(prepared.credentials("admin")))
        )
        yield Real(client, loop)
        loop.run_until_complete(client.close())
    finally:
        running.stop()
        loop.close()


@pytest.fixture(params=["memory", "real"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Each in its turn, without a stream named S."""
    if request.param == "memory":
        yield Memory()
        return
    running: Real = request.getfixturevalue("real")
    yield running
    running.clear()


def stream(broker: Broker, **config: Any) -> None:
    """The stream S, which takes s.>."""
    defaults: dict[str, Any] = {"allow_atomic": True, "allow_msg_ttl": True, "allow_direct": True}
    broker.add_stream(StreamConfig(name="S", subjects=["s.>"], **{**defaults, **config}))


def put(broker: Broker, *subjects: str) -> None:
    """A message on each subject, which holds its subject's name."""
    for subject in subjects:
        broker.publish(subject, subject.encode())


def held(broker: Broker) -> list[str]:
    """What S holds."""
    return [message.data.decode() for message in broker.messages("S")]


def error(broker: Broker, subject: str = "s.x", **headers: str) -> int | None:
    """The code with which a message of these headers is refused."""
    with pytest.raises(APIError) as caught:
        broker.publish(
            subject, b"", headers={name.replace("_", "-"): v for name, v in headers.items()}
        )
    return caught.value.err_code


def got(found: Sequence[Delivered]) -> list[tuple[int, int]]:
    """Sequence and number of deliveries of each message."""
    return [(message.seq, message.delivery.num_delivered) for message in found]


def in_time(scenario: Callable[[Broker, float], None]) -> Callable[[Broker], None]:
    """A test whose moments are so many times its second argument, which is 1 at first.

    A real server's time goes on while this machine is busy with something else. So a scenario that
    fails, and took longer than its moments lie apart, has proved nothing: it is played again, and
    all of it lasts twice as long.
    """

    def test(broker: Broker) -> None:
        unit = 1.0
        while not _played(scenario, broker, unit):
            unit *= 2

    test.__name__, test.__module__ = scenario.__name__, scenario.__module__
    test.__doc__ = scenario.__doc__
    return test


def _played(scenario: Callable[[Broker, float], None], broker: Broker, unit: float) -> bool:
    """Play it; False when it failed, and the machine was too busy for it."""
    began, waited = time.monotonic(), broker.waited if isinstance(broker, Real) else 0.0
    try:
        scenario(broker, unit)
    except Exception:
        if not isinstance(broker, Real) or unit >= LONGEST:
            raise
        if time.monotonic() - began - (broker.waited - waited) < SLACK * unit:
            raise
        broker.clear()
        return False
    return True


def kv(broker: Broker) -> KeyValue:
    """A bucket as topology makes it."""
    broker.add_stream(
        StreamConfig(
            name="KV_b",
            subjects=["$KV.b.>"],
            max_msgs_per_subject=1,
            allow_rollup_hdrs=True,
            allow_direct=True,
            allow_msg_ttl=True,
        )
    )
    return broker.bucket("b")


def test_key_value(broker: Broker) -> None:
    """A key is created once, changed over its revision, deleted and created anew."""
    bucket = kv(broker)
    assert bucket.get("a.b") is None
    revision = bucket.put("a.b", b"1")
    with pytest.raises(Conflict):
        bucket.put("a.b", b"2")
    other = bucket.put("c", b"c")
    revision = bucket.put("a.b", b"3", revision=revision)
    with pytest.raises(Conflict):
        bucket.put("a.b", b"4", revision=other)
    assert bucket.get("a.b") == Entry("a.b", b"3", revision)
    assert len(broker.messages("KV_b")) == 2
    bucket.delete("a.b")
    assert bucket.get("a.b") is None
    with pytest.raises(Conflict):
        bucket.put("a.b", b"5", revision=revision)
    assert bucket.put("a.b", b"6") == revision + 1


def test_key_value_delete_marker(broker: Broker) -> None:
    """A key that another client deleted by a marker has no value."""
    bucket = kv(broker)
    bucket.put("a", b"1")
    broker.publish("$KV.b.a", b"", headers={"KV-Operation": "DEL"})
    assert bucket.get("a") is None


@in_time
def test_key_value_expires(broker: Broker, unit: float) -> None:
    """A value with a lifetime is gone after it, and its key can be created again."""
    bucket = kv(broker)
    bucket.put("a", b"1", ttl_s=unit)
    bucket.put("b", b"2")
    assert bucket.get("a") is not None
    broker.advance(2.5 * unit)
    assert bucket.get("a") is None
    assert bucket.get("b") is not None
    assert bucket.put("a", b"3") == 3
