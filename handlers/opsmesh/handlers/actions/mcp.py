"""`mcp`: call a tool of an MCP server.

    mcp: {server: checks, tool: validate_schema, arguments: {path: "${{ event.workspace }}"}}

Server and tool are plain text: an event never chooses what is called, only with what. The call's
time limit is the step's `timeout`, else the server's. What the tool answers is data: it is checked
against the tool's schema, kept, and never followed.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

import msgspec
import structlog
from pydantic import AfterValidator, BeforeValidator, Field

from opsmesh.handlers.actions import caused
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.actions.spec import Duration, Spec
from opsmesh.handlers.errors import (
    Ask,
    CallFailed,
    ExtraMissing,
    InputWanted,
    SecretMissing,
    TemplateError,
)
from opsmesh.handlers.template import Rendered, Template, compile_value
from opsmesh.router.current import Current
from opsmesh.router.mcp_servers import NAME
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import (
    MAX_PAYLOAD,
    Event,
    Severity,
    check_topic,
)

if TYPE_CHECKING:
    from opsmesh.handlers.mcp.answer import Answer
    from opsmesh.handlers.mcp.elicit import Wanted
    from opsmesh.handlers.mcp.pool import Pool
    from opsmesh.handlers.mcp.session import Asked

#: The events that tell how a call went, unless `result` names another for the good ones.
COMPLETED: Final = "mcp.tool.completed"
FAILED: Final = "mcp.tool.failed"
#: Under which a step keeps what its tool has asked.
INPUT: Final = "input"
#: Seconds between two notes of a call's progress in the ledger.
PROGRESS_S: Final = 1.0
#: Characters of what a server says of its progress.
PROGRESS_TEXT: Final = 200

#: What becomes of the run. retry: another attempt, as the profile's `retry` says; fail: the step
#: has failed, and with `continue_on_error` the run goes on; dlq: the dead letters, in any case.
Then = Literal["retry", "fail", "dlq"]

log = structlog.get_logger()


class OnSpec(Spec):
    """What becomes of a call that did not go well, by how it failed."""

    tool_error: Annotated[Then, Field(description="The tool itself says that it failed.")] = "retry"
    unknown_tool: Annotated[
        Then, Field(description="The server has no such tool, or its settings do not allow it.")
    ] = "fail"
    unknown_server: Annotated[Then, Field(description="mcp_servers has no such server.")] = "fail"
    dead_server: Annotated[
        Then, Field(description="It cannot be started or reached, or died meanwhile.")
    ] = "retry"
    timeout: Annotated[Then, Field(description="No answer in time.")] = "retry"
    bad_arguments: Annotated[
        Then, Field(description="The arguments do not fit the tool's input schema.")
    ] = "fail"
    bad_result: Annotated[
        Then,
        Field(description="The answer is too large, or does not fit the tool's output schema."),
    ] = "fail"


def _plain(value: Any) -> Any:
    if isinstance(value, str) and (Template(value).names or "${{" in value):
        raise ValueError("is plain text: an event does not choose what is called")
    return value


def _server(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no name of a server")
    return value


def _arguments(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("must be a mapping")  # noqa: TRY004 (pydantic's own form)
    compile_value(value)
    return value


def _result(value: Any) -> Any:
    return check_topic(value) if isinstance(value, str) else value


class AskSpec(Spec):
    """A tool's questions to a person are asked, as approvals are."""

    expires: Annotated[
        Duration | None,
        Field(gt=0, description="How long is asked; unset: until somebody answers."),
    ] = None
    by: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(description="Names of those who may answer; unset: whoever may use this mesh."),
    ] = Field(default_factory=list)


def _ask(value: Any) -> Any:
    return {} if value is True else None if value is False else value


class McpSpec(Spec):
    """The value of `mcp`."""

    server: Annotated[str, BeforeValidator(_plain), AfterValidator(_server)]
    tool: Annotated[str, BeforeValidator(_plain), Field(min_length=1, max_length=128)]
    arguments: Annotated[dict[str, Any], BeforeValidator(_arguments)] = Field(default_factory=dict)
    result: Annotated[
        str | Literal[False],
        BeforeValidator(_result),
        Field(
            description="The topic of the result event: its payload is the tool's structured "
            f"content. Unset: {COMPLETED}, which tells of the call too; false: no event."
        ),
    ] = COMPLETED
    ask: Annotated[
        AskSpec | None,
        BeforeValidator(_ask),
        Field(description="true, or a mapping: the tool may ask a person. Unset: it is declined."),
    ] = None
    on: OnSpec = OnSpec()


class Mcp:
    """Calls one tool; `steps.<id>.structured` and `.text` are what it answered."""

    key: ClassVar[str] = "mcp"
    spec: ClassVar[type[McpSpec]] = McpSpec

    def __init__(self, spec: McpSpec) -> None:
        self.server = spec.server
        self.tool = spec.tool
        self._spec = spec
        self._arguments: Rendered = compile_value(spec.arguments)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From a mapping with `server` and `tool`."""
        return cls(McpSpec.model_validate(value))

    def describe(self) -> dict[str, Any]:
        """The value written out, with its defaults."""
        return self._spec.model_dump(mode="json")

    @property
    def calls(self) -> str:
        """What it calls, as a profile's `tools` names it."""
        return f"{self.server}/{self.tool}"

    async def run(self, ctx: StepContext) -> StepResult:
        """Call the tool, and tell how it went."""
        began = time.monotonic()
        try:
            arguments = self._rendered(ctx)
            pool = await ctx.shared.get("mcp", lambda: _pool(ctx.shared.settings))
            answer = await self._call(pool, arguments, ctx)
            event = self._completed(answer, ctx)
        except CallFailed as failure:
            return await self._failed(failure, began, ctx)
        except InputWanted as asking:
            wanted = asking.wanted.redacted(partial(_redacted, ctx))
            before = _answered(ctx)
            await ctx.save({INPUT: wanted.saved() | {"before": before}})
            raise self._question(wanted, 0, before + 1) from None
        except (SecretMissing, ExtraMissing) as error:
            return StepResult(ok=False, output={}, error=str(error), retryable=False)
        if event is not None:
            await ctx.publish(event)
        output = answer.output() | {"event": None if event is None else event.id}
        return StepResult(ok=True, output=output)

    def _rendered(self, ctx: StepContext) -> dict[str, Any]:
        try:
            arguments: dict[str, Any] = self._arguments.render(ctx.variables)
        except TemplateError as error:
            raise CallFailed("bad_arguments", str(error)) from error
        return arguments

    async def _call(self, pool: Pool, arguments: Mapping[str, Any], ctx: StepContext) -> Answer:
        asked = self._asked(ctx)
        limit = ctx.timeout or pool.spec(self.server).timeout
        try:
            async with asyncio.timeout(ctx.timeout):  # the opening is a part of the step
                session = await pool.session(self.server, ctx.secrets.fill)
                return await session.call(
                    self.tool,
                    arguments,
                    timeout=limit,
                    progress=_Shown(self, ctx).note,
                    ask=self._spec.ask is not None,
                    asked=asked,
                )
        except TimeoutError:
            raise CallFailed(
                "timeout", f"{self.server}/{self.tool}: not done in {limit:g} s"
            ) from None

    def _asked(self, ctx: StepContext) -> Asked | None:
        """What people have said to the tool's questions; the next question is raised."""
        if INPUT not in ctx.saved:
            return None
        from opsmesh.handlers.mcp import elicit

        before = int(ctx.saved[INPUT]["before"])
        wanted = elicit.Wanted.of(ctx.saved[INPUT])
        replies = {}
        for index, (key, _, _) in enumerate(wanted.questions):
            reply = ctx.replies.get(f"input-{before + index + 1}")
            if reply is None:
                raise self._question(wanted, index, before + index + 1)
            replies[key] = elicit.response(reply)
        return wanted.state, replies

    def _question(self, wanted: Wanted, index: int, number: int) -> Ask:
        from opsmesh.handlers.mcp import elicit

        _, text, form = wanted.questions[index]
        spec = self._spec.ask or AskSpec()
        return Ask(
            elicit.question(
                self.calls,
                text,
                form,
                name=f"input-{number}",
                expires_s=spec.expires,
                by=spec.by,
            )
        )

    async def _failed(self, failure: CallFailed, began: float, ctx: StepContext) -> StepResult:
        then: Then = getattr(self._spec.on, failure.kind)
        took = round((time.monotonic() - began) * 1e3, 3)
        payload: dict[str, Any] = {
            "server": self.server,
            "tool": self.tool,
            "kind": failure.kind,
            "error": str(failure),
            "then": then,
            "duration_ms": took,
        }
        if failure.answer is not None and failure.answer.text:
            payload["text"] = failure.answer.text
        log.warning("mcp.failed", server=self.server, tool=self.tool, kind=failure.kind, then=then)
        await ctx.publish(_event(FAILED, payload, "warn", ctx, str(ctx.attempt)))
        known = {} if failure.answer is None else failure.answer.output()
        return StepResult(
            ok=False,
            output={**known, "kind": failure.kind},
            error=str(failure),
            retryable=then == "retry",
            dead_letter=then == "dlq",
            timed_out=failure.kind == "timeout",
        )

    def _completed(self, answer: Answer, ctx: StepContext) -> Event | None:
        topic = self._spec.result
        if topic is False:
            return None
        payload: dict[str, Any]
        if topic == COMPLETED:
            payload = {"server": self.server, "tool": self.tool, **answer.output()}
        elif isinstance(answer.structured, dict):
            payload = answer.structured
        elif answer.structured is not None:
            payload = {"result": answer.structured}
        else:
            payload = {"text": answer.text}
        size = len(msgspec.json.encode(payload))
        if size > MAX_PAYLOAD:
            raise CallFailed(
                "bad_result", f"its answer of {size} bytes exceeds {MAX_PAYLOAD}", answer=answer
            )
        return _event(topic, payload, "info", ctx)


class _Shown:
    """How far a call is, in the ledger and the log: at most once a second, and never a failure."""

    def __init__(self, action: Mcp, ctx: StepContext) -> None:
        self._action = action
        self._ctx = ctx
        self._last = 0.0

    async def note(self, progress: float, total: float | None, message: str | None) -> None:
        now = time.monotonic()
        if now - self._last < PROGRESS_S:
            return
        self._last = now
        said = self._ctx.redactor.text(
            (message or "")[:PROGRESS_TEXT], context=self._ctx.place, path="$.progress"
        )
        log.info(
            "mcp.progress",
            run_id=self._ctx.run_id,
            server=self._action.server,
            tool=self._action.tool,
            progress=progress,
            total=total,
            said=said,
        )
        await self._ctx.save({"progress": progress, "total": total, "message": said})


def _redacted(ctx: StepContext, text: str) -> str:
    return ctx.redactor.text(text, context=ctx.place, path="$.question")


def _answered(ctx: StepContext) -> int:
    """How many of a tool's questions have been asked; an `approve` of the step is none of them."""
    return sum(1 for name in ctx.replies if name.startswith("input-"))


async def _pool(settings: Current) -> Pool:
    """The process's sessions. The SDK takes a second to import: not on the loop."""
    try:
        module = await asyncio.to_thread(importlib.import_module, "opsmesh.handlers.mcp.pool")
    except ImportError as error:
        raise ExtraMissing("mcp", str(error)) from error
    found: Pool = module.Pool(settings)
    return found


def _event(
    topic: str, payload: dict[str, Any], severity: Severity, ctx: StepContext, *about: str
) -> Event:
    """In the story of the event that fired the profile; told twice, it is the same event."""
    event_id = ids.derived(ctx.event.ts_us // 1000, ctx.idempotency_key, topic, *about)
    return caused.event(ctx, topic, payload, severity=severity, id=event_id)
