"""`emit`: publish an event that this one caused.

    emit: {topic: config.drift.detected, severity: warn, payload: {path: "${{ event.workspace }}"}}

The event's id is derived from the step's idempotency key: a step that is run again after a crash
publishes the same event, and the broker drops the second one.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field

from opsmesh.handlers.actions import caused
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.template import Rendered, Template, compile_value
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import (
    SEVERITIES,
    Event,
    Severity,
    check_topic,
)
from opsmesh.schemas.nearest import did_you_mean


def _severity(value: str) -> str:
    if not Template(value).names and value not in SEVERITIES:
        raise ValueError(
            f"severity {value!r} is not one of {', '.join(SEVERITIES)}"
            f"{did_you_mean(value, SEVERITIES)}"
        )
    return value


def _payload(value: Any) -> Any:
    if not isinstance(value, dict) and not isinstance(value, str):
        raise ValueError("must be a mapping, or one placeholder")  # noqa: TRY004
    compile_value(value)
    return value


class EmitSpec(Spec):
    """The value of `emit`. The topic is plain text, so that loops can be found before they run."""

    topic: Annotated[str, AfterValidator(check_topic)]
    payload: Annotated[dict[str, Any] | str, BeforeValidator(_payload)] = Field(
        default_factory=dict
    )
    severity: Annotated[Text, AfterValidator(_severity)] = "info"
    component: Text | None = None
    workspace: Text | None = None
    evidence_path: Text | None = None


class Emit:
    """Publishes one event, in the story (correlation id) of the event that fired the profile."""

    key: ClassVar[str] = "emit"
    spec: ClassVar[type[EmitSpec]] = EmitSpec

    def __init__(self, spec: EmitSpec) -> None:
        self.topic = spec.topic
        self._spec = spec
        self._payload: Rendered = compile_value(spec.payload)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From a topic alone, or a mapping with `topic`."""
        return cls(EmitSpec.model_validate({"topic": value} if isinstance(value, str) else value))

    def describe(self) -> dict[str, Any]:
        """The value written out, with its defaults."""
        return self._spec.model_dump(mode="json")

    async def run(self, ctx: StepContext) -> StepResult:
        """Publish; returns when the event is stored."""
        try:
            event = self._event(ctx)
            ctx.mesh.check(event)
        except ValueError as error:  # a template, the severity or the payload
            return StepResult(ok=False, output={}, error=str(error), retryable=False)
        await ctx.publish(event)
        return StepResult(ok=True, output={"id": event.id, "topic": event.topic})

    def _event(self, ctx: StepContext) -> Event:
        return caused.event(
            ctx,
            self.topic,
            caused.payload(ctx, self._payload),
            severity=self._severity(ctx),
            id=ids.derived(ctx.event.ts_us // 1000, ctx.idempotency_key),
            component=self._text(self._spec.component, ctx),
            workspace=self._text(self._spec.workspace, ctx),
            evidence_path=self._text(self._spec.evidence_path, ctx) or None,
        )

    def _severity(self, ctx: StepContext) -> Severity:
        text = self._text(self._spec.severity, ctx)
        for severity in SEVERITIES:
            if text == severity:
                return severity  # type: ignore[return-value]
        raise ValueError(f"severity {text!r} is not one of {', '.join(SEVERITIES)}")

    @staticmethod
    def _text(template: str | None, ctx: StepContext) -> str:
        return "" if template is None else Template(template).render_text(ctx.variables)
