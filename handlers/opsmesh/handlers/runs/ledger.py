"""The effect ledger: what every run has done, step by step, before and after it is done.

A run is one (profile, event, trigger). Its record is written with compare-and-set before each step
starts, so that a handler that dies leaves behind what was under way, and two handlers can never
both hold a run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Literal

import msgspec
from nats.aio.client import Client

from opsmesh.router import topology
from opsmesh.router.decide import EventRef
from opsmesh.router.kv import Bucket, Conflict, Put
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.schemas import ids

RunState = Literal[
    "queued", "running", "retrying", "succeeded", "deadlettered", "skipped", "cancelled"
]
#: Runs that are begun in one batch.
BATCH: Final = 500

StepState = Literal["started", "done", "failed", "unknown", "skipped"]
FINISHED: frozenset[RunState] = frozenset({"succeeded", "deadlettered", "skipped", "cancelled"})


class StepRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step of the newest attempt; times in microseconds since the epoch."""

    id: str
    action: str
    state: StepState
    started_us: int
    duration_ms: float | None = None
    exit_code: int | None = None
    output: dict[str, Any] = msgspec.field(default_factory=dict)
    evidence_path: str | None = None
    error: str | None = None


class AttemptError(msgspec.Struct, frozen=True, kw_only=True):
    """Why one attempt failed."""

    attempt: int
    at_us: int
    step: str
    error: str


class Run(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One run's record.

    `stream_seq` and `stored_us` tell where its event lies in EVENTS; `data` holds the event's bytes
    where it does not. `events` are all events of a firing that is about several. `slot` is the
    value of the profile's concurrency key.
    """

    run_id: str
    profile: str
    profile_hash: str
    event_id: str
    topic: str
    correlation_id: str
    host: str
    stream_seq: int
    created_us: int
    updated_us: int
    trigger: str = "event"
    trigger_id: str = ""
    state: RunState = "queued"
    attempt: int = 0
    steps: list[StepRecord] = msgspec.field(default_factory=list)
    errors: list[AttemptError] = msgspec.field(default_factory=list)
    duration_ms: float | None = None
    evidence_path: str | None = None
    consumer: str = ""
    stored_us: int = 0
    data: str | None = None
    events: tuple[EventRef, ...] = ()
    slot: str = ""
    #: When the next attempt may begin.
    next_us: int = 0
    #: Why it was skipped or cancelled.
    reason: str = ""

    @property
    def key(self) -> str:
        """Its key in the ledger."""
        return run_key(self.profile, self.event_id, self.trigger_id)

    @property
    def finished(self) -> bool:
        """True when no handler will touch it again."""
        return self.state in FINISHED

    def step(self, step_id: str) -> StepRecord | None:
        """The record of a step, None when it has not started."""
        return next((step for step in self.steps if step.id == step_id), None)


def run_key(profile: str, event_id: str, trigger_id: str = "") -> str:
    """`<profile>.<event id>`, and the trigger's id for a run that was asked for by hand."""
    # an id of a foreign event is any text; a derived one is always a subject token
    event = event_id if ids.unix_ms(event_id) is not None else ids.derived(0, event_id)
    return f"{profile}.{event}.{trigger_id}" if trigger_id else f"{profile}.{event}"


class Held:
    """A run that this handler holds: its record, and the revision that the next write names."""

    def __init__(self, bucket: Bucket, run: Run, revision: int) -> None:
        self._bucket = bucket
        self.run = run
        self._revision = revision

    async def save(self, now_us: int) -> None:
        """Write the record; Conflict when another handler has taken the run over."""
        self.run.updated_us = now_us
        self._revision = await self._bucket.put(
            self.run.key, msgspec.json.encode(self.run), revision=self._revision
        )


class Ledger:
    """The bucket of runs."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._bucket = Bucket(client, topology.RUNS)

    async def create(self, run: Run) -> Held | None:
        """Begin a run; None when it has been begun before."""
        try:
            revision = await self._bucket.put(run.key, msgspec.json.encode(run))
        except Conflict:
            return None
        return Held(self._bucket, run, revision)

    async def create_all(self, runs: Sequence[Run]) -> list[Held]:
        """Begin runs; one that has been begun before is what it is in the ledger."""
        held: list[Held] = []
        for start in range(0, len(runs), BATCH):
            held += await self._create_batch(runs[start : start + BATCH])
        return held

    async def _create_batch(self, runs: Sequence[Run]) -> list[Held]:
        puts = [Put(run.key, msgspec.json.encode(run), revision=0) for run in runs]
        try:
            last = await self._bucket.put_all(puts)
        except Conflict:
            return [await self._create_or_get(run) for run in runs]
        # a batch is stored as one run of sequences
        first = last - len(runs) + 1
        return [Held(self._bucket, run, first + n) for n, run in enumerate(runs)]

    async def _create_or_get(self, run: Run) -> Held:
        while True:
            held = await self.create(run) or await self.get(run.key)
            if held is not None:
                return held

    async def get(self, key: str) -> Held | None:
        """A run's record, ready to go on with; None when it never began."""
        entry = await self._bucket.get(key)
        if entry is None:
            return None
        run = msgspec.json.decode(entry.value, type=Run)
        return Held(self._bucket, run, entry.revision)

    async def runs(self, profile: str | None = None) -> AsyncIterator[Run]:
        """Every run that is remembered, the oldest change first."""
        async for held in self.all(profile):
            yield held.run

    async def all(self, profile: str | None = None) -> AsyncIterator[Held]:
        """Every run that is remembered, ready to go on with, the oldest change first."""
        prefix = self._bucket.subjects.removesuffix(">")
        subjects = [f"{prefix}{profile}.>" if profile else f"{prefix}>"]
        async for msg in scan(
            self._client, self._bucket.stream, subjects=subjects, newest_per_subject=True
        ):
            if msg.data:
                run = msgspec.json.decode(msg.data, type=Run)
                yield Held(self._bucket, run, delivery(msg.reply).stream_seq)
