"""The contract of streams: what is stored, what is refused, and what goes again."""

from __future__ import annotations

import pytest
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NoStreamResponseError
from tests.router.test_testing_contract import (
    Broker,
    broker,
    error,
    held,
    in_time,
    put,
    real,
    stream,
)

from opsmesh.router.publish import PubAck
from opsmesh.router.testing import Outgoing
from opsmesh.schemas import times

__all__ = ["broker", "real"]


def test_nobody_stores_the_subject(broker: Broker) -> None:
    """A message whose subject is no stream's is an error of its own."""
    stream(broker)
    with pytest.raises(NoStreamResponseError):
        broker.publish("other.x", b"")


def test_streams_do_not_overlap(broker: Broker) -> None:
    """A stream that wants another's subjects is refused with 10065."""
    stream(broker)
    with pytest.raises(APIError) as caught:
        broker.add_stream(StreamConfig(name="T", subjects=["s.*.x"]))
    assert caught.value.err_code == 10065


@in_time
def test_duplicate_window(broker: Broker, unit: float) -> None:
    """A message id is stored once within the window, and again after it."""
    stream(broker, duplicate_window=0.5 * unit)
    assert broker.publish("s.a", b"1", msg_id="i") == PubAck(1, False)
    assert broker.publish("s.b", b"2", msg_id="i") == PubAck(1, True)
    broker.delete_message("S", 1)
    assert broker.publish("s.b", b"2", msg_id="i") == PubAck(1, True)
    broker.advance(0.8 * unit)
    assert broker.publish("s.b", b"2", msg_id="i") == PubAck(2, False)


REFUSALS = {
    "Nats-Expected-Stream": ("Q", 10060),
    "Nats-Expected-Last-Subject-Sequence": ("9", 10071),
    "Nats-Expected-Last-Sequence": ("9", 10071),
    "Nats-Schedule": ("@at 2030-01-01T00:00:00Z", 10188),
    "Nats-Msg-Id": ("known", None),
    "Nats-Expected-Last-Msg-Id": ("other", 10070),
    "Nats-Rollup": ("sub", 10111),
    "Nats-TTL": ("x", 10165),
}


def test_order_of_refusals(broker: Broker) -> None:
    """Of two reasons to refuse a message, both brokers give the same."""
    stream(broker)
    broker.publish("s.x", b"", msg_id="known")
    names = list(REFUSALS)
    for n, first in enumerate(names):
        for second in names[n:]:
            headers = {name: REFUSALS[name][0] for name in (first, second)}
            expected = REFUSALS[first][1]
            if expected is None:
                assert broker.publish("s.x", b"", headers=headers) == PubAck(1, True)
                continue
            with pytest.raises(APIError) as caught:
                broker.publish("s.x", b"", headers=headers)
            assert caught.value.err_code == expected, (first, second)
    assert len(broker.messages("S")) == 1


def test_expected_sequences(broker: Broker) -> None:
    """Compare-and-set works by subject, by another subject and by stream."""
    stream(broker)
    put(broker, "s.a", "s.b")
    by_subject = "Nats-Expected-Last-Subject-Sequence"
    broker.publish("s.c", b"", headers={by_subject: "0"})
    broker.publish("s.a", b"", headers={by_subject: "1"})
    broker.publish("s.a", b"", headers={by_subject: "2", f"{by_subject}-Subject": "s.b"})
    broker.publish("s.a", b"", headers={"Nats-Expected-Last-Sequence": "5"})
    assert error(broker, "s.c", Nats_Expected_Last_Subject_Sequence="0") == 10071
    assert error(broker, "s.c", Nats_Expected_Last_Subject_Sequence="x") == 10071
    assert error(broker, Nats_Expected_Last_Subject_Sequence_Subject="s.b") == 10193
    with pytest.raises(APIError, match="wrong last sequence: 3"):
        broker.publish("s.c", b"", headers={by_subject: "1"})


def test_refused_message_leaves_its_id_free(broker: Broker) -> None:
    """The id of a message that was refused is not taken."""
    stream(broker)
    error(broker, Nats_Msg_Id="i", Nats_Expected_Last_Sequence="9")
    assert broker.publish("s.x", b"", msg_id="i") == PubAck(1, False)


def test_order_of_refusals_in_a_batch(broker: Broker) -> None:
    """Of two reasons to refuse a batch, both brokers give the same, which is not a message's."""
    stream(broker)
    broker.publish("s.x", b"", msg_id="known")
    codes = {name: code or 10201 for name, (_, code) in REFUSALS.items()}
    codes["Nats-Expected-Last-Msg-Id"] = 10177
    names = [
        "Nats-Expected-Last-Msg-Id",
        "Nats-Expected-Stream",
        "Nats-TTL",
        "Nats-Msg-Id",
        "Nats-Expected-Last-Subject-Sequence",
        "Nats-Expected-Last-Sequence",
        "Nats-Schedule",
        "Nats-Rollup",
    ]
    for n, first in enumerate(names):
        for second in names[n:]:
            headers = {name: REFUSALS[name][0] for name in (first, second)}
            with pytest.raises(APIError) as caught:
                broker.publish_batch([Outgoing(subject="s.x", headers=headers)])
            assert caught.value.err_code == codes[first], (first, second)


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (Outgoing(subject="s.b"), None),
        (Outgoing(subject="s.b", msg_id="known"), 10201),
        (Outgoing(subject="s.b", msg_id="first"), 10201),
        (Outgoing(subject="s.b", headers={"Nats-Expected-Last-Subject-Sequence": "9"}), 10071),
        (Outgoing(subject="s.a", headers={"Nats-Expected-Last-Subject-Sequence": "0"}), 10164),
        (Outgoing(subject="s.b", headers={"Nats-Expected-Last-Sequence": "2"}), 10164),
        (Outgoing(subject="s.b", headers={"Nats-Expected-Last-Sequence": "1"}), 10071),
        (Outgoing(subject="s.b", headers={"Nats-Expected-Last-Msg-Id": "known"}), 10177),
        (Outgoing(subject="s.b", headers={"Nats-TTL": "x"}), 10165),
    ],
)
def test_batch_is_all_or_nothing(broker: Broker, second: Outgoing, code: int | None) -> None:
    """A batch of which one message would be refused stores nothing."""
    stream(broker)
    broker.publish("s.x", b"", msg_id="known")
    batch = [Outgoing(subject="s.a", msg_id="first"), second]
    if code is None:
        assert broker.publish_batch(batch) == [PubAck(2, False), PubAck(3, False)]
    else:
        with pytest.raises(APIError) as caught:
            broker.publish_batch(batch)
        assert caught.value.err_code == code
        assert broker.publish("s.a", b"", msg_id="first") == PubAck(2, False)


def test_batches_must_be_allowed(broker: Broker) -> None:
    """A stream without allow_atomic refuses batches with 10174."""
    stream(broker, allow_atomic=False)
    with pytest.raises(APIError) as caught:
        broker.publish_batch([Outgoing(subject="s.a"), Outgoing(subject="s.b")])
    assert caught.value.err_code == 10174


def test_newest_per_subject(broker: Broker) -> None:
    """max_msgs_per_subject keeps the newest of each subject."""
    stream(broker, max_msgs_per_subject=2)
    for n in range(3):
        broker.publish("s.a", b"a%d" % n)
        broker.publish("s.b", b"b%d" % n)
    assert held(broker) == ["a1", "b1", "a2", "b2"]


def test_rollup(broker: Broker) -> None:
    """A rollup replaces what was there: on its subject, or everywhere."""
    stream(broker, allow_rollup_hdrs=True)
    put(broker, "s.a", "s.b", "s.a")
    broker.publish("s.a", b"new", headers={"Nats-Rollup": "sub"})
    assert held(broker) == ["s.b", "new"]
    broker.publish("s.c", b"all", headers={"Nats-Rollup": "all"})
    assert held(broker) == ["all"]


@in_time
def test_max_age(broker: Broker, unit: float) -> None:
    """max_age ends every message, however long its own lifetime, but those that live for ever."""
    stream(broker, max_age=0.6 * unit, duplicate_window=0.5 * unit)
    broker.publish("s.never", b"never", headers={"Nats-TTL": "never"})
    broker.publish("s.long", b"long", headers={"Nats-TTL": "1h"})
    put(broker, "s.a")
    assert held(broker) == ["never", "long", "s.a"]
    broker.advance(1.3 * unit)
    assert held(broker) == ["never"]


@in_time
def test_lifetimes(broker: Broker, unit: float) -> None:
    """A message with a lifetime goes when it is over; the others stay, and sequences go on."""
    stream(broker)
    broker.publish("s.b", b"two", headers={"Nats-TTL": "1m"})
    whole, half = round(unit), f"{unit / 2:g}s"
    for text in (f"{whole}", f"{whole}s", f"{whole}000ms", half + half):
        broker.publish("s.a", text.encode(), headers={"Nats-TTL": text})
    for text in ("0", "-1", "500ms", "x", "1.5", "1d"):
        assert error(broker, Nats_TTL=text) == 10165, text
    assert len(held(broker)) == 5
    broker.advance(2.5 * unit)
    assert held(broker) == ["two"]
    assert broker.publish("s.a", b"").seq == 6


def test_lifetimes_must_be_allowed(broker: Broker) -> None:
    """A stream without allow_msg_ttl refuses a message that has one with 10166."""
    stream(broker, allow_msg_ttl=False)
    assert error(broker, Nats_TTL="5") == 10166


@in_time
def test_schedules(broker: Broker, unit: float) -> None:
    """A schedule's message moves to its target at its time; a newer one on its subject ends it."""
    stream(broker, allow_msg_schedules=True, allow_rollup_hdrs=True)
    soon = times.format_us(broker.now_us() + round(unit * 1e6))

    def schedule(subject: str, data: bytes, at: str, **more: str) -> None:
        headers = {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": "s.t", **more}
        broker.publish(subject, data, headers=headers)

    past, future = "2020-01-01T02:00:00.5+02:00", "2199-01-01T00:00:00Z"
    schedule("s.1", b"replaced", soon)
    schedule("s.1", b"one", soon, **{"Nats-Schedule-TTL": "60s", "Nats-Msg-Id": "i", "Mine": "v"})
    schedule("s.2", b"past", past)
    schedule("s.3", b"cancelled", soon)
    put(broker, "s.3")
    schedule("s.4", b"future", future)
    assert held(broker) == ["one", "past", "cancelled", "s.3", "future"]
    broker.advance(2.5 * unit)
    assert held(broker) == ["cancelled", "s.3", "future", "past", "one"]
    past_message, one = broker.messages("S")[-2:]
    assert (one.subject, dict(one.headers)) == (
        "s.t",
        {
            "Mine": "v",
            "Nats-Scheduler": "s.1",
            "Nats-Schedule-Next": "purge",
            "Nats-TTL": "60s",
        },
    )
    assert past_message.headers["Nats-Scheduler"] == "s.2"
    assert broker.messages("S")[2].headers["Nats-Rollup"] == "sub"


def test_schedules_are_checked(broker: Broker) -> None:
    """A schedule that could never fire is refused for a stated reason."""
    stream(broker, allow_msg_schedules=True, allow_rollup_hdrs=True)
    good = {"Nats_Schedule": "@at 2199-01-01T00:00:00Z", "Nats_Schedule_Target": "s.t"}
    for change, code in (
        ({"Nats_Schedule": "@at tomorrow"}, 10189),
        ({"Nats_Schedule": "@at 2199-01-01 00:00:00Z"}, 10189),
        ({"Nats_Schedule": "@at 2199-01-01T00:00:00"}, 10189),
        ({"Nats_Schedule_TTL": "x"}, 10191),
        ({"Nats_Schedule_Target": "other.t"}, 10190),
        ({"Nats_Schedule_Target": "s.*"}, 10190),
        ({"Nats_Schedule_Target": "s.x"}, 10190),
    ):
        assert error(broker, **{**good, **change}) == code, change
