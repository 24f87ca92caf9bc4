"""Any sequence of calls has the same results from the mesh in memory and from a real server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from nats.js.api import AckPolicy, RetentionPolicy, StreamConfig
from nats.js.errors import APIError
from tests.router.test_testing_contract import (
    Broker,
    Consumer,
    Delivered,
    Memory,
    Real,
    real,
)

from opsmesh.router.testing import Outgoing

__all__ = ["real"]

#: Seconds after which a message that nobody answered comes again, and that a step of time takes.
ACK_WAIT, STEP = 0.5, 0.8

LAST_OF_SUBJECT, LAST = "Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Sequence"

few = st.integers(0, 5)
conditions: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}),
    st.just({}),
    st.builds(lambda n: {LAST_OF_SUBJECT: str(n)}, few),
    st.builds(lambda n: {LAST: str(n)}, few),
)
outgoing = st.builds(
    lambda subject, msg_id, headers: Outgoing(subject=subject, msg_id=msg_id, headers=headers),
    st.sampled_from(["s.a", "s.b", "s.a.c"]),
    st.sampled_from([None, None, "i", "j"]),
    conditions,
)


@dataclass
class Hands:
    """A broker, its consumer, and every message that was ever delivered."""

    broker: Broker
    consumer: Consumer
    taken: list[Delivered] = field(default_factory=list)

    def look(self) -> Any:
        held = [
            (m.seq, m.subject, {**m.headers, "Nats-Batch-Id": ""})
            for m in self.broker.messages("S")
        ]
        return held, self.consumer.state()


Step = Callable[[Hands], Any]


def publish(message: Outgoing) -> Step:
    return lambda hands: hands.broker.publish(
        message.subject, b"", msg_id=message.msg_id, headers=message.headers
    )


def batch(messages: list[Outgoing]) -> Step:
    return lambda hands: hands.broker.publish_batch(messages)


def delete(n: int) -> Step:
    def step(hands: Hands) -> None:
        held = hands.broker.messages("S")
        if held:
            hands.broker.delete_message("S", held[n % len(held)].seq)

    return step


def fetch(count: int) -> Step:
    def step(hands: Hands) -> Any:
        found = hands.consumer.fetch(count)
        hands.taken += found
        facts = [(m.delivery, m.data) for m in found]
        return [
            (d.stream_seq, d.num_delivered, d.consumer_seq, d.pending, data) for d, data in facts
        ]

    return step


def reply(kind: str, n: int) -> Step:
    def step(hands: Hands) -> None:
        if not hands.taken:
            return
        message = hands.taken[n % len(hands.taken)]
        if kind == "nak later":
            message.nak(delay=ACK_WAIT)
        else:
            getattr(message, kind)()

    return step


replies = st.builds(reply, st.sampled_from(["ack", "ack", "nak", "term", "in_progress"]), few)
steps = st.one_of(
    st.builds(publish, outgoing),
    st.builds(publish, outgoing),
    st.builds(batch, st.lists(outgoing, min_size=1, max_size=3)),
    st.builds(delete, few),
    st.builds(fetch, st.integers(1, 4)),
    st.builds(fetch, st.integers(1, 4)),
    replies,
    replies,
)
configs = st.fixed_dictionaries(
    {
        "filter_subjects": st.sampled_from([[], ["s.a"], ["s.b", "s.a.*"]]),
        "max_deliver": st.sampled_from([-1, 2]),
        "max_ack_pending": st.sampled_from([1000, 1000, 2]),
        "ack_policy": st.sampled_from([AckPolicy.EXPLICIT, AckPolicy.EXPLICIT, AckPolicy.ALL]),
    }
)
streams = st.fixed_dictionaries(
    {
        "retention": st.sampled_from([RetentionPolicy.LIMITS, RetentionPolicy.WORK_QUEUE]),
        "max_msgs_per_subject": st.sampled_from([-1, -1, 1, 2]),
    }
)


def hands(broker: Broker, stream: Mapping[str, Any], consumer: Mapping[str, Any]) -> Hands:
    config = StreamConfig(
        name="S",
        subjects=["s.>"],
        allow_atomic=True,
        allow_msg_ttl=True,
        allow_rollup_hdrs=True,
        **stream,
    )
    broker.add_stream(config)
    return Hands(broker, broker.consumer("S", "c", **consumer))


def outcome(step: Step, of: Hands) -> Any:
    try:
        return step(of)
    except APIError as error:
        return error.err_code, error.description


def same(memory: Hands, real: Hands) -> None:
    """Both come to look alike: the server counts what comes and goes in the background."""
    deadline = time.monotonic() + 60
    while (expected := memory.look()) != (found := real.look()):
        assert time.monotonic() < deadline, f"in memory:\n{expected}\nreal:\n{found}"


def consumable(stream: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A work queue takes explicit acknowledgements alone."""
    if stream["retention"] == RetentionPolicy.WORK_QUEUE:
        return {**config, "ack_policy": AckPolicy.EXPLICIT}
    return dict(config)


quick = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


@settings(quick, max_examples=60)
@given(stream=streams, config=configs, script=st.lists(steps, min_size=5, max_size=25))
def test_any_calls(
    real: Real, stream: dict[str, Any], config: dict[str, Any], script: list[Step]
) -> None:
    """Without time passing, every call has the same result and leaves the same state."""
    config = consumable(stream, config)
    both = hands(Memory(), stream, config), hands(real, stream, config)
    try:
        for step in script:
            expected, found = (outcome(step, of) for of in both)
            assert expected == found
            same(*both)
    finally:
        real.clear()


def catch_up(memory: Memory, real: Real, since: int) -> None:
    """Let as much time pass in memory as has passed at the real server since both began."""
    behind = real.now_us() - since - memory.now_us()
    memory.advance(max(0, behind) / 1e6)


timed_replies = st.builds(
    reply, st.sampled_from(["ack", "nak", "nak later", "term", "in_progress"]), few
)
timed_steps = st.one_of(st.builds(fetch, st.integers(1, 3)), timed_replies, timed_replies)


@pytest.mark.slow
@settings(quick, max_examples=5)
@given(
    limit=st.sampled_from([-1, 2]),
    first=st.lists(timed_steps, min_size=6, max_size=12),
    second=st.lists(timed_steps, max_size=4),
)
def test_any_calls_in_time(real: Real, limit: int, first: list[Step], second: list[Step]) -> None:
    """Whatever was replied, the same messages come again after the ack wait."""
    memory = Memory()
    since = real.now_us() - memory.now_us()
    config = {"ack_wait": ACK_WAIT, "max_deliver": limit}
    both = hands(memory, {}, config), hands(real, {}, config)
    try:
        for of in both:
            for n in range(5):
                of.broker.publish(f"s.{n}", b"")
        same(*both)
        for script in (first, second):
            for step in [fetch(2), *script]:
                catch_up(memory, real, since)
                expected, found = (outcome(step, of) for of in both)
                assert expected == found
            real.advance(STEP)
            catch_up(memory, real, since)
            # how near to each other two deadlines were decides about the order of two messages
            expected, found = (sorted(fact[:2] for fact in outcome(fetch(20), of)) for of in both)
            assert expected == found
            same(*both)
    finally:
        real.clear()
