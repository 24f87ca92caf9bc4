"""What a profile's text may say: its keys, their types, limits and defaults.

Keys that the design has and this version has not are refused by name: a profile that reads as if
it were throttled must not run unthrottled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from opsmesh.handlers.actions.spec import Duration, Spec
from opsmesh.router.conditions import Expression
from opsmesh.router.decide import DEFAULT_MAX_HOPS, Debounce, ProfileState
from opsmesh.router.retry import Retry
from opsmesh.schemas.envelope import FIELDS
from opsmesh.schemas.nearest import did_you_mean

#: Seconds a whole attempt of a run may take, unless the profile says otherwise.
DEFAULT_TIMEOUT_S: Final = 60.0
#: What a condition may name.
WHERE_NAMES: Final = ("event", "host", "vars")

#: Keys of later versions, by where they stand.
LATER: Final = frozenset(
    {
        *("throttle", "collect", "correlate", "unless", "limits", "slo", "approve", "notify"),
        *("mcp", "a2a", "concurrency.mode", "concurrency.key", "debounce.edge"),
        *("actions.approve", "actions.mcp", "actions.a2a", "actions.notify"),
    }
)

_TOKEN = re.compile(r"[a-z0-9_]+|\*")
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*", re.ASCII)
_MAX_TOKENS: Final = 6
_RETRY: Final = Retry()


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _pattern(value: str) -> str:
    tokens = value.split(".")
    if tokens[-1] == ">" and len(tokens) > 1:
        tokens = [*tokens[:-1], "*"]
    if not 2 <= len(tokens) <= _MAX_TOKENS or not all(map(_TOKEN.fullmatch, tokens)):
        raise ValueError(
            f"{value!r} matches no topic: write 2 to {_MAX_TOKENS} tokens of [a-z0-9_] joined by "
            "dots, where a token may be *, and the last one >"
        )
    return value


def _disjoint(patterns: tuple[str, ...]) -> tuple[str, ...]:
    # The broker refuses a consumer with filters that overlap.
    for i, one in enumerate(patterns):
        for other in patterns[:i]:
            if _overlap(one.split("."), other.split(".")):
                raise ValueError(f"{other!r} and {one!r} match the same topics; keep the wider one")
    return patterns


def _overlap(one: list[str], other: list[str]) -> bool:
    for a, b in zip(one, other, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(one) == len(other)


def _condition(value: str) -> str:
    expression = Expression(value)
    for name in sorted(expression.names.difference(WHERE_NAMES)):
        known = did_you_mean(name, WHERE_NAMES) or f"; there are {', '.join(WHERE_NAMES)}"
        raise ValueError(f"unknown name {name!r}{known}")
    return value


def _field(value: str) -> str:
    path = value.removeprefix("event.")
    name = path.partition(".")[0]
    if not _PATH.fullmatch(path):
        raise ValueError(f"{value!r} is no path of fields, like payload.unit")
    if name not in FIELDS:
        raise ValueError(f"an event has no field {name!r}{did_you_mean(name, FIELDS)}")
    return path


class DebounceSpec(Spec):
    """Fire on the first event of a burst; a burst ends after `window` without an event."""

    window: Annotated[Duration, Field(gt=0)]
    max_wait: Annotated[Duration, Field(gt=0)] | None = None
    key: Annotated[
        tuple[Annotated[str, AfterValidator(_field)], ...],
        BeforeValidator(_listed),
        Field(description="Fields of the event that tell bursts apart."),
    ] = Debounce(window_us=0).key

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_wait is not None and self.max_wait < self.window:
            raise ValueError("max_wait is shorter than window")
        return self


class ConcurrencySpec(Spec):
    """How many runs of this profile may be under way at once."""

    limit: Annotated[int, Field(ge=1, le=256)] = 1


class RetrySpec(Spec):
    """What happens after a failed attempt."""

    attempts: Annotated[int, Field(ge=1, le=100)] = _RETRY.attempts
    backoff: Literal["exponential", "fixed"] = _RETRY.backoff
    initial: Duration = _RETRY.initial_s
    max: Duration = _RETRY.max_s
    jitter: Annotated[float, Field(ge=0, le=1)] = _RETRY.jitter

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.initial:
            raise ValueError("max is shorter than initial")
        return self

    def policy(self) -> Retry:
        """The policy that `router.retry` computes delays with."""
        return Retry(
            attempts=self.attempts,
            backoff=self.backoff,
            initial_s=self.initial,
            max_s=self.max,
            jitter=self.jitter,
        )


class StepSpec(Spec):
    """What a step says beside its action."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")] | None = None
    timeout: Annotated[Duration, Field(gt=0)] | None = None
    on_unknown: Literal["retry", "skip", "fail"] = "retry"
    continue_on_error: bool = False


class ProfileSpec(Spec):
    """One profile."""

    owner: str = ""
    description: str = ""
    on: Annotated[
        tuple[Annotated[str, AfterValidator(_pattern)], ...],
        BeforeValidator(_listed),
        Field(min_length=1, description="Topics; * is one token, a last > one or more."),
        AfterValidator(_disjoint),
    ]
    where: Annotated[str, AfterValidator(_condition)] | None = None
    run_on: Annotated[str, Field(min_length=1, description="origin, any, or a host.")] = "origin"
    state: ProfileState = "enabled"
    debounce: DebounceSpec | None = None
    concurrency: ConcurrencySpec = ConcurrencySpec()
    retry: RetrySpec = RetrySpec()
    timeout: Annotated[Duration, Field(gt=0)] = DEFAULT_TIMEOUT_S
    hops: Annotated[int, Field(ge=0, le=64)] = DEFAULT_MAX_HOPS
    vars: dict[str, Any] = Field(default_factory=dict)
    actions: Annotated[list[dict[str, Any]], Field(min_length=1)]


def keys_at(model: Any, where: tuple[str | int, ...]) -> list[str]:
    """The keys of the mapping at `where` within `model`; none where any key is allowed."""
    found: list[type[BaseModel]] = list(_models(model))
    for part in where:
        if isinstance(part, str):
            inner = [m.model_fields[part].annotation for m in found if part in m.model_fields]
            found = [one for annotation in inner for one in _models(annotation)]
    return sorted({key for one in found for key in one.model_fields})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if "root" in annotation.model_fields:
            yield from _models(annotation.model_fields["root"].annotation)
        else:
            yield annotation
    for part in get_args(annotation):
        yield from _models(part)
