"""The contract between the profile runner and an action, ours or a stranger's.

An action is made once, when its profile is loaded, and run once a step: it keeps nothing between
runs. It never sees NATS, and says how it went by what it returns, or by raising
`opsmesh.handlers.errors.Retry`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Protocol, Self, get_args, runtime_checkable

from opsmesh.handlers.actions.shared import Shared
from opsmesh.handlers.errors import NotRunnable, SecretMissing
from opsmesh.handlers.template import Template
from opsmesh.router.topic_patterns import listens
from opsmesh.schemas.envelope import Event
from opsmesh.schemas.redact import Redactor, built_in

#: How a run goes on after a step whose outcome nobody knows: docs/ledger.md.
OnUnknown = Literal["retry", "skip", "fail", "ask", "resume"]
ON_UNKNOWN: Final[tuple[OnUnknown, ...]] = get_args(OnUnknown)
#: Bytes of JSON that a step may save: they lie in the run's ledger entry.
MAX_SAVED: Final = 64 * 1024
#: What a step is cancelled with (`CancelledError.args`) when its run is not wanted any more. Any
#: other cancellation is a stop of this process, after which somebody goes on with the run.
CANCELLED: Final = "the run is cancelled"
#: What is done with a step that nobody let happen in time.
Otherwise = Literal["skip", "run", "fail"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a step asks of people. `name` is its own within the step; `prompt` is shown as text."""

    name: str
    prompt: str
    #: JSON Schema of the answer's value; None where yes or no is all.
    schema: Mapping[str, Any] | None = None
    #: Seconds until nobody is asked any more; None: never.
    expires_s: float | None = None
    otherwise: Otherwise = "fail"
    #: Who may answer; empty: whoever the mesh takes an answer from.
    by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How a question ended."""

    verdict: Literal["granted", "denied", "expired"]
    #: The value, where the question has a schema.
    answer: Any = None
    by: str = ""
    host: str = ""
    at_us: int = 0
    comment: str = ""


class Secrets(Protocol):
    """Where a step's secrets come from. What was got once is taken out of whatever the step shows;
    it never belongs into `StepContext.save`."""

    def get(self, name: str) -> str:
        """The secret; SecretMissing when there is none."""

    def fill(self, text: str) -> str:
        """The text, with each secret that it refers to as `${{ secret("name") }}`."""


class NoSecrets:
    """For whoever has no secrets to give."""

    def get(self, name: str) -> str:
        raise SecretMissing(name, "none are given here")

    def fill(self, text: str) -> str:
        return Template(text, secrets=True).fill({}, self.get)


async def _saved_nowhere(_: Mapping[str, Any]) -> None:
    """A step outside of a run has nothing to go on from."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """Which events of before: of these topic patterns, by the time at which they happened; of one
    host and with one correlation id where these are given; the newest `limit` of them."""

    topics: Sequence[str]
    since_us: int
    until_us: int
    limit: int
    host: str | None = None
    story: str | None = None

    def fits(self, event: Event) -> bool:
        """Whether the event is one of them."""
        return (
            self.since_us <= event.ts_us <= self.until_us
            and listens(self.topics, event.topic)
            and (self.host is None or event.host == self.host)
            and (self.story is None or event.correlation_id == self.story)
        )


#: Reads what the stream holds, the oldest first.
Recent = Callable[[Past], Awaitable[list[Event]]]


async def no_stream(_: Past) -> list[Event]:
    """A step outside of a mesh has no past to read."""
    return []


@dataclass(frozen=True, kw_only=True)
class Followed:
    """An event that came by: where and when it was stored."""

    seq: int
    stored_us: int
    event: Event


class Mesh(Protocol):
    """What a step may do in the mesh beside publishing."""

    def check(self, event: Event) -> None:
        """SchemaError for an event that the mesh does not take from anybody: of a topic whose
        payload is another one, or, with `strict_topics`, of one that is not registered."""

    async def trigger(self, profile: str, event: Event, *, id: str) -> None:
        """Have a profile run with this event, whatever it listens to; the event is no other
        profile's. Stored durably when it returns; asking again with the same id is harmless.
        NotRunnable when there is no such profile."""

    def follow(
        self, topics: Sequence[str], *, since_us: int | None = None, after_seq: int | None = None
    ) -> AsyncIterator[Followed]:
        """Every event of these topic patterns that was stored since then, and every one that will
        be, in their order. It ends where nothing more can come: in a test, or a rehearsal."""

    async def newest(self) -> int:
        """The sequence of the newest event that is stored; 0 for none."""


class NoMesh:
    """For a step outside of a mesh: nothing comes by, and there is nobody to run."""

    def check(self, event: Event) -> None:
        """Nobody knows."""

    async def trigger(self, profile: str, event: Event, *, id: str) -> None:
        raise NotRunnable(profile, "there is no mesh here")

    async def follow(
        self, topics: Sequence[str], *, since_us: int | None = None, after_seq: int | None = None
    ) -> AsyncIterator[Followed]:
        nothing: tuple[Followed, ...] = ()
        for found in nothing:
            yield found

    async def newest(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What a step knows of its event and its run."""

    event: Event
    #: The event's bytes as they are stored.
    data: bytes
    profile: str
    profile_hash: str
    run_id: str
    step_id: str
    #: 1 for the first attempt.
    attempt: int
    #: The same for every attempt of this step of this run.
    idempotency_key: str
    #: What a placeholder may name: event, steps (results by id), vars, run, host.
    variables: Mapping[str, Any]
    #: Seconds this step may take; None leaves it to the run's own limit.
    timeout: float | None
    #: Where `workdir` is.
    folder: Path
    #: Where evidence bundles are kept.
    bundles: Path
    #: Stores an event durably before it returns.
    publish: Callable[[Event], Awaitable[None]]
    host: str
    #: Seconds until the whole run is stopped; None outside of a run.
    left: float | None = None
    #: What an earlier go of this step, which was interrupted, has saved.
    saved: Mapping[str, Any] = field(default_factory=dict)
    #: Keeps what a later go needs to know, in place of what was kept before; it must be JSON, and
    #: is in the ledger when this returns. Later goes are there for actions that `resume`.
    save: Callable[[Mapping[str, Any]], Awaitable[None]] = _saved_nowhere
    #: How this step's questions (`errors.Ask`) ended, by their names.
    replies: Mapping[str, Reply] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=NoSecrets)
    #: Stored events of before.
    recent: Recent = no_stream
    mesh: Mesh = field(default_factory=NoMesh)
    #: When the event was stored, in microseconds since the epoch; 0 where it is not known.
    stored_us: int = 0
    #: What outlives a step: sessions, connections.
    shared: Shared = field(default_factory=Shared)
    #: Takes secrets out; what a step returns goes through it in any case.
    redactor: Redactor = field(default_factory=built_in)

    @property
    def workdir(self) -> Path:
        """A private folder of this run, made when it is first asked for: most steps need none, and
        a new folder can wait for a disk that is busy."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.folder

    @property
    def place(self) -> str:
        """What the commitments in this attempt's output and bundle are bound to."""
        return f"{self.idempotency_key}:{self.attempt}"


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """How a step went. `output` is what later steps see as `steps.<id>`; it must be JSON."""

    ok: bool
    output: dict[str, Any]
    exit_code: int | None = None
    evidence_path: str | None = None
    error: str | None = None
    #: Whether another attempt could end differently.
    retryable: bool = True
    #: Whether the run is dead-lettered in any case, also with `continue_on_error`.
    dead_letter: bool = False
    timed_out: bool = False


@runtime_checkable
class Action(Protocol):
    """One thing a step does.

    A class may also have `spec`, the pydantic model of its value: errors then name the nearest
    valid key, and editors complete it. With `on_unknown` (one of ON_UNKNOWN) it says what becomes
    of a step whose profile does not say it; without, that is `retry`. `resume` is an action's to
    say: it is run again within the attempt, with what it saved, and goes on from there. `takes_s`
    of an action that waits says how long it may: a profile's time limit has to be longer.
    """

    #: The key that names it in a step.
    key: ClassVar[str]

    @classmethod
    def parse(cls, value: Any) -> Self:
        """The action for the value written under its key; ValueError or ValidationError."""

    def describe(self) -> dict[str, Any]:
        """Its content as canonical JSON values; it goes into the profile's hash."""

    async def run(self, ctx: StepContext) -> StepResult:
        """Do it. Any exception but Retry counts as a failure that may be retried."""
