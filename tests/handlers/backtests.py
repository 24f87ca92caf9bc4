"""Events, profiles and archives for the tests of backtests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from opsmesh.handlers.backtest.source import Stored
from opsmesh.handlers.evidence.archive import Archive
from opsmesh.handlers.profiles.profile import Profile, parse
from opsmesh.handlers.profiles.yamlfile import parse as parse_yaml
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import complete

#: 2026-11-23T09:00:00Z in microseconds.
MORNING = 1_795_424_400_000_000
DAY = 86_400_000_000
ACTIONS = "actions: [{emit: b.c}]"


def message(
    seq: int, at_s: float, topic: str = "a.b", *, host: str = "dev", **payload: Any
) -> Stored:
    """One stored event; its id tells its sequence."""
    fields = {"topic": topic, "host": host, "payload": payload, "id": f"event-{seq}"}
    defaults = {
        **{"session_id": "1", "workspace": "/src", "source": "test", "component": "test"},
        "severity": "error",
    }
    time_us = MORNING + round(at_s * 1e6)
    data, _ = complete(fields, defaults=defaults, now_us=time_us)
    return Stored(EVENTS, seq, time_us, data)


def series(*parts: tuple[float, str] | tuple[float, str, dict[str, Any]]) -> list[Stored]:
    """Events at these seconds, of these topics, with these further facts."""
    return [
        message(seq, at_s, topic, **(rest[0] if rest else {}))
        for seq, (at_s, topic, *rest) in enumerate(parts, 1)
    ]


def profiles(text: str) -> list[Profile]:
    """The profiles of a file's text: `name: {…}` a line, each gets its actions."""
    lines = [f"  {line.strip()[:-1]}, {ACTIONS}}}" for line in text.strip().splitlines()]
    found = parse(parse_yaml("\n".join(["profiles:", *lines]).encode(), file="p.yaml"))
    assert found.errors == []
    return list(found.profiles.values())


def archived(folder: Path, messages: Iterable[Stored]) -> Path:
    """An archive that holds them, in small segments."""
    with Archive(folder, stream=EVENTS, segment_bytes=20_000) as archive:
        for one in messages:
            archive.event(one.seq, one.time_us, one.data)
        archive.commit()
    return folder


BURSTS = series(
    *((at, "a.b") for at in (0, 1, 2, 3, 60, 61)),
    *((100 + at, "a.c", {"n": at}) for at in range(5)),
    (200, "nobody.listens"),
)
