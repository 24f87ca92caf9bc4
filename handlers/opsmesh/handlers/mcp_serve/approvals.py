"""Tools about what waits for a person: reading it, and, once it is allowed, answering.

An agent is no person. With `approve` the client has to ask whoever sits in front of it (MCP
elicitation), and what that person says counts; an agent's own word counts with `approve-alone`
only, and is on record as the agent's, so that a question that names who may answer refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from mcp.server.mcpserver import Context
from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp_types.version import is_version_at_least
from pydantic import BaseModel, Field

from opsmesh.handlers.mcp_serve import untrusted
from opsmesh.handlers.mcp_serve.answers import Marked, NotAllowed, Refused, answer
from opsmesh.handlers.mcp_serve.calls import client as name_of
from opsmesh.handlers.mcp_serve.connection import Mesh
from opsmesh.handlers.runs import approvals
from opsmesh.handlers.runs.approvals import Open, Verdict
from opsmesh.router import user
from opsmesh.schemas import times

#: From this protocol on a server asks by its result, and gets the answer with the call again.
ASKS_BY_RESULT: Final = "2026-07-28"
#: What a question to the person is called within a call.
QUESTION: Final = "approval"
#: Approvals of one answer.
MOST: Final = 50
#: Where an answer's value stands that is no object of its own.
VALUE: Final = "value"

_PRIMITIVES: Final = frozenset({"string", "number", "integer", "boolean"})
_KEPT: Final = frozenset(
    {
        *("type", "title", "description", "enum", "default", "minimum", "maximum"),
        *("minLength", "maxLength", "format"),
    }
)


class Waiting(BaseModel):
    """A question that waits for a person."""

    approval_id: str
    profile: str
    step: str
    run_id: str
    topic: str
    prompt: str
    answer_schema: dict[str, Any] | None = None
    since: str
    expires: str | None = None
    otherwise: str
    may_answer: list[str] = []


class Approvals(BaseModel):
    """What waits, the oldest first."""

    approvals: list[Waiting]


class Given(BaseModel):
    """The answer that counts."""

    approval_id: str
    verdict: str
    by: str
    new: bool = Field(description="false: it had been given before")


class ApprovalTools:
    """What waits for a yes."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def list_approvals(self, ctx: Context) -> Annotated[CallToolResult, Marked[Approvals]]:
        """What runs wait for: questions to a person, with the schema of an answer."""
        client = await self._mesh.client()
        found = []
        async for one in approvals.waiting(client):
            found.append(_waiting(one))
            if len(found) >= MOST:
                break
        return answer(Approvals(approvals=found))

    async def approve(
        self,
        ctx: Context,
        approval_id: Annotated[str, Field(min_length=4, max_length=64)],
        verdict: Literal["granted", "denied"] = "granted",
        value: Annotated[Any, Field(description="what the answer's schema asks for")] = None,
        comment: Annotated[str, Field(max_length=1000)] = "",
    ) -> Annotated[CallToolResult, Marked[Given]] | InputRequiredResult:
        """Answer what waits for a person. The client is asked to show the question to its user,
        whose answer counts; your own verdict counts only where this server was told so."""
        allow = self._mesh.settings.mcp_serve.allow
        if "approve" not in allow and "approve-alone" not in allow:
            raise NotAllowed(
                "approvals are not answered here",
                hint=f"a person can: opsmesh approve {untrusted.line(approval_id, 64)}; or allow "
                "it: opsmesh mcp serve --allow approve",
            )
        client = await self._mesh.client()
        one = await approvals.find(client, approval_id)
        by, said = f"agent:{untrusted.line(name_of(ctx)[0], 60) or 'unnamed'}", verdict
        if "approve-alone" not in allow:
            asked = await _ask(ctx, one, verdict, comment)
            if isinstance(asked, InputRequiredResult):
                return asked
            said, value, by = _read(asked, one, verdict, value)
        taken = await approvals.answer(
            client,
            one.asked.id,
            said,
            by=by,
            via="mcp",
            host=self._mesh.settings.host,
            redactor=self._mesh.redactor,
            value=value if said == "granted" else None,
            comment=untrusted.text(comment, 1000),
        )
        reply = taken.asked.reply
        return answer(
            Given(
                approval_id=taken.asked.id,
                verdict=reply.verdict if reply else said,
                by=reply.by if reply else by,
                new=taken.new,
            )
        )


async def _ask(
    ctx: Context, one: Open, verdict: Verdict, comment: str
) -> ElicitResult | InputRequiredResult:
    """What the person in front of the client says; or the result that asks for it."""
    capabilities = ctx.client_capabilities
    if capabilities is None or capabilities.elicitation is None:
        raise NotAllowed(
            "this client cannot ask its user: it has no elicitation",
            hint=f"a person can: opsmesh approve {one.asked.id}",
        )
    message = (
        f"{untrusted.text(one.asked.prompt, 2000)}\n\nProfile {one.run.profile}, step "
        f"{one.step.id}. The agent proposes: {verdict}."
    )
    if comment:
        message += f" It says: {untrusted.line(comment, 300)}"
    message += "\nAccept: it is done. Decline: it is not. Cancel: the question stays open."
    schema = form(one.asked.schema)
    version = ctx.protocol_version or ""
    if is_version_at_least(version, ASKS_BY_RESULT):
        given = (ctx.input_responses or {}).get(QUESTION)
        if isinstance(given, ElicitResult) and ctx.request_state == one.asked.id:
            return given
        request = ElicitRequest(
            params=ElicitRequestFormParams(message=message, requested_schema=schema)
        )
        return InputRequiredResult(input_requests={QUESTION: request}, request_state=one.asked.id)
    said: ElicitResult = await ctx.session.elicit_form(message, schema, ctx.request_id)
    return said


def _read(said: ElicitResult, one: Open, verdict: Verdict, value: Any) -> tuple[Verdict, Any, str]:
    """The person's answer: verdict, value, and who it was as far as can be known."""
    if said.action == "cancel":
        raise Refused("the user did not answer; the question stays open", hint="ask again later")
    if said.action == "decline":
        return "denied", None, user.name()
    content = dict(said.content or {})
    if one.asked.schema is None:
        return "granted", None, user.name()
    if one.asked.schema.get("type") != "object":
        return "granted", content.get(VALUE, value), user.name()
    return "granted", content or value, user.name()


def form(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The answer's schema as elicitation has it: an object of plain fields. Refused for one that no
    form can ask for."""
    if schema is None:
        return {"type": "object", "properties": {}}
    if schema.get("type") in _PRIMITIVES:
        return {"type": "object", "properties": {VALUE: _field(schema)}, "required": [VALUE]}
    fields = schema.get("properties")
    if schema.get("type") == "object" and isinstance(fields, Mapping):
        shown = {str(name): _field(one) for name, one in fields.items()}
        required = [name for name in schema.get("required", ()) if name in shown]
        return {"type": "object", "properties": shown, "required": required}
    raise Refused(
        "no form can ask for an answer of this schema", hint="opsmesh approve ID --answer JSON"
    )


def _field(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, Mapping) or schema.get("type") not in _PRIMITIVES:
        return form({"type": "none"})
    return {key: untrusted.clean(schema[key]) for key in schema if key in _KEPT}


def _waiting(one: Open) -> Waiting:
    asked = one.asked
    return Waiting(
        approval_id=asked.id,
        profile=one.run.profile,
        step=one.step.id,
        run_id=one.run.run_id,
        topic=one.run.topic,
        prompt=asked.prompt,
        answer_schema=asked.schema,
        since=times.format_us(asked.asked_us),
        expires=times.format_us(asked.expires_us) if asked.expires_us else None,
        otherwise=asked.otherwise,
        may_answer=list(asked.by),
    )
