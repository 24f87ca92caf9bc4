"""The contract between the profile runner and an action, ours or a stranger's.

An action is made once, when its profile is loaded, and run once a step: it keeps nothing between
runs. It never sees NATS, and says how it went by what it returns, or by raising
`opsmesh.handlers.errors.Retry`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Protocol, Self, get_args, runtime_checkable

from opsmesh.schemas.envelope import Event
from opsmesh.schemas.redact import Redactor, built_in

#: How a run goes on after a step whose outcome nobody knows: docs/ledger.md.
OnUnknown = Literal["retry", "skip", "fail", "ask"]
ON_UNKNOWN: Final[tuple[OnUnknown, ...]] = get_args(OnUnknown)


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
    timed_out: bool = False


@runtime_checkable
class Action(Protocol):
    """One thing a step does.

    A class may also have `spec`, the pydantic model of its value: errors then name the nearest
    valid key, and editors complete it. With `on_unknown` (one of ON_UNKNOWN) it says what becomes
    of a step whose profile does not say it; without, that is `retry`.
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
