"""`wait`: go on when an event comes.

    wait: {on: service.started, where: event.payload.unit == trigger.payload.unit, timeout: 5m}

Looked at is every event that was stored after the run's own one, also those of before the step
began: what happens while earlier steps are at work is not missed. The position and the deadline are
in the ledger: a handler that comes after us waits on, and no longer than was said.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field

from opsmesh.handlers.actions.contract import Followed, OnUnknown, StepContext, StepResult
from opsmesh.handlers.actions.spec import Spec
from opsmesh.handlers.profiles.clauses import Key, Patterns, Span
from opsmesh.router.clauses import field as event_field
from opsmesh.router.conditions import ConditionError, Expression
from opsmesh.schemas import durations, times
from opsmesh.schemas.nearest import did_you_mean

#: Seconds that are waited, unless the profile says otherwise.
TIMEOUT_S: Final = 600.0
#: Seconds that reading what was stored meanwhile may take, when the time was over before we came.
CATCH_UP_S: Final = 10.0
#: What `where` may name: the event that is awaited, and the run's own one as `trigger`.
NAMES: Final = ("event", "trigger", "host", "now", "run", "steps", "vars")


def _condition(value: str) -> str:
    expression = Expression(value)
    if expression.last:
        raise ValueError("last() is for a profile's own where; here an event is awaited")
    for name in sorted(expression.names.difference(NAMES)):
        known = did_you_mean(name, NAMES) or f"; there are {', '.join(NAMES)}"
        raise ValueError(f"unknown name {name!r}{known}")
    return value


class WaitSpec(Spec):
    """The value of `wait`."""

    on: Patterns
    where: Annotated[
        Annotated[str, AfterValidator(_condition)] | None,
        Field(description="CEL: `event` is the awaited one, `trigger` the run's own."),
    ] = None
    key: Annotated[Key, Field(description="Fields that both events have the same.")] = ()
    timeout: Span = TIMEOUT_S
    otherwise: Annotated[
        Literal["fail", "skip"],
        Field(description="When none comes: fail the run, or go on with the next step."),
    ] = "fail"
    since: Annotated[
        Literal["event", "now"],
        Field(description="From when: since the run's event was stored, or the step began."),
    ] = "event"


class Wait:
    """Waits for one event; it is `steps.<id>.event` then."""

    key: ClassVar[str] = "wait"
    spec: ClassVar[type[WaitSpec]] = WaitSpec
    #: Whoever comes after us waits on from the same place, to the same end.
    on_unknown: ClassVar[OnUnknown] = "resume"

    def __init__(self, spec: WaitSpec) -> None:
        self._spec = spec
        self._where = None if spec.where is None else Expression(spec.where)

    @property
    def takes_s(self) -> float:
        """How long it may take: a run that is stopped earlier would make no sense."""
        return self._spec.timeout

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From a topic or a list of topics alone, or a mapping with `on`."""
        short = isinstance(value, str | list)
        return cls(WaitSpec.model_validate({"on": value} if short else value))

    def describe(self) -> dict[str, Any]:
        """The value written out, with its defaults."""
        return self._spec.model_dump(mode="json")

    async def run(self, ctx: StepContext) -> StepResult:
        """Wait; by subscription, from where an earlier go began."""
        began = time.monotonic()
        saved = dict(ctx.saved) or await self._begin(ctx)
        deadline_us, position = int(saved["deadline_us"]), saved.get("after_seq")
        left_s = (deadline_us - times.now_us()) / 1e6
        found: Followed | None = None
        following = ctx.mesh.follow(
            self._spec.on,
            after_seq=position,
            since_us=ctx.stored_us if position is None else None,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s if left_s > 0 else CATCH_UP_S):
                async for one in following:
                    if one.stored_us > deadline_us:
                        break
                    if one.event.id != ctx.event.id and self._matches(one, ctx):
                        found = one
                        break
        with contextlib.suppress(Exception):
            await following.aclose()  # type: ignore[attr-defined]  # ours are generators
        waited = {"waited_ms": round((time.monotonic() - began) * 1e3, 3)}
        if found is not None:
            event = found.event.view()
            return StepResult(
                ok=True, output={"event": event, "seq": found.seq, "timed_out": False, **waited}
            )
        awaited = " or ".join(self._spec.on)
        error = f"no {awaited} came within {durations.text(self._spec.timeout)}"
        return StepResult(
            ok=self._spec.otherwise == "skip",
            output={"event": None, "seq": None, "timed_out": True, **waited},
            error=error,
            retryable=False,  # another attempt would only wait once more
            timed_out=True,
        )

    async def _begin(self, ctx: StepContext) -> dict[str, Any]:
        saved: dict[str, Any] = {
            "deadline_us": times.now_us() + round(self._spec.timeout * 1e6),
        }
        if self._spec.since == "now":
            saved["after_seq"] = await ctx.mesh.newest()
        await ctx.save(saved)
        return saved

    def _matches(self, found: Followed, ctx: StepContext) -> bool:
        view, trigger = found.event.view(), ctx.event.view()
        if any(event_field(view, path) != event_field(trigger, path) for path in self._spec.key):
            return False
        if self._where is None:
            return True
        variables: Mapping[str, Any] = {
            "vars": {},
            "steps": {},
            "run": {},
            **ctx.variables,
            "event": view,
            "trigger": trigger,
            "host": found.event.host,
            "now": datetime.fromtimestamp(found.stored_us / 1e6, UTC),
        }
        try:
            return self._where.evaluate(variables) is True
        except ConditionError:  # a field that is not there lets nothing through
            return False
