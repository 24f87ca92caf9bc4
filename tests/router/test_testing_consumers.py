"""The contract of durable pull consumers: what is delivered, when, and how often."""

from __future__ import annotations

from typing import Any

import pytest
from nats.js.api import AckPolicy, DeliverPolicy, RetentionPolicy
from nats.js.errors import APIError
from tests.producers.agent import until
from tests.router.test_testing_contract import (
    Broker,
    broker,
    got,
    in_time,
    put,
    real,
    stream,
)

__all__ = ["broker", "real"]


@in_time
def test_ack_wait(broker: Broker, unit: float) -> None:
    """What nobody answers comes again after the ack wait, before new messages, in its order."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.3", "s.4")
    consumer = broker.consumer("S", "c", ack_wait=0.6 * unit)
    first = consumer.fetch(3)
    assert got(first) == [(1, 1), (2, 1), (3, 1)]
    first[1].ack()
    assert got(consumer.fetch(1)) == [(4, 1)]
    put(broker, "s.5")
    broker.advance(0.9 * unit)
    assert got(consumer.fetch(10)) == [(1, 2), (3, 2), (4, 2), (5, 1)]
    assert consumer.fetch(10) == []


@in_time
def test_in_progress(broker: Broker, unit: float) -> None:
    """A message that is said to be in progress comes again one ack wait later."""
    stream(broker)
    put(broker, "s.1", "s.2")
    consumer = broker.consumer("S", "c", ack_wait=unit)
    first, _ = consumer.fetch(2)
    broker.advance(0.7 * unit)
    first.in_progress()
    broker.advance(0.7 * unit)
    assert got(consumer.fetch(9)) == [(2, 2)]
    broker.advance(0.7 * unit)
    assert got(consumer.fetch(9)) == [(1, 2)]


def test_nak(broker: Broker) -> None:
    """A NAK brings the message back before new ones, in the order of the NAKs."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.3", "s.4")
    consumer = broker.consumer("S", "c")
    one, two, _ = consumer.fetch(3)
    two.nak()
    one.nak()
    one.nak()
    assert got(consumer.fetch(9)) == [(2, 2), (1, 2), (4, 1)]


@in_time
def test_nak_with_delay(broker: Broker, unit: float) -> None:
    """A delayed NAK brings the message back after its delay, whatever the ack wait."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.3")
    consumer = broker.consumer("S", "c", ack_wait=0.6 * unit)
    one, two, three = consumer.fetch(3)
    one.nak(delay=1.2 * unit)
    two.nak(delay=0.2 * unit)
    three.nak(delay=0)
    broker.advance(0.4 * unit)
    again = consumer.fetch(9)
    assert got(again) == [(3, 2), (2, 2)]
    for message in again:
        message.ack()
    broker.advance(0.4 * unit)
    assert consumer.fetch(9) == []
    broker.advance(0.7 * unit)
    assert got(consumer.fetch(9)) == [(1, 2)]


@in_time
def test_replies_to_what_is_due_again(broker: Broker, unit: float) -> None:
    """Of messages that wait to come again, `in_progress` keeps none back, a delayed NAK does."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.3")
    consumer = broker.consumer("S", "c", ack_wait=0.6 * unit)
    one, two, three = consumer.fetch(3)
    broker.advance(0.9 * unit)
    one.in_progress()
    two.nak(delay=0.4 * unit)
    three.ack()
    assert got(consumer.fetch(9)) == [(1, 2)]
    broker.advance(0.9 * unit)
    assert got(consumer.fetch(9)) == [(2, 2), (1, 3)]


def test_late_replies(broker: Broker) -> None:
    """A reply to an older delivery counts; after an ACK nothing does."""
    stream(broker)
    put(broker, "s.1", "s.2")
    consumer = broker.consumer("S", "c")
    one, two = consumer.fetch(2)
    one.nak()
    consumer.fetch(1)
    one.ack()
    one.nak()
    two.term()
    two.nak()
    assert consumer.fetch(9) == []
    assert consumer.state().num_ack_pending == 0


@in_time
def test_max_deliver(broker: Broker, unit: float) -> None:
    """A message is given up after max_deliver; it is neither pending nor acknowledged then."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.3")
    consumer = broker.consumer("S", "c", ack_wait=0.6 * unit, max_deliver=2)
    one, two = consumer.fetch(2)
    one.nak()
    (one,) = consumer.fetch(1)
    one.nak()
    assert consumer.state().num_ack_pending == 2
    assert got(consumer.fetch(1)) == [(3, 1)]
    assert consumer.state().num_ack_pending == 2
    two.ack()
    assert consumer.state().ack_floor == (0, 0)
    broker.advance(0.9 * unit)
    assert got(consumer.fetch(9)) == [(3, 2)]
    broker.advance(0.9 * unit)
    assert consumer.fetch(9) == []
    assert consumer.state().num_ack_pending == 0


def test_max_ack_pending(broker: Broker) -> None:
    """New messages stop at max_ack_pending; redeliveries do not."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.3", "s.4")
    consumer = broker.consumer("S", "c", max_ack_pending=2)
    one, two = consumer.fetch(9)
    assert consumer.fetch(9) == []
    one.nak()
    assert got(consumer.fetch(9)) == [(1, 2)]
    two.ack()
    assert got(consumer.fetch(9)) == [(3, 1)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [2, 3, 4]),
        ({"deliver_policy": DeliverPolicy.NEW}, [4]),
        ({"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": 3}, [3, 4]),
        ({"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": 99}, []),
        ({"filter_subjects": ["s.2", "s.*.x"]}, [2, 4]),
        ({"filter_subjects": ["other.>"]}, []),
    ],
)
def test_what_a_consumer_sees(broker: Broker, config: dict[str, Any], expected: list[int]) -> None:
    """Deliver policy and filters choose the messages; pending and ack floor follow."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.3")
    broker.delete_message("S", 1)
    consumer = broker.consumer("S", "c", **config)
    before = consumer.state()
    assert before.ack_floor == before.delivered
    put(broker, "s.4.x")
    # the real server counts a moment after it has stored
    until(lambda: consumer.state().num_pending == len(expected))
    found = consumer.fetch(9)
    assert [message.seq for message in found] == expected
    for message in found:
        message.ack()
    if found:
        assert consumer.state().ack_floor == (len(expected), expected[-1])


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"filter_subjects": ["s.*", "s.1"]}, 10138),
        ({"deliver_policy": DeliverPolicy.BY_START_SEQUENCE}, 10094),
        ({"opt_start_seq": 3}, 10094),
    ],
)
def test_consumers_are_checked(broker: Broker, config: dict[str, Any], code: int) -> None:
    """A consumer that makes no sense is refused for a stated reason."""
    stream(broker)
    with pytest.raises(APIError) as caught:
        broker.consumer("S", "c", **config)
    assert caught.value.err_code == code


def test_consumer_is_updated(broker: Broker) -> None:
    """Filters and waits of a consumer change in place; where it starts and how it acks do not."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.1")
    consumer = broker.consumer("S", "c")
    consumer.fetch(1)
    consumer = broker.consumer("S", "c", filter_subjects=["s.1"], ack_wait=5)
    until(lambda: consumer.state().num_pending == 1)
    assert got(consumer.fetch(9)) == [(3, 1)]
    for change in ({"deliver_policy": DeliverPolicy.NEW}, {"ack_policy": AckPolicy.ALL}):
        with pytest.raises(APIError) as caught:
            broker.consumer("S", "c", **change)
        assert caught.value.err_code == 10012


def test_ack_all(broker: Broker) -> None:
    """With ack policy all, an ACK settles what came before it as well."""
    stream(broker)
    put(broker, *(f"s.{n}" for n in range(5)))
    consumer = broker.consumer("S", "c", ack_policy=AckPolicy.ALL)
    messages = consumer.fetch(4)
    messages[2].ack()
    state = consumer.state()
    assert (state.num_ack_pending, state.ack_floor) == (1, (3, 3))
    messages[1].nak()
    assert got(consumer.fetch(1)) == [(5, 1)]
    messages[3].nak()
    assert got(consumer.fetch(1)) == [(4, 2)]


def test_ack_floor(broker: Broker) -> None:
    """The ack floor rises to just below the first message that is still pending."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.3", "s.4")
    consumer = broker.consumer("S", "c")
    one, two, three, four = consumer.fetch(4)
    floors = []
    for message in (two, one, four):
        message.ack()
        floors.append(consumer.state().ack_floor)
    three.nak()
    (three,) = consumer.fetch(1)
    three.ack()
    assert [*floors, consumer.state().ack_floor] == [(0, 0), (2, 2), (2, 2), (5, 4)]


def test_what_leaves_the_stream_is_settled(broker: Broker) -> None:
    """A message that is deleted while a consumer holds it counts as acknowledged."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.3")
    consumer = broker.consumer("S", "c")
    one, two = consumer.fetch(2)
    one.nak()
    broker.delete_message("S", 1)
    broker.delete_message("S", 3)
    # the server settles it in the background
    until(lambda: (consumer.state().num_ack_pending, consumer.state().num_pending) == (1, 0))
    two.ack()
    assert consumer.fetch(9) == []


def test_what_leaves_the_stream_settles_all_before(broker: Broker) -> None:
    """With ack policy all, a message that is deleted settles those before it as well."""
    stream(broker)
    put(broker, "s.1", "s.2", "s.3")
    consumer = broker.consumer("S", "c", ack_policy=AckPolicy.ALL)
    consumer.fetch(3)
    broker.delete_message("S", 2)

    def settled() -> bool:
        state = consumer.state()
        return (state.num_ack_pending, state.ack_floor) == (1, (2, 2))

    until(settled)  # in the background, at the server


def test_work_queue(broker: Broker) -> None:
    """A work queue forgets what is acknowledged, and each message has one consumer."""
    stream(broker, retention=RetentionPolicy.WORK_QUEUE)
    put(broker, "s.a", "s.b", "s.a", "s.a")
    consumer = broker.consumer("S", "a", filter_subjects=["s.a"])
    one, two, three = consumer.fetch(9)
    one.ack()
    two.term()
    three.nak()
    # the server removes them in the background
    until(lambda: [message.seq for message in broker.messages("S")] == [2, 4])
    for name, config, code in (
        ("b", {"filter_subjects": ["s.*"]}, 10100),
        ("c", {}, 10099),
        ("d", {"filter_subjects": ["s.b"], "deliver_policy": DeliverPolicy.NEW}, 10101),
        ("e", {"filter_subjects": ["s.b"], "ack_policy": AckPolicy.ALL}, 10098),
    ):
        with pytest.raises(APIError) as caught:
            broker.consumer("S", name, **config)
        assert caught.value.err_code == code, name
    assert [m.seq for m in broker.consumer("S", "f", filter_subjects=["s.b"]).fetch(9)] == [2]
