"""The effect ledger: what every run has done, step by step, before and after it is done.

A run is one (profile, event, trigger). Its record is written with compare-and-set before each step
starts, so that a handler that dies leaves behind what was under way, and two handlers can never
both hold a run. docs/ledger.md tells who writes what when.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, Final, Literal, Self

import msgspec
import structlog
from nats.aio.client import Client

from opsmesh.handlers.actions.contract import OnUnknown, Otherwise
from opsmesh.handlers.runs.holder import LEASE, Holder, clock
from opsmesh.router import logs, topology
from opsmesh.router.connection import AWAY
from opsmesh.router.decide import EventRef
from opsmesh.router.kv import Bucket, Conflict, Put
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.schemas import ids

RunState = Literal[
    "queued",
    "running",
    "retrying",
    "waiting",
    "failing",
    "succeeded",
    "deadlettered",
    "skipped",
    "cancelled",
]
#: Runs that are begun in one batch.
BATCH: Final = 500
#: Seconds between attempts at a write while the broker is away.
AGAIN: Final = 1.0

#: Bytes of a message beside the record.
ROOM: Final = 1024

StepState = Literal["started", "done", "failed", "unknown", "skipped", "asked"]
#: What a person may answer.
Choice = Literal["retry", "skip", "fail"]
FINISHED: frozenset[RunState] = frozenset({"succeeded", "deadlettered", "skipped", "cancelled"})

log = structlog.get_logger()


class Replied(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a question ended; `via` is the surface on which somebody answered. It is withdrawn when
    its run ends before."""

    verdict: Literal["granted", "denied", "expired", "withdrawn"]
    at_us: int
    answer: Any = None
    by: str = ""
    host: str = ""
    via: str = ""
    comment: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question of a step, as it was put. `token_sha256` knows the token of surfaces that cannot
    say who is in front of them; `expires_us` is 0 for a question that waits for ever."""

    id: str
    name: str
    prompt: str
    asked_us: int
    otherwise: Otherwise
    token_sha256: str
    schema: dict[str, Any] | None = None
    expires_us: int = 0
    by: tuple[str, ...] = ()
    reply: Replied | None = None

    def expired(self, now_us: int) -> bool:
        """Whether nobody can answer any more."""
        return self.reply is None and 0 < self.expires_us <= now_us


class StepRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step of the newest attempt; times in microseconds since the epoch.

    `on_unknown` is that of the text by which it was started. `saved` is what the action needs to go
    on after an interruption, `asked` what it has asked people. `unknown_us` and `held_by` tell
    since when its outcome is unknown, and whose it was.
    """

    id: str
    action: str
    state: StepState
    started_us: int
    duration_ms: float | None = None
    exit_code: int | None = None
    output: dict[str, Any] = msgspec.field(default_factory=dict)
    evidence_path: str | None = None
    error: str | None = None
    on_unknown: OnUnknown = "retry"
    saved: dict[str, Any] = msgspec.field(default_factory=dict)
    asked: tuple[Asked, ...] = ()
    unknown_us: int = 0
    held_by: Holder | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person said of a step whose outcome is unknown."""

    step: str
    attempt: int
    choice: Choice
    by: str
    host: str
    at_us: int
    reason: str = ""


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
    #: When the end of a window fired it.
    due_us: int = 0
    data: str | None = None
    events: tuple[EventRef, ...] = ()
    slot: str = ""
    #: When the next attempt may begin.
    next_us: int = 0
    #: Why it was skipped or cancelled.
    reason: str = ""
    #: Whose it is, while a step is under way.
    holder: Holder | None = None
    answers: tuple[Answer, ...] = ()
    #: Where its dead letter lies.
    dlq_seq: int = 0

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

    @property
    def unsettled(self) -> StepRecord | None:
        """The step that is under way, or whose outcome is unknown."""
        return next((one for one in self.steps if one.state in ("started", "unknown")), None)

    @property
    def asking(self) -> StepRecord | None:
        """The step that has asked a person; the last of its questions is why the run waits."""
        if self.state != "waiting":
            return None
        return next((one for one in self.steps if one.state == "asked" and one.asked), None)

    @property
    def question(self) -> Asked | None:
        """What a person is asked, while nobody has answered."""
        step = self.asking
        return step.asked[-1] if step is not None and step.asked[-1].reply is None else None

    def answer(self, step: StepRecord) -> Answer | None:
        """What a person said of this step in this attempt."""
        given = (a for a in self.answers if (a.step, a.attempt) == (step.id, self.attempt))
        return next(given, None)


def run_key(profile: str, event_id: str, trigger_id: str = "") -> str:
    """`<profile>.<event id>`, and the trigger's id for a run that was asked for by hand."""
    # an id of a foreign event is any text; a derived one is always a subject token
    event = event_id if ids.unix_ms(event_id) is not None else ids.derived(0, event_id)
    return f"{profile}.{event}.{trigger_id}" if trigger_id else f"{profile}.{event}"


class Held:
    """A run that this handler holds: its record, and the revision that the next write names."""

    def __init__(
        self, ledger: Ledger, run: Run, revision: int, *, written: float | None = None
    ) -> None:
        self._ledger = ledger
        self.run = run
        self.revision = revision
        #: When the lease was last renewed, by `holder.clock`.
        self.renewed = clock() if written is None else written
        self._writing = asyncio.Lock()
        self._stored: asyncio.Task[int] | None = None

    @classmethod
    def on_its_way(cls, ledger: Ledger, run: Run, stored: Coroutine[None, None, int]) -> Self:
        """A run whose first record is being written: `stored` gives its revision."""
        held = cls(ledger, run, 0)
        held._stored = asyncio.create_task(stored)
        held._stored.add_done_callback(_heard)
        return held

    async def stored(self) -> None:
        """Return when the first record is on disk; Conflict when another one stands there."""
        if self._stored is not None:
            self.revision = await asyncio.shield(self._stored)
            self._stored = None

    async def save(self, now_us: int) -> None:
        """Write the record, however long the broker is away, and renew the lease; Conflict when
        another handler has taken the run over.

        What has been begun is written to its end also when the caller is cancelled meanwhile: the
        next write knows of it.
        """
        writing = asyncio.ensure_future(self._save(now_us))
        writing.add_done_callback(_heard)
        await asyncio.shield(writing)

    async def _save(self, now_us: int) -> None:
        async with self._writing:
            await self.stored()
            run, began = self.run, clock()
            run.updated_us = now_us
            if run.holder is not None:
                run.holder = self._ledger.leased(run.holder, now_us)
            self.revision = await self._ledger.write(run, self.revision)
            self.renewed = began


def _heard(task: asyncio.Future[Any]) -> None:
    """Its caller may be gone, and has no use for the error."""
    if not task.cancelled():
        task.exception()


class Ledger:
    """The bucket of runs. `lease_s` is how long a run is its holder's after each write."""

    def __init__(self, client: Client, *, lease_s: float = LEASE) -> None:
        self._client = client
        self.lease_s = lease_s
        self._bucket = Bucket(client, topology.RUNS)

    def leased(self, holder: Holder, now_us: int) -> Holder:
        """The holder, with a lease from now on."""
        until_us = now_us + round(self.lease_s * 1e6)
        return msgspec.structs.replace(holder, until_us=until_us)

    async def create(self, run: Run) -> Held | None:
        """Begin a run; None when it has been begun before."""
        began = clock()
        try:
            revision = await self._bucket.put(run.key, msgspec.json.encode(run))
        except Conflict:
            return None
        return Held(self, run, revision, written=began)

    def create_now(self, run: Run) -> Held | None:
        """Begin a run whose record is on its way, and will be stored whatever becomes of this
        process; None when that cannot be said: use `create_all`."""
        data = self._encode(run)
        answer = self._bucket.put_now(Put(run.key, data, revision=0))
        if answer is None:
            return None
        return Held.on_its_way(self, run, self._sure(run.key, data, answer))

    async def _sure(self, key: str, data: bytes, answer: Coroutine[None, None, int]) -> int:
        try:
            return await answer
        except (Conflict, *AWAY):
            return await self._write(key, data, 0)

    async def create_all(self, runs: Sequence[Run]) -> list[Held]:
        """Begin runs; one that has been begun before is what it is in the ledger."""
        held: list[Held] = []
        for start in range(0, len(runs), BATCH):
            held += await self._create_batch(runs[start : start + BATCH])
        return held

    async def _create_batch(self, runs: Sequence[Run]) -> list[Held]:
        began = clock()
        puts = [Put(run.key, msgspec.json.encode(run), revision=0) for run in runs]
        try:
            last = await self._bucket.put_all(puts)
        except Conflict:
            return [await self._create_or_get(run) for run in runs]
        # a batch is stored as one run of sequences
        first = last - len(runs) + 1
        return [Held(self, run, first + n, written=began) for n, run in enumerate(runs)]

    async def _create_or_get(self, run: Run) -> Held:
        while True:
            held = await self.create(run) or await self.get(run.key)
            if held is not None:
                return held

    async def write(self, run: Run, revision: int) -> int:
        """Write over `revision`, as often as the broker needs to be asked; the new revision.

        A write whose answer was lost is found again.
        """
        return await self._write(run.key, self._encode(run), revision)

    async def _write(self, key: str, data: bytes, revision: int) -> int:
        while True:
            try:
                return await self._bucket.put(key, data, revision=revision)
            except Conflict:
                stored = await self._bucket.get(key, after=revision)
                if stored is not None and stored.value == data:
                    return stored.revision
                raise
            except AWAY as error:
                if logs.away.allows(logs.BROKER):
                    log.warning("ledger.not_written", error=str(error) or type(error).__name__)
                await asyncio.sleep(AGAIN)

    def _encode(self, run: Run) -> bytes:
        """The record; without the longest outputs of its steps when it would be too long for the
        broker. Later steps of this attempt still have them."""
        data = msgspec.json.encode(run)
        steps = list(run.steps)
        longest = sorted(range(len(steps)), key=lambda n: -len(msgspec.json.encode(steps[n])))
        while len(data) > self._client.max_payload - ROOM and longest:
            n = longest.pop(0)
            dropped = {"dropped": "the record would be too long for the broker"}
            steps[n] = msgspec.structs.replace(steps[n], output=dropped)
            data = msgspec.json.encode(msgspec.structs.replace(run, steps=steps))
        return data

    async def get(self, key: str) -> Held | None:
        """A run's record, ready to go on with; None when it never began."""
        entry = await self._bucket.get(key)
        if entry is None:
            return None
        run = msgspec.json.decode(entry.value, type=Run)
        return Held(self, run, entry.revision)

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
                yield Held(self, run, delivery(msg.reply).stream_seq)

    def triggered(self) -> AsyncIterator[Held]:
        """Every run that somebody asked for: the third token of a key is the trigger's id."""
        return self.all("*.*")

    def subject(self, key: str) -> str:
        """The subject on which every write of a run can be heard."""
        return self._bucket.subjects.removesuffix(">") + key
