"""Streams and buckets as data, and `ensure`, which makes the broker match.

The one rule: a stream that held messages is never created anew in silence. What was last known of
each stream lies in `known.json` beside the store; a stream that has gone raises StreamVanished, one
that has gone back is reported as a Regression.
"""

from __future__ import annotations

import json
import os
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from nats.js import JetStreamContext
from nats.js.api import (
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError

from opsmesh.router import joined, paths, state_format
from opsmesh.router.errors import StreamVanished
from opsmesh.router.hub import cluster
from opsmesh.router.settings import Settings

EVENTS, DLQ, TRIGGERS, REPLAY = "EVENTS", "DLQ", "TRIGGERS", "REPLAY"
DECISIONS, FIRINGS, VERSIONS = "DECISIONS", "FIRINGS", "VERSIONS"
RUNS, WINDOWS, A2A = "opsmesh-runs", "opsmesh-windows", "opsmesh-a2a"
#: Keys of questions in the bucket of windows: those that are open, and those that ended.
QUESTIONS = ("asked", "ended")
#: The object store of evidence bundles, and its stream (ADR-20 of nats-architecture-and-design).
BUNDLES = "opsmesh-evidence"
BUNDLES_STREAM = f"OBJ_{BUNDLES}"

DAY = 86400.0
#: A dead letter waits this long for a person.
DLQ_MAX_AGE = 365 * DAY
#: How long a run's ledger entry is kept: redelivery and `run ls` look back this far.
RUNS_TTL = 30 * DAY
#: Profiles and readers of EVENTS at most: without a number of its own a stream takes 1,000 (server
#: 2.15's `default_max_consumers`).
MAX_CONSUMERS = 10_000
#: What of a stream's settings is kept as it should be.
_COMPARED: Final = (
    "subjects",
    "description",
    "max_age",
    "max_bytes",
    "duplicate_window",
    "num_replicas",
    "allow_direct",
    "allow_atomic",
    "allow_msg_ttl",
)
#: nats-server's errors.json: insufficient resources, of the memory, of the store.
NO_ROOM: Final = (10023, 10028, 10047)
#: The largest message the broker takes, less room for headers.
MAX_MESSAGE = 1024 * 1024
#: Seconds to wait for one answer about a stream or a consumer, for who asks again: a cluster that
#: has lost its leader answers nothing, and has another one after a few.
API_TIMEOUT: Final = 2.0

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A stream that is behind what was known of it: messages are missing."""

    stream: str
    last_known_seq: int
    found_seq: int


def streams(settings: Settings) -> list[StreamConfig]:
    """Every stream and bucket of the mesh, as it should be."""
    events = settings.events
    # a node of a cluster that had one copy of something would lose it with its machine
    replicas = events.replicas if cluster.read() is None else cluster.REPLICAS

    def stream(name: str, subject: str, description: str, **more: object) -> StreamConfig:
        defaults: dict[str, object] = {
            "storage": StorageType.FILE,
            "num_replicas": replicas,
            "discard": DiscardPolicy.OLD,
            "retention": RetentionPolicy.LIMITS,
            "duplicate_window": events.duplicate_window,
            "allow_direct": True,
            "allow_atomic": True,
            "allow_msg_ttl": True,
            "metadata": state_format.metadata_of(),
            "compression": StoreCompression.NONE,
        }
        config = {**defaults, **more}
        return StreamConfig(name=name, subjects=[subject], description=description, **config)  # type: ignore[arg-type]

    def objects(name: str, description: str, **more: object) -> StreamConfig:
        wanted = stream(f"OBJ_{name}", "", description, allow_rollup_hdrs=True, **more)
        wanted.subjects = [f"$O.{name}.C.>", f"$O.{name}.M.>"]
        return wanted

    def bucket(name: str, description: str, **more: object) -> StreamConfig:
        return stream(
            f"KV_{name}",
            f"$KV.{name}.>",
            description,
            max_msgs_per_subject=1,
            allow_rollup_hdrs=True,
            discard=DiscardPolicy.NEW,
            duplicate_window=120.0,
            **more,
        )

    return [
        stream(
            EVENTS,
            "evt.>",
            "every event, once",
            max_age=events.max_age,
            max_bytes=events.max_bytes,
            max_consumers=MAX_CONSUMERS,
        ),
        stream(DLQ, "dlq.>", "what no attempt could handle", max_age=DLQ_MAX_AGE),
        stream(
            DECISIONS,
            "dec.>",
            "why profiles did not fire",
            max_age=14 * DAY,
            max_bytes=2**30,
        ),
        # on their own, so that what is dull never pushes them out
        stream(
            FIRINGS,
            "fir.>",
            "why profiles fired, or would have in shadow",
            max_age=180 * DAY,
            max_bytes=2**30,
        ),
        stream(
            VERSIONS,
            "ver.>",
            "which text of each profile was in force from when",
            max_age=365 * DAY,
            max_bytes=2**28,
        ),
        stream(
            TRIGGERS,
            "trg.>",
            "events sent to one profile by hand",
            retention=RetentionPolicy.WORK_QUEUE,
        ),
        stream(
            REPLAY,
            "rpl.>",
            "copies for debugging",
            max_age=DAY,
            max_bytes=2**30,
        ),
        bucket(RUNS, "the effect ledger", max_age=RUNS_TTL),
        bucket(WINDOWS, "what profiles remember, and how far they have read"),
        bucket(A2A, "what agents beyond the mesh have asked for", max_age=RUNS_TTL),
        objects(
            BUNDLES,
            "evidence bundles, shared between hosts",
            max_age=settings.bundles.shared_age,
            max_bytes=settings.bundles.shared_bytes,
            max_consumers=MAX_CONSUMERS,
        ),
    ]


def replicated(info: StreamInfo) -> bool:
    """Whether the stream lies on several nodes: what is read of it may be a moment behind."""
    return (info.config.num_replicas or 1) > 1


def own_place(info: StreamInfo) -> dict[str, Any]:
    """The part of a consumer's configuration that says where it lies, for a reader that keeps its
    place itself and makes the consumer anew: in a cluster in one node's memory. With replicas of
    its own each would be a Raft group of three (measured: 60 ms to make instead of 2)."""
    return {"num_replicas": 1, "mem_storage": True} if replicated(info) else {}


async def ensure(js: JetStreamContext, settings: Settings, known: Known) -> list[Regression]:
    """Create what is missing, update what differs; idempotent. Returns what has gone back.

    Raises StreamVanished for a stream that held messages and is not there; StateTooNew and
    NeedsUpgrade for streams of another form, before anything is changed.
    """
    await check_form(js)
    regressions = []
    for wanted in streams(settings):
        name = wanted.name or ""
        last_known = known.last_seq(name)
        try:
            info = await js.stream_info(name)
        except NotFoundError:
            if last_known:
                raise StreamVanished(name, last_known) from None
            if await _made(js.add_stream(wanted), name):
                known.remember({name: 0})
            continue
        if changes(info.config, wanted):
            # the broker refuses every update that changes this one
            wanted.max_consumers = info.config.max_consumers
            wanted.sources = info.config.sources  # those are `hub.sourcing`'s
            await _made(js.update_stream(wanted), name)
        if info.state.last_seq < last_known:
            regressions.append(
                Regression(stream=name, last_known_seq=last_known, found_seq=info.state.last_seq)
            )
        known.remember({name: info.state.last_seq}, reset=True)
    return regressions


async def check_form(js: JetStreamContext) -> None:
    """Return when this version may work on the broker's streams, or there are none yet;
    StateTooNew or NeedsUpgrade when not."""
    try:
        found = (await js.stream_info(EVENTS)).config
    except NotFoundError:
        return
    state_format.check(state_format.of(found.metadata), "the broker")


def changes(have: StreamConfig, want: StreamConfig) -> list[tuple[str, object, object]]:
    """What `ensure` would change in a stream: a setting's name, as it is, as it should be."""
    found = [(name, _value(have, name), _value(want, name)) for name in _COMPARED]
    found.append(("form", state_format.of(have.metadata).format, state_format.FORMAT))
    return [(name, old, new) for name, old, new in found if old != new]


async def _made(making: Coroutine[Any, Any, object], name: str) -> bool:
    """Whether the broker has taken the stream. That it has no room for copies of bundles costs
    those, and not the mesh; whatever else it refuses is raised."""
    try:
        await making
    except APIError as error:
        if name != BUNDLES_STREAM or error.err_code not in NO_ROOM:
            raise
        hint = "nats.max_file_store and bundles.shared_bytes in config.yaml say how much there is"
        log.warning("stream.no_room", stream=name, error=error.description, hint=hint)
        return False
    return True


def _value(config: StreamConfig, name: str) -> object:
    found = getattr(config, name)
    unset = name.startswith("max_") and found in (None, -1, 0)
    return None if unset else found


def known_file() -> Path:
    """Where that is kept: a thin host's streams are its hub's, and are known with the hub; those of
    a cluster are others than a node had before."""
    if cluster.read() is not None:
        return Path(paths.state_dir(), cluster.KNOWN)
    member = joined.read()
    thin = member is not None and member.hub.kind == "thin"
    return Path(joined.folder() if thin else paths.state_dir(), "known.json")


class Known:
    """The last sequence seen of each stream, kept beside the store: `known.json`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._seqs: dict[str, int] = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            self._seqs = {}

    def __contains__(self, stream: str) -> bool:
        """Whether the stream was ever seen; not once its loss has been accepted."""
        return stream in self._seqs

    def last_seq(self, stream: str) -> int:
        """0 for a stream that was never seen to hold a message."""
        return self._seqs.get(stream, 0)

    def remember(self, seqs: dict[str, int], *, reset: bool = False) -> None:
        """Note new sequences and write the file; they only grow, unless `reset`."""
        before = dict(self._seqs)
        for stream, seq in seqs.items():
            self._seqs[stream] = seq if reset else max(seq, self._seqs.get(stream, 0))
        if self._seqs != before:
            self._write()

    def forget(self, names: Iterable[str] | None = None) -> None:
        """Accept the loss of these streams (all unless given): `doctor --accept-loss`."""
        for name in list(self._seqs) if names is None else names:
            self._seqs.pop(name, None)
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        new.write_text(json.dumps(self._seqs))
        new.replace(self._path)
