"""What a profile's text may say: its keys, their types, limits and defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    model_validator,
)

from opsmesh.handlers import jsonschemas
from opsmesh.handlers.actions.contract import OnUnknown, Otherwise
from opsmesh.handlers.actions.spec import Duration, Share, Spec, Text
from opsmesh.handlers.profiles.clauses import (
    MOST,
    CollectSpec,
    Condition,
    CorrelateSpec,
    DebounceSpec,
    Key,
    LimitsSpec,
    Patterns,
    ThrottleSpec,
    UnlessSpec,
    overlapping,
)
from opsmesh.handlers.runs.concurrency import Concurrency
from opsmesh.handlers.slo.spec import SloSpec
from opsmesh.handlers.template import Template
from opsmesh.router.conditions import Expression
from opsmesh.router.retry import Retry
from opsmesh.router.rule import DEFAULT_MAX_HOPS, ProfileState, Rule

#: Seconds a whole attempt of a run may take, unless the profile says otherwise.
DEFAULT_TIMEOUT_S: Final = 60.0

_RETRY: Final = Retry()


class ConcurrencySpec(Spec):
    """How runs of this profile stand beside each other, for each value of `key`."""

    mode: Annotated[
        Literal["parallel", "queued", "single", "restart"],
        Field(
            description="parallel: up to `limit` at once, a run that waits for its retry lets "
            "others pass; queued: in order, also across retries; single: dropped while one is "
            "under way; restart: the one under way is stopped."
        ),
    ] = "parallel"
    limit: Annotated[int, Field(ge=1, le=256)] = 1
    key: Key = ()

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.mode in ("single", "restart") and self.limit != 1:
            raise ValueError(f"mode {self.mode} has a limit of 1")
        return self

    def policy(self) -> Concurrency:
        """The policy that runs are started by."""
        return Concurrency(mode=self.mode, limit=self.limit, key=self.key)


class FalsePositivesSpec(Spec):
    """How many of a profile's judged runs may be false alarms, and what happens beyond that."""

    budget: Share
    of_last: Annotated[int, Field(ge=1, le=MOST, description="Runs that are looked at.")] = 50
    then: Annotated[
        Literal["tell", "shadow"],
        Field(description="Only say so as an event, or put the profile into shadow too."),
    ] = "tell"


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


def _schema(value: Any) -> Any:
    if isinstance(value, dict):
        jsonschemas.check(value)
    return value


def _question(value: str) -> str:
    Template("${{ " + value + " }}")  # an error in it belongs to the place where it stands
    return value


def _prompt(value: Any) -> Any:
    return {"prompt": value} if isinstance(value, str) else value


class ApproveSpec(Spec):
    """A person is asked before the step is run; a text alone is the prompt."""

    prompt: Annotated[
        Text, Field(min_length=1, description="What is asked; may hold placeholders.")
    ]
    answer: Annotated[
        dict[str, Any] | None,
        BeforeValidator(_schema),
        Field(
            description="JSON Schema of a value that a yes comes with: steps.<id>.approval.answer."
        ),
    ] = None
    expires: Annotated[
        Duration | None,
        Field(gt=0, description="How long is asked; unset: until somebody answers."),
    ] = None
    otherwise: Annotated[
        Otherwise,
        Field(
            description="When nobody answers in time: skip: go on with the next step; run: run the "
            "step all the same; fail: dead-letter the run. A refusal skips the step, or fails the "
            "run with `fail`."
        ),
    ] = "skip"
    by: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(description="Names of those who may answer; unset: whoever may use this mesh."),
    ] = Field(default_factory=list)


class StepSpec(Spec):
    """What a step says beside its action."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")] | None = None
    timeout: Annotated[Duration, Field(gt=0)] | None = None
    on_unknown: Annotated[
        OnUnknown | None,
        Field(
            description="When nobody knows how the step went, because its handler was killed or "
            "lost: retry: run it again; skip: go on with the next step; fail: dead-letter the run; "
            "ask: wait for `opsmesh run answer`; resume, for actions that can: go on from where "
            "they were. Unset: what the action says, else retry."
        ),
    ] = None
    continue_on_error: bool = False
    when: Annotated[
        Annotated[str, Field(min_length=1), AfterValidator(_question)] | None,
        Field(
            description="CEL over event, steps, vars, host and run; not true: the step is skipped."
        ),
    ] = None
    approve: Annotated[
        ApproveSpec | None,
        BeforeValidator(_prompt),
        Field(description="Ask a person before the step; with no action beside it, only ask."),
    ] = None


class ExposeSpec(Spec):
    """What agents beyond the mesh read about a profile that they may ask for."""

    description: Annotated[str, Field(max_length=2000)] = ""
    tags: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    examples: Annotated[tuple[str, ...], Field(max_length=20)] = ()


def _exposed(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


class ProfileSpec(Spec):
    """One profile."""

    owner: str = ""
    description: str = ""
    on: Patterns
    where: Condition | None = None
    run_on: Annotated[str, Field(min_length=1, description="origin, any, or a host.")] = "origin"
    state: ProfileState = "enabled"
    unless: UnlessSpec | None = None
    correlate: CorrelateSpec | None = None
    debounce: DebounceSpec | None = None
    collect: CollectSpec | None = None
    throttle: ThrottleSpec | None = None
    limits: LimitsSpec | None = None
    concurrency: ConcurrencySpec = ConcurrencySpec()
    retry: RetrySpec = RetrySpec()
    timeout: Annotated[Duration, Field(gt=0)] = DEFAULT_TIMEOUT_S
    hops: Annotated[int, Field(ge=0, le=64)] = DEFAULT_MAX_HOPS
    vars: dict[str, Any] = Field(default_factory=dict)
    false_positives: FalsePositivesSpec | None = None
    slo: SloSpec | None = None
    expose: Annotated[
        ExposeSpec | None,
        BeforeValidator(_exposed),
        Field(description="Whether `opsmesh a2a serve` offers it to agents; true, or what of it."),
    ] = None
    tools: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None,
        Field(
            description="MCP tools that its steps may call, as SERVER/TOOL; * stands for any. "
            "Unset: those that mcp_servers allows."
        ),
    ] = None
    actions: Annotated[list[dict[str, Any]], Field(min_length=1)]

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.correlate is not None:
            if len(self.on) < 2:
                raise ValueError("correlate needs two topics or more in 'on'")
            if self.unless is not None:
                raise ValueError("correlate and unless do not go together; write two profiles")
        if self.unless is not None and self.unless.where is None:
            both = overlapping(self.on, self.unless.on)
            if both is not None:
                raise ValueError(
                    f"{both[0]!r} in 'on' and {both[1]!r} in 'unless' match the same topics; "
                    "tell them apart with a 'where' in 'unless'"
                )
        return self

    def rule(self, name: str, digest: str) -> Rule:
        """The part that decides."""
        unless = self.unless
        answer = unless.where if unless else None
        return Rule(
            name=name,
            hash=digest,
            on=self.on,
            where=None if self.where is None else Expression(self.where),
            run_on=self.run_on,
            state=self.state,
            max_hops=self.hops,
            vars=self.vars,
            unless=unless.stage() if unless else None,
            unless_where=None if answer is None else Expression(answer),
            correlate=self.correlate.stage(self.on) if self.correlate else None,
            debounce=self.debounce.stage() if self.debounce else None,
            collect=self.collect.stage() if self.collect else None,
            throttle=self.throttle.stage() if self.throttle else None,
            limits=self.limits.stage() if self.limits else None,
        )


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
