"""What must hold after every fault: one checker, which reads what is stored and nothing else.

It never makes a stream: a fault that lost one must not be mended by who looks for it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from opsmesh.handlers.evidence import reader
from opsmesh.handlers.evidence.report import Report
from opsmesh.handlers.evidence.verify import verify
from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.live.records import records
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import connection, deadletter, paths, spool
from opsmesh.router.deadletter import Letter
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
from opsmesh.router.sink_consumer import name as sink_consumer
from opsmesh.router.topology import EVENTS
from tests.conftest import run
from tests.faults.load import Load
from tests.faults.meshes import PROFILE, TOPIC, Mesh
from tests.faults.sizes import FAST

#: Seconds that a mesh has to come to rest after its fault.
REST = 120.0
#: What is said of a run at its end.
ENDS = ("automation.run.succeeded", "automation.run.deadlettered")
#: Seconds in which nothing may be stored any more.
STILL = 0.3


@dataclass
class Found:
    """What was stored, as the checker read it."""

    #: The id of each event in EVENTS, as often as it is there.
    stored: Counter[str] = field(default_factory=Counter)
    #: The same in evidence.
    archived: Counter[str] = field(default_factory=Counter)
    #: Each line of evidence that is an event: its envelope.
    events: list[dict[str, Any]] = field(default_factory=list)
    #: What evidence holds that is no event.
    undecodable: list[bytes] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    #: Recorded firings: profile and event.
    fired: list[tuple[str, str]] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    report: Report = field(default_factory=Report)


@asynccontextmanager
async def client() -> AsyncIterator[Client]:
    """A connection that changes nothing."""
    made = await connection.connect(connection.endpoint(Settings(), role="admin"), name="checker")
    try:
        yield made
    finally:
        await made.close()


def rest(mesh: Mesh, *, timeout: float = REST) -> None:
    """Return once everything that was accepted has gone its whole way."""
    run(_rest(mesh), timeout=timeout)


async def _rest(mesh: Mesh) -> None:
    async with client() as nc:
        last, left = -1, ""
        try:
            while True:
                try:
                    left, now = await _left(nc, mesh)
                except (NatsError, OSError, TimeoutError) as error:
                    left, now = f"{type(error).__name__}: {error}", -1
                if not left and now == last:
                    return
                last = now
                await asyncio.sleep(STILL)
        except asyncio.CancelledError:
            raise AssertionError(f"the mesh never came to rest: {left or 'still busy'}") from None


async def _left(nc: Client, mesh: Mesh) -> tuple[str, int]:
    """What is still under way, and the stream's last sequence."""
    if waiting := spool.names(paths.spool_dir()):
        return f"{len(waiting)} files in the spool", -1
    js = nc.jetstream()
    last = (await js.stream_info(EVENTS)).state.last_seq
    sinks = [sink_consumer(Settings().host)] if mesh.runs("sink") else []
    consumers = list(sinks)
    if mesh.runs("handlers"):
        host = Settings().host
        chosen = load_profiles(Path(paths.config_dir())).profiles.values()
        consumers += [consumer_name(profile, host) for profile in chosen]
    for consumer in consumers:
        try:
            info = await js.consumer_info(EVENTS, consumer)
        except NotFoundError:
            return f"no consumer {consumer}", -1
        late = info.num_ack_pending if consumer in sinks else 0
        if info.num_pending or late:
            return f"{consumer}: {info.num_pending} pending, {info.num_ack_pending} unacked", -1
    if mesh.runs("handlers"):
        runs = [one async for one in Ledger(nc).runs()]
        if busy := Counter(one.state for one in runs if not one.finished):
            return f"runs: {dict(busy)}", -1
        # a profile notes its place a moment later: whether all is decided, the firings tell
        begun = {one.event_id for one in runs if one.profile == PROFILE}
        events = [_event(msg.data) async for msg in scan(nc, EVENTS, subjects=[f"evt.*.{TOPIC}"])]
        if idle := [e for e in events if e and fires(mesh, e) and e["id"] not in begun]:
            return f"{len(idle)} firings have no run", -1
    return "", last


def fires(mesh: Mesh, event: Mapping[str, Any]) -> bool:
    """Whether the profile of the load acts on this event."""
    acts = mesh.effects.exists() and event["topic"] == TOPIC
    return acts and event["payload"]["n"] % mesh.every == 0


def look(mesh: Mesh) -> Found:
    """Read everything there is."""
    found = Found()
    for archived in reader.read(mesh.evidence):
        event = _event(archived.data)
        if event is None:
            found.undecodable.append(archived.data)
        else:
            found.events.append(event)
            found.archived[event["id"]] += 1
    found.report = verify(mesh.evidence)
    run(_stored(found))
    return found


async def _stored(found: Found) -> None:
    async with client() as nc:
        async for msg in scan(nc, EVENTS):
            event = _event(msg.data)
            if event is not None:
                found.stored[event["id"]] += 1
        found.runs = [one async for one in Ledger(nc).runs()]
        found.letters = [letter async for letter in deadletter.letters(nc)]
        found.fired = [
            (record.decision.profile, record.decision.event_id)
            async for record in records(nc, firings=True)
        ]


def _event(data: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(data)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "id" in event else None


def check(mesh: Mesh, load: Load, *, lost: Collection[str] = ()) -> Found:
    """Hold what is stored against what was acknowledged. `lost` are events that the fault took out
    of the stream itself: evidence must have them all the same."""
    found = look(mesh)
    acked = load.acked()
    assert len(set(acked)) == len(acked) == load.total
    missing = [id for id in acked if id not in found.archived]
    assert not missing, f"{len(missing)} acknowledged and not in evidence: {missing[:5]}"
    gone = [id for id in acked if id not in found.stored and id not in lost]
    assert not gone, f"{len(gone)} acknowledged and not in {EVENTS}: {gone[:5]}"
    once(found)
    in_order(found)
    intact(mesh, found, command=load.total > FAST)
    runs(mesh, found)
    return found


def once(found: Found) -> None:
    """No event is twice in evidence, or in the stream."""
    for where, counted in (("evidence", found.archived), (EVENTS, found.stored)):
        twice = [id for id, count in counted.items() if count > 1]
        assert not twice, f"{len(twice)} events twice in {where}: {twice[:5]}"


def in_order(found: Found) -> None:
    """Evidence holds the events of each source in the order in which it sent them."""
    sent: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in found.events:
        if event["topic"] == TOPIC:
            sent[event["source"], event["boot_id"]].append(event["seq"])
    for source, seqs in sent.items():
        late = [(a, b) for a, b in pairwise(seqs) if b <= a]
        assert not late, f"{source}: {len(late)} events after later ones: {late[:5]}"


def intact(mesh: Mesh, found: Found, *, command: bool = True) -> None:
    """`evidence verify` finds nothing, as a function and, unless told, as a command too."""
    assert found.report.problems == []
    if not command:
        return
    argv = [sys.executable, "-m", "opsmesh.cli.entry", "evidence", "verify"]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told
    assert any(line.startswith("intact: ") for line in told.stdout.splitlines()), told


def runs(mesh: Mesh, found: Found) -> None:
    """Each firing has one run, each run came to an end, its result is one event, and its effect
    happened once, or the ledger says why that cannot be known."""
    if not mesh.effects.exists():
        return
    wanted = [event["id"] for event in found.events if fires(mesh, event)]
    mine = [run for run in found.runs if run.profile == PROFILE]
    fired = [event for profile, event in found.fired if profile == PROFILE]
    same("firings", fired, wanted)
    same("runs", [run.event_id for run in mine], wanted)
    assert [run for run in found.runs if not run.finished] == []
    ended = [event["run_id"] for event in found.events if event["topic"] in ENDS]
    same("results", ended, [run.run_id for run in found.runs])
    effects = Counter(line.split()[0] for line in mesh.effects.read_text().splitlines())
    assert effects.keys() <= set(wanted)
    for one in mine:
        assert one.state == "succeeded", (one.state, one.errors)
        times = effects[one.event_id]
        assert 1 <= times <= one.attempt, f"{times} effects: {one}"


def same(what: str, have: Iterable[str], want: Iterable[str]) -> None:
    """As many of each as wanted, in whatever order."""
    found, wanted = Counter(have), Counter(want)
    missing, more = wanted - found, found - wanted
    assert not missing, f"{missing.total()} {what} are missing: {list(missing)[:5]}"
    assert not more, f"{more.total()} {what} too many: {list(more)[:5]}"
