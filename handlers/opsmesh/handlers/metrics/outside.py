"""What is seen of the mesh from outside of its processes: the broker's streams and consumers, and
how each component runs. A broker that is away costs its own figures, and no others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo
from nats.js.errors import APIError, NotFoundError

from opsmesh.handlers.live.consumers import ACTIVE
from opsmesh.router import listing, running, sink_consumer
from opsmesh.router.errors import PermissionDenied
from opsmesh.router.metrics.book import Figure, Kind, Labels, Series
from opsmesh.router.release import version
from opsmesh.router.supervisor_state import State, Status
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import host_token

#: Seconds for each question to the broker, and for all of them.
TIMEOUT: Final = 2.0
PATIENCE: Final = 4.0

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def _gauge(name: str, help: str, *labels: str, kind: Kind = "gauge") -> Figure:
    return Figure(name=name, kind=kind, help=help, labels=labels)


BUILD: Final = _gauge("opsmesh_build_info", "1, with the version that tells this.", "version")
UP: Final = _gauge(
    "opsmesh_component_up", "1 for a component of the mesh that runs, else 0.", "component"
)
RESTARTS: Final = _gauge(
    "opsmesh_component_restarts_total",
    "Times that a component ended by itself and was started again, since the mesh was started.",
    "component",
    kind="counter",
)
MEMORY: Final = _gauge(
    "opsmesh_component_resident_memory_bytes", "Memory of a component's process.", "component"
)
CPU: Final = _gauge(
    "opsmesh_component_cpu_seconds_total",
    "Processor time of a component's process, without its children.",
    "component",
    kind="counter",
)
STARTED: Final = _gauge(
    "opsmesh_component_start_timestamp_seconds",
    "When a component's process began, in Unix time.",
    "component",
)
FILES: Final = _gauge(
    "opsmesh_component_open_files", "Files and sockets that a process has open.", "component"
)
BROKER: Final = _gauge("opsmesh_broker_up", "1 while the broker answers, else 0.")
STREAM_MESSAGES: Final = _gauge(
    "opsmesh_stream_messages", "Messages that a stream holds; DLQ has the dead letters.", "stream"
)
STREAM_BYTES: Final = _gauge("opsmesh_stream_bytes", "What a stream takes on disk.", "stream")
STREAM_LIMIT: Final = _gauge(
    "opsmesh_stream_limit_bytes", "What a stream may take on disk, where that is bounded.", "stream"
)
STREAM_SEQUENCE: Final = _gauge(
    "opsmesh_stream_last_sequence", "The sequence of a stream's newest message.", "stream"
)
LAG: Final = _gauge(
    "opsmesh_profile_lag_events", "Events that wait for a profile's decision.", "profile"
)
SINK_LAG: Final = _gauge(
    "opsmesh_evidence_lag_events", "Events that are stored, and not in the archive yet."
)

FIGURES: Final = (
    *(BUILD, UP, RESTARTS, MEMORY, CPU, STARTED, FILES, BROKER, STREAM_MESSAGES, STREAM_BYTES),
    *(STREAM_LIMIT, STREAM_SEQUENCE, LAG, SINK_LAG),
)


def _with(figure: Figure, values: dict[Labels, float]) -> Figure:
    series = [Series(labels, value) for labels, value in values.items()]
    return msgspec.structs.replace(figure, series=series)


async def components() -> list[Figure]:
    """How each component of the mesh on this machine runs."""
    state = await asyncio.to_thread(running.mesh)
    return [_with(BUILD, {(version(),): 1}), *_components(state)]


def _components(state: State | None) -> list[Figure]:
    listed = [one for one in state.components if one.state != "waiting"] if state else []
    processes = {(one.name,): found for one in listed if (found := _process(one)) is not None}
    return [
        _with(UP, {(one.name,): int(one.state == "running") for one in listed}),
        _with(RESTARTS, {(one.name,): one.restarts for one in listed}),
        *(
            _with(figure, {labels: found[figure.name] for labels, found in processes.items()})
            for figure in (MEMORY, CPU, STARTED, FILES)
        ),
    ]


def _process(one: Status) -> dict[str, float] | None:
    """What the kernel says of it; None when it is gone, or not to be seen from here."""
    if one.pid is None:
        return None
    folder = Path(f"/proc/{one.pid}")
    try:
        # proc_pid_stat(5), from the third field on: the name before may hold anything
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        if one.birth is not None and int(fields[19]) != one.birth:
            return None
        boot = next(
            int(line.split()[1])
            for line in Path("/proc/stat").read_text().splitlines()
            if line.startswith("btime ")
        )
        return {
            MEMORY.name: int(fields[21]) * _PAGE_BYTES,
            CPU.name: (int(fields[11]) + int(fields[12])) / _TICKS,
            STARTED.name: boot + int(fields[19]) / _TICKS,
            FILES.name: sum(1 for _ in (folder / "fd").iterdir()),
        }
    except (OSError, ValueError, IndexError, StopIteration):
        return None


async def broker(client: Client | None, *, host: str) -> list[Figure]:
    """What the broker says; of one that is away, that it is."""
    if client is None or not client.is_connected:
        return [_with(BROKER, {(): 0})]
    try:
        async with asyncio.timeout(PATIENCE):
            return [*await _asked(client, host), _with(BROKER, {(): 1})]
    except (NatsError, APIError, OSError, TimeoutError, PermissionDenied):
        return [_with(BROKER, {(): 0})]


async def _asked(client: Client, host: str) -> list[Figure]:
    js = client.jetstream(timeout=TIMEOUT)
    streams, readers = await asyncio.gather(listing.streams(js), _consumers(js))
    waits = {name: (one.num_pending or 0) + (one.num_ack_pending or 0) for name, one in readers}
    names = [((one.config.name or "",), one) for one in streams]
    found = [
        _with(STREAM_MESSAGES, {name: one.state.messages for name, one in names}),
        _with(STREAM_BYTES, {name: one.state.bytes for name, one in names}),
        _with(
            STREAM_LIMIT,
            {name: limit for name, one in names if (limit := one.config.max_bytes or 0) > 0},
        ),
        _with(STREAM_SEQUENCE, {name: one.state.last_seq for name, one in names}),
        _with(LAG, _lags(waits, host)),
    ]
    # an acknowledgement of the sink follows the disk, and is for all before it
    if (behind := waits.get(sink_consumer.name(host))) is not None:
        found.append(_with(SINK_LAG, {(): behind}))
    return found


def _lags(waits: dict[str, int], host: str) -> dict[Labels, float]:
    """By profile: those of this host, and those that all hosts share."""
    here = f"-on-{host_token(host)}"
    mine = {
        name.removeprefix(f"{ACTIVE}-").removesuffix(here): count
        for name, count in waits.items()
        if name.startswith(f"{ACTIVE}-") and (name.endswith(here) or "-on-" not in name)
    }
    return {(name,): count for name, count in mine.items()}


async def _consumers(js: JetStreamContext) -> Iterable[tuple[str, ConsumerInfo]]:
    try:
        return (await listing.consumers(js, EVENTS)).items()
    except NotFoundError:  # the agent has not made the stream yet
        return ()
