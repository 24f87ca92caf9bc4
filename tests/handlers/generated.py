"""Random profiles and events: the same seed gives the same ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import yaml

from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event

TOPICS = ("my.a.started", "my.a.done", "my.b.failed", "my.c.d.moved", "my.workspace.changed")
KEYS = 50
_WHERES = (
    "event.payload.n > 3",
    'event.severity == "error" && event.payload.k < 40',
    'event.payload.text.startsWith("x") || event.payload.n == 0',
    'last("my.workspace.changed") != null && last("my.workspace.changed").payload.n % 2 == 0',
    "event.payload.absent == 1 || event.payload.n > 5",
    'now > timestamp("2026-01-01T00:00:00Z") && event.payload.n < 8',
)


def profiles(seed: int, count: int) -> str:
    """A file of profiles with every clause in some mixture; none fires more than 10 times a
    second, so that runs do not take longer than decisions."""
    chance = random.Random(seed)
    made = {f"p{n}": _profile(chance, n) for n in range(count)}
    return yaml.safe_dump({"version": 1, "profiles": made})


def _profile(chance: random.Random, n: int) -> dict[str, Any]:
    def span(least: int, most: int) -> str:
        return f"{chance.randint(least, most)}ms"

    def key() -> list[str]:
        return chance.choice([["payload.k"], ["payload.k", "topic"], ["severity"], ["workspace"]])

    made: dict[str, Any] = {
        "on": chance.choice([["my.a.*"], ["my.b.failed"], ["my.>"], ["my.a.done", "my.c.d.moved"]]),
        "limits": {"runs": 10, "per": "1s"},
        "concurrency": {"limit": 8},
        # a handler that is killed during an attempt has made it
        "retry": {"attempts": 20},
        "actions": [{"emit": {"topic": f"fired.p{n}"}}],
    }
    if chance.random() < 0.6:
        made["where"] = chance.choice(_WHERES)
    kind = n % 7
    if kind == 0:
        made["debounce"] = {"window": span(20, 300), "key": key()}
    elif kind == 1:
        made["debounce"] = {
            "window": span(20, 200), "max_wait": "400ms", "key": key(), "edge": "trailing"
        }  # fmt: skip
    elif kind == 2:
        made["collect"] = {"window": span(50, 500), "max": chance.randint(2, 20), "key": key()}
    elif kind == 3:
        made["on"] = ["my.a.started"]
        made["unless"] = {"on": "my.a.done", "within": span(50, 500), "key": "payload.k"}
    elif kind == 4:
        made["on"] = ["my.b.failed", "my.a.done"]
        made["correlate"] = {
            "within": span(50, 500), "key": "payload.k", "ordered": chance.random() < 0.5
        }  # fmt: skip
    elif kind == 5:
        made["throttle"] = {"at_most": chance.randint(1, 5), "per": span(100, 900), "key": key()}
    else:
        made["where"] = _WHERES[3]
        made["on"] = ["my.a.*"]
    return made


def events(seed: int, count: int, host: str) -> Iterator[Event]:
    """Events of a few topics and many keys."""
    chance = random.Random(seed)
    for _ in range(count):
        event_id = ids.uuid7()
        yield Event(
            topic=chance.choice(TOPICS),
            ts_utc=times.format_us(times.now_us()),
            source="test",
            component="test",
            severity=chance.choice(("info", "error")),
            correlation_id=event_id,
            host=host,
            session_id="",
            workspace=chance.choice(("one", "two", "three")),
            payload={
                "k": chance.randrange(KEYS),
                "n": chance.randrange(10),
                "text": chance.choice(("x1", "y2", "x3")),
            },
            id=event_id,
        )
