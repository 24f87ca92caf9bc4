"""`a2a`: ask an agent beyond the mesh, and wait for what it makes of it.

    a2a: {agent: reviewer, message: "Look at ${{ event.payload.unit }}", timeout: 20m}

The event goes with it as data, its secrets removed. The step waits for the task's end across
restarts; what the agent answers is data of a stranger, and becomes the event `a2a.task.<state>`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from opsmesh.handlers.actions.contract import OnUnknown, StepContext, StepResult
from opsmesh.handlers.actions.spec import Duration, Spec
from opsmesh.handlers.errors import AgentFault, Ask, ExtraMissing, HandlersError
from opsmesh.handlers.template import Rendered, compile_value
from opsmesh.schemas.envelope import check_topic

if TYPE_CHECKING:
    from opsmesh.handlers.a2a.asking import Outcome

#: Seconds between looks at a task.
POLL_S: Final = 5.0
#: Seconds that a task may take.
TIMEOUT_S: Final = 600.0


def _said(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | dict | list):
        raise ValueError("must be a text, a mapping or a list")  # noqa: TRY004
    compile_value(value)
    return value


class A2aSpec(Spec):
    """The value of `a2a`."""

    agent: Annotated[
        str,
        Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="A name in a2a_agents."),
    ]
    message: Annotated[
        str | dict[str, Any] | list[Any],
        BeforeValidator(_said),
        Field(description="What is asked: a text, or data."),
    ] = ""
    envelope: Annotated[bool, Field(description="Whether the event goes with it.")] = True
    skill: Annotated[str, Field(max_length=200)] | None = None
    stream: Annotated[
        bool, Field(description="Listen to the agent's news, where it tells any.")
    ] = False
    return_immediately: Annotated[
        bool, Field(description="Have the task's id at once, and look at it every `poll`.")
    ] = True
    poll: Annotated[Duration, Field(gt=0)] = POLL_S
    timeout: Annotated[Duration, Field(gt=0, description="Of the whole task.")] = TIMEOUT_S
    on_input_required: Annotated[
        Literal["ask", "fail"],
        Field(description="When the agent asks: ask a person, or give the task up."),
    ] = "ask"
    input_expires: Annotated[Duration, Field(gt=0)] | None = None
    input_by: Annotated[tuple[str, ...], Field(description="Who may answer the agent.")] = ()
    topic: Annotated[
        Annotated[str, AfterValidator(check_topic)] | None,
        Field(description="Publish the first data that it made as an event of this topic too."),
    ] = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.envelope and not self.message:
            raise ValueError("without the envelope it needs a message")
        return self


class A2a:
    """Asks one agent; `steps.<id>.text`, `.data` and `.artifacts` are what it made."""

    key: ClassVar[str] = "a2a"
    spec: ClassVar[type[A2aSpec]] = A2aSpec
    #: The task's id is in the ledger: nobody has to guess how it went.
    on_unknown: ClassVar[OnUnknown] = "resume"

    def __init__(self, spec: A2aSpec) -> None:
        self._spec = spec
        self._said: Rendered = compile_value(spec.message)

    @property
    def topic(self) -> str | None:
        """The further topic that it publishes: loops are found by it."""
        return self._spec.topic

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From an agent's name alone, or a mapping with `agent`."""
        return cls(A2aSpec.model_validate({"agent": value} if isinstance(value, str) else value))

    def describe(self) -> dict[str, Any]:
        """The value written out, with its defaults."""
        return self._spec.model_dump(mode="json")

    async def run(self, ctx: StepContext) -> StepResult:
        """Ask, wait, tell; or raise the agent's question as ours."""
        try:
            said = self._said.render(ctx.variables)
            outcome = await self._ask(ctx, said)
        except AgentFault as fault:
            return StepResult(ok=False, output={}, error=str(fault), retryable=fault.retryable)
        except Ask:
            raise
        except HandlersError as error:  # a template, a secret, the extra
            return StepResult(ok=False, output={}, error=str(error), retryable=False)
        return self._result(outcome)

    async def _ask(self, ctx: StepContext, said: Any) -> Outcome:
        try:
            from opsmesh.handlers.a2a import agents, events, remote
            from opsmesh.handlers.a2a.asking import Asking, Manner
        except ImportError as error:
            raise ExtraMissing("a2a", str(error)) from error
        spec = self._spec
        agent = agents.find(await asyncio.to_thread(ctx.shared.settings.get), spec.agent)
        manner = Manner(
            said=said,
            skill=spec.skill,
            envelope=spec.envelope,
            stream=spec.stream,
            immediately=spec.return_immediately and not spec.stream,
            poll_s=spec.poll,
            timeout_s=spec.timeout,
            on_input=spec.on_input_required,
            expires_s=spec.input_expires,
            by=spec.input_by,
        )
        async with await remote.open_(agent, ctx.secrets) as opened:
            outcome = await Asking(ctx, opened, manner).go()
            card_name = opened.card.name
        about = events.About(agent=spec.agent, card=card_name, skill=spec.skill)
        await ctx.publish(events.told(ctx, outcome, about))
        if outcome.question is not None:
            raise Ask(outcome.question)
        if spec.topic is not None and outcome.standing.state == "completed" and not outcome.error:
            await ctx.publish(
                await asyncio.to_thread(events.returned, ctx, outcome, about, spec.topic)
            )
        return outcome

    def _result(self, outcome: Outcome) -> StepResult:
        standing = outcome.standing
        ok = standing.state == "completed" and not outcome.error
        error = None
        if not ok:
            what = f"agent {self._spec.agent}: "
            error = what + (
                outcome.error or f"the task is {standing.state}: {standing.said}"[:1000]
            )
        return StepResult(
            ok=ok,
            output={
                "task_id": standing.task_id,
                "state": standing.state,
                "status_message": standing.said,
                "text": "\n".join(
                    part["text"]
                    for one in standing.artifacts
                    for part in one["parts"]
                    if "text" in part
                ),
                "data": standing.data,
                "artifacts": standing.artifacts,
                "truncated": standing.truncated,
                "updates": outcome.updates,
                "duration_ms": outcome.duration_ms,
            },
            error=error,
            # an agent that failed may do better; one that refused, or was told to stop, will not
            retryable=outcome.retryable or standing.state == "failed",
            timed_out=outcome.timed_out,
        )
