"""What a file of test cases may say: its keys, their types, limits and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from opsmesh.handlers.actions.spec import Duration, Spec
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Severity

#: The version of the files' form.
VERSION: Final = 1
#: When a case's clock starts, unless it says otherwise: a Monday morning.
START: Final = "2026-01-05T09:00:00Z"
#: The machine that decides, and that events come from, unless the case says otherwise.
HOST: Final = "laptop"
#: Events that one line of `given` may stand for.
MOST: Final = 1000

#: The longest time that a case may tell of, in seconds: a year.
LONGEST: Final = 366 * 86400.0
#: The last time that its clock may start at.
LATEST: Final = "2999-12-31T00:00:00Z"

#: What an event that does not fire can become.
Miss = Literal[
    "filtered", "debounced", "throttled", "collecting", "waiting", "duplicate", "suppressed"
]
#: What can decide.
Clause = Literal[
    "state",
    "run_on",
    "on",
    "hops",
    "where",
    "event",
    "unless",
    "correlate",
    "debounce",
    "collect",
    "throttle",
    "limits",
    "shadow",
]
#: Keys of `given` that are no fields of the event.
_CONTROL: Final = frozenset({"at", "repeat", "every", "check", "event"})


def _bounded(value: float) -> float:
    if value > LONGEST:
        raise ValueError("longer than a year, the limit")
    return value


def _moment(value: Any) -> Any:
    try:
        known = 0 <= times.parse_us(value) <= times.parse_us(LATEST)
    except (TypeError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{value!r} is no time like {START}")
    return value


def _listed(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise ValueError("write a number, or a list with a mapping for each")


def _counted(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    try:
        return _listed(value)
    except ValueError:
        raise ValueError(
            "write a number, numbers by outcome, or a list with a mapping for each"
        ) from None


#: A time on the case's clock.
Span = Annotated[Duration, AfterValidator(_bounded)]
#: A time.
Moment = Annotated[str, BeforeValidator(_moment)]
Count = Annotated[int, Field(ge=0)]


class DefaultsSpec(Spec):
    """Fields of every event of the file that does not say otherwise."""

    host: Annotated[str, Field(min_length=1, description="Also the host that decides.")] = HOST
    workspace: str = ""
    source: str = "test"
    component: str = "test"
    session_id: str = ""
    severity: Annotated[
        Severity | None, Field(description="That of the registered topic unless given.")
    ] = None


class GivenSpec(Spec):
    """An event, by its fields or as a whole envelope; `at` is when the broker stores it."""

    at: Span = 0.0
    repeat: Annotated[int, Field(ge=1, le=MOST)] = 1
    every: Span = 0.0
    check: Annotated[bool, Field(description="Whether the payload must fit its topic.")] = True
    event: Annotated[dict[str, Any] | None, Field(description="A whole envelope.")] = None
    topic: str | None = None
    payload: dict[str, Any] = Field(default_factory=dict)
    host: str | None = None
    workspace: str | None = None
    source: str | None = None
    component: str | None = None
    session_id: str | None = None
    severity: Severity | None = None
    hops: int | None = None
    exit_code: int | None = None
    duration_ms: float | None = None
    evidence_path: str | None = None
    run_id: str | None = None
    attempt: int | None = None
    id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        own = sorted(self.model_fields_set - _CONTROL)
        if self.event is None and self.topic is None:
            raise ValueError("an event needs a 'topic', or an 'event' with the whole envelope")
        if self.event is not None and own:
            raise ValueError(f"{own[0]!r} beside 'event'; put it into the envelope")
        if "every" in self.model_fields_set and self.repeat == 1:
            raise ValueError("'every' without 'repeat'; say how often")
        return self

    def fields(self) -> dict[str, Any]:
        """The event's fields as far as they are given."""
        if self.event is not None:
            return dict(self.event)
        given = self.model_dump(include=self.model_fields_set - _CONTROL)
        return {name: value for name, value in given.items() if value is not None}


class FiringSpec(Spec):
    """A run that should start. What is not named may be anything."""

    at: Span | None = None
    topic: str | None = None
    clause: Clause | None = None
    reason: Annotated[str | None, Field(description="What the reason contains.")] = None
    events: Annotated[int | None, Field(ge=1)] = None
    arguments: Annotated[
        dict[str, Any], Field(description="By step: what its placeholders become.")
    ] = Field(default_factory=dict)


class MissSpec(Spec):
    """An event that should not fire. What is not named may be anything."""

    at: Span | None = None
    topic: str | None = None
    outcome: Miss | None = None
    clause: Clause | None = None
    reason: Annotated[str | None, Field(description="What the reason contains.")] = None


class CountsSpec(Spec):
    """How many events end so; outcomes that are not named are not counted."""

    filtered: Count | None = None
    debounced: Count | None = None
    throttled: Count | None = None
    collecting: Count | None = None
    waiting: Count | None = None
    duplicate: Count | None = None
    suppressed: Count | None = None


class ExpectSpec(Spec):
    """What should happen. The parts of `fires` and `suppressed` are read by `cases`."""

    fires: Annotated[Any, AfterValidator(_listed)] = None
    suppressed: Annotated[Any, AfterValidator(_counted)] = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("nothing is expected; write 'fires' or 'suppressed'")
        return self


class CaseSpec(Spec):
    """One case."""

    name: Annotated[str, Field(min_length=1)]
    profile: str
    at: Moment = START
    host: Annotated[str | None, Field(min_length=1, description="The host that decides.")] = None
    given: Annotated[list[GivenSpec], Field(min_length=1)]
    until: Span | None = None
    expect: ExpectSpec


class FileSpec(Spec):
    """A file; its cases are read one by one, so that one that is wrong does not hide the others."""

    version: Literal[1] = VERSION
    profiles: Annotated[str | None, Field(min_length=1)] = None
    defaults: DefaultsSpec = DefaultsSpec()
    cases: Annotated[list[dict[str, Any]], Field(min_length=1)]
