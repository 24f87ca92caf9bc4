"""`trigger`: have another profile run, with this event or with a payload of one's own.

    trigger: collect-logs
    trigger: {profile: collect-logs, payload: {unit: "${{ event.payload.unit }}"}}

What the other profile gets is an event of its own, caused by this one and a hop further: a loop of
triggers ends like any other. No other profile sees it. The other run is not waited for: `wait` is.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

import msgspec
from pydantic import BeforeValidator, Field

from opsmesh.handlers.actions import caused
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.actions.spec import Spec
from opsmesh.handlers.errors import NotRunnable
from opsmesh.handlers.template import Rendered, compile_value
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import Event


def _payload(value: Any) -> Any:
    if value is not None and not isinstance(value, dict | str):
        raise ValueError("must be a mapping, or one placeholder")
    compile_value(value)
    return value


class TriggerSpec(Spec):
    """The value of `trigger`. The profile is plain text, so that loops can be found before they
    run."""

    profile: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    payload: Annotated[
        dict[str, Any] | str | None,
        BeforeValidator(_payload),
        Field(description="In place of the event's own."),
    ] = None


class Trigger:
    """Has one profile run; `steps.<id>.event_id` is the event that it gets."""

    key: ClassVar[str] = "trigger"
    spec: ClassVar[type[TriggerSpec]] = TriggerSpec

    def __init__(self, spec: TriggerSpec) -> None:
        self.profile = spec.profile
        self._spec = spec
        self._payload: Rendered | None = (
            None if spec.payload is None else compile_value(spec.payload)
        )

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From a profile's name alone, or a mapping with `profile`."""
        return cls(
            TriggerSpec.model_validate({"profile": value} if isinstance(value, str) else value)
        )

    def describe(self) -> dict[str, Any]:
        """The value written out, with its defaults."""
        return self._spec.model_dump(mode="json")

    async def run(self, ctx: StepContext) -> StepResult:
        """Hand it over; returns when that is stored."""
        try:
            event = self._event(ctx)
            # once more after a crash it is the same one, and the broker drops it
            await ctx.mesh.trigger(self.profile, event, id=event.id)
        except (ValueError, NotRunnable) as error:  # a template, the payload, no such profile
            return StepResult(ok=False, output={}, error=str(error), retryable=False)
        output = {"profile": self.profile, "event_id": event.id, "trigger_id": event.id}
        return StepResult(ok=True, output=output)

    def _event(self, ctx: StepContext) -> Event:
        cause = ctx.event
        if self._payload is None:
            payload = caused.sized(cause.payload)
        else:
            payload = caused.payload(ctx, self._payload)
        return msgspec.structs.replace(
            cause,
            id=ids.derived(cause.ts_us // 1000, ctx.idempotency_key),
            payload=payload,
            causation_id=cause.id,
            hops=cause.hops + 1,
            run_id=ctx.run_id,
            attempt=None,
        )
