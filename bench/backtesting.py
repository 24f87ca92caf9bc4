"""Twenty profiles over an archive of a week: `opsmesh profile backtest`, without its start.

The archive is written by the sink's own code. An event passes the subjects of about one profile,
and one in ten passes none.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from figure import Figure, FigureError, Target, alternate
from lab import HOST, Lab
from opsmesh.handlers.backtest.jobs import over_archive
from opsmesh.handlers.backtest.result import Result
from opsmesh.handlers.evidence import segments
from opsmesh.handlers.evidence.archive import Archive
from opsmesh.handlers.profiles.profile import Profile, parse
from opsmesh.handlers.profiles.yamlfile import parse as parse_yaml
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import Event, Severity, encode
from opsmesh.schemas.ids import derived
from opsmesh.schemas.times import format_us

#: Events in the archive, and the seconds that a backtest of them may take.
AMOUNT: Final = 1_000_000
SECONDS: Final = 30
#: Events below which starting the processes is most of the time.
FEWEST: Final = 2_000
#: 2026-11-16T00:00:00Z in microseconds, and the length of the archive.
BEGIN_US: Final = 1_794_787_200_000_000
WEEK_US: Final = 7 * 86_400_000_000
#: Events of a topic that come together, and the time between two of them.
BURST: Final = 10
PAUSE_US: Final = 700_000
#: Lines that are written at once.
COMMIT: Final = 20_000

#: Topics that are decided by a profile each, in this order, and two that nobody listens to.
TOPICS: Final = (
    *("python.test.failed", "python.lint.failed", "python.type.failed", "python.test.passed"),
    *("service.start.failed", "service.restart.looped", "service.stop.ended", "service.oom.killed"),
    *("git.head.moved", "git.push.refused", "editor.file.saved", "editor.format.failed"),
    *("term.command.failed", "term.command.ended", "agent.task.failed", "agent.task.ended"),
    *("desktop.session.locked", "files.download.ended", "config.file.changed", "ci.run.failed"),
    *("desktop.window.focused", "files.index.updated"),
)

_THREE: Final = (
    'event.severity == "error" && event.payload.count > {} && event.payload.path.endsWith(".py")'
)
#: What a profile says beside `on`; each stands once, and the plain condition five times.
CLAUSES: Final[tuple[dict[str, Any], ...]] = (
    {"where": _THREE.format(3), "debounce": {"window": "30s", "key": ["payload.path"]}},
    {"where": _THREE.format(5)},
    {"debounce": {"window": "10s", "max_wait": "5m"}},
    {"where": _THREE.format(7), "throttle": {"at_most": 10, "per": "1h"}},
    {"unless": {"on": "service.restart.ended", "within": "5m"}},
    {"where": _THREE.format(2), "debounce": {"window": "1m", "edge": "trailing"}},
    {"collect": {"window": "10m", "max": 50}},
    {"where": _THREE.format(1), "limits": {"runs": 20, "per": "1h"}},
    {
        "where": _THREE.format(4),
        "collect": {"window": "1m"},
        "throttle": {"at_most": 5, "per": "1h"},
    },
    {"debounce": {"window": "5s", "edge": "trailing", "max_wait": "1m", "key": ["workspace"]}},
    {"where": _THREE.format(6), "unless": {"on": "editor.file.closed", "within": "2m"}},
    {"correlate": {"within": "1m", "key": ["workspace"]}},
    {"where": _THREE.format(3)},
    {"throttle": {"at_most": 3, "per": "1m", "key": ["workspace"]}},
    {"where": _THREE.format(3)},
    {"correlate": {"within": "1m", "key": ["workspace"], "ordered": True}},
    {"where": _THREE.format(8)},
    {"where": _THREE.format(3), "debounce": {"window": "30s"}},
    {"where": 'last("git.head.moved") == null || event.payload.count > 4'},
    {"where": _THREE.format(4), "throttle": {"at_most": 100, "per": "1d"}},
)


async def backtest(lab: Lab) -> list[Figure]:
    """A week of events, decided again by twenty profiles in a process for each core."""
    amount = lab.amount(AMOUNT, least=FEWEST)
    jobs = os.cpu_count() or 1
    folder = lab.folder / "evidence"
    profiles = _profiles()
    await asyncio.to_thread(_write, folder, amount)
    result = Result(profiles=[])

    async def ours(_: int) -> float:
        nonlocal result
        began = time.perf_counter()
        result = await asyncio.to_thread(over_archive, folder, profiles, jobs=jobs)
        return _rate(result.messages, amount, began)

    async def plain(_: int) -> float:
        began = time.perf_counter()
        return _rate(await asyncio.to_thread(_loads, folder), amount, began)

    # a round of the full amount takes long enough to be steady, and two would take too long
    rounds = min(lab.rounds, max(1, AMOUNT // amount))
    our_rates, plain_rates = await alternate(rounds, ours, plain)
    decided = sum(tested.events for tested in result.profiles)
    return [
        Figure(
            name="backtest",
            what="archived events through twenty profiles",
            unit="events/s",
            ours=our_rates,
            beside="json.loads of every line in one process",
            plain=plain_rates,
            target=Target(of="value", at="least", limit=AMOUNT / SECONDS),
            whole=amount >= AMOUNT,
            details={
                "events_a_round": amount,
                "seconds": [amount / rate for rate in our_rates],
                "jobs": jobs,
                "decided": decided,
                "firings": sum(len(tested.firings) for tested in result.profiles),
            },
        )
    ]


def _rate(seen: int, amount: int, began: float) -> float:
    rate = seen / (time.perf_counter() - began)
    if seen != amount:
        raise FigureError(f"{seen} events were read, {amount} are archived")
    return rate


def _loads(folder: Path) -> int:
    seen = 0
    for segment in segments.listing(folder):
        with segment.path.open("rb") as file:
            for raw in file:
                seen += "event" in json.loads(raw)
    return seen


def _profiles() -> list[Profile]:
    texts: dict[str, Any] = {}
    for number, clauses in enumerate(CLAUSES):
        topics = [TOPICS[number]]
        if "correlate" in clauses:  # the two of one producer, so that both parts come
            topics.insert(0, TOPICS[number - 1])
        texts[f"profile-{number:02d}"] = {"on": topics, **clauses, "actions": [{"emit": "a.b"}]}
    found = parse(parse_yaml(json.dumps({"profiles": texts}).encode(), file="bench.yaml"))
    if found.errors:
        raise FigureError(f"the profiles are broken: {found.errors[0]}")
    return list(found.profiles.values())


def _write(folder: Path, amount: int) -> None:
    with Archive(folder, stream=EVENTS, segment_bytes=64 * 2**20) as archive:
        for seq, (time_us, data) in enumerate(_events(amount), 1):
            archive.event(seq, time_us, data)
            if seq % COMMIT == 0:
                archive.commit()
        archive.commit()


def _events(amount: int) -> Iterator[tuple[int, bytes]]:
    """Spread over the week, in bursts of a few seconds."""
    step_us = max(1, WEEK_US * BURST // (amount + BURST))
    severities: tuple[Severity, ...] = ("error", "error", "warn", "info")
    for number in range(amount):
        burst, part = divmod(number, BURST)
        time_us = BEGIN_US + burst * step_us + part * min(PAUSE_US, step_us // BURST)
        event_id = derived(time_us // 1000, str(number))
        event = Event(
            topic=TOPICS[burst % len(TOPICS)],
            ts_utc=format_us(time_us),
            source="bench",
            component="samples",
            severity=severities[number % 7 % 4],
            correlation_id=event_id,
            host=HOST,
            session_id="1",
            workspace=f"/src/shop-{burst // 8 % 5}",
            payload={
                **{"tool": "ruff", "path": f"src/shop/module_{number % 3}.py"},
                **{"message": f"finding {number}", "count": number % 9 + 1},
                **{"line": number % 400 + 1, "column": 8, "code": "F401"},
            },
            id=event_id,
            schema_version="1.0",
        )
        yield time_us, encode(event)
