"""Equal failures are one group; different ones are not."""

from __future__ import annotations

import pytest

from opsmesh.cli.dlq import groups
from opsmesh.router.deadletter import Letter


def letter(reason: str, *, seq: int = 1, profile: str = "p", topic: str = "a.b") -> Letter:
    return Letter(
        seq=seq,
        stored_us=seq * 1000,
        profile=profile,
        profile_hash="",
        event_id="",
        topic=topic,
        host="h",
        reason=reason,
        errors=[],
        run_id="",
        origin="",
        origin_seq=0,
        origin_us=0,
        data=b"",
        headers={},
    )


@pytest.mark.parametrize(
    ("reason", "normal"),
    [
        ("the run took over 60 s", "the run took over <n> s"),
        ("attempt 3 of 4 after 1.5 s", "attempt <n> of <n> after <n> s"),
        (
            "event 01a20af3-56e2-79fa-9ebc-ed145e0b83ba is no longer in EVENTS at sequence 17",
            "event <id> is no longer in EVENTS at sequence <n>",
        ),
        ("cannot open /var/lib/x y: denied", "cannot open <path> y: denied"),
        ("tests/test_a.py::test_b[1] failed", "<path> failed"),
        ("src/app.py:17:4: boom", "<path>: boom"),
        ("object at 0x7f3a2b1c", "object at <hex>"),
        ("commit 3f9c1d2ab4 is gone", "commit <hex> is gone"),
        ("at 2026-11-27T07:27:14.123456Z it ended", "at <time> it ended"),
        ("since 07:27:14 nothing", "since <time> nothing"),
        ("connect to 10.0.0.7:4222 refused", "connect to <address> refused"),
        ("GET https://a.example/x?y=1 failed", "GET <url> failed"),
        ("a  b\tc", "a b c"),
    ],
)
def test_what_differs_is_a_placeholder(reason: str, normal: str) -> None:
    """Numbers, ids, paths, addresses and times are what equal failures differ in."""
    assert groups.normal(reason) == normal


@pytest.mark.parametrize(
    "reason",
    [
        "exit status 1",
        "exit code 127: not found",
        "killed by signal 9",
        "OSError: errno 28",
        "HTTP 404 from the server",
        "command 'notify-send' is not found in PATH",
        "read/write error",
        "utf8 sha256 node3",
        "facade deadbeef",
    ],
)
def test_what_tells_failures_apart_stays(reason: str) -> None:
    """Statuses, names and ordinary words are part of the failure."""
    assert groups.normal(reason) == reason


def test_summary() -> None:
    """The largest group comes first, with its span, its topics and its newest letter."""
    found = groups.grouped(
        [
            letter("took 1 s", seq=1),
            letter("exit status 1", seq=2),
            letter("took 20 s", seq=3, topic="c.d"),
            letter("took 3 s", seq=4, profile="other"),
        ]
    )
    assert [(g.count, g.profile, g.reason) for g in found] == [
        (2, "p", "took <n> s"),
        (1, "p", "exit status 1"),
        (1, "other", "took <n> s"),
    ]
    first = found[0]
    assert (first.first_us, first.last_us, first.example_seq) == (1000, 3000, 3)
    assert (first.topics, first.example_reason) == (["a.b", "c.d"], "took 20 s")
    assert first.key == groups.key(letter("took 99 s"))


def test_a_long_reason_costs_little() -> None:
    """No reason makes the patterns run away: 100,000 awkward characters take under a second."""
    import time

    began = time.process_time()
    for text in ("a/" * 20_000, "1." * 20_000, "0" * 40_000, "./" * 20_000, "a-" * 20_000):
        groups.normal(text)
    assert time.process_time() - began < 1
