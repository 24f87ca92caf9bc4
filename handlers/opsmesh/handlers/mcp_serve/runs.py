"""Tools about runs: how they stand, and, once it is allowed, beginning one for a profile."""

from __future__ import annotations

import asyncio
import fnmatch
import re
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, get_args

import msgspec
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from pydantic import BaseModel, Field

from opsmesh.handlers.mcp_serve import untrusted
from opsmesh.handlers.mcp_serve.answers import Marked, NotAllowed, Refused, answer
from opsmesh.handlers.mcp_serve.calls import client as name_of
from opsmesh.handlers.mcp_serve.connection import Mesh
from opsmesh.handlers.mcp_serve.events import EventId, EventTools
from opsmesh.handlers.mcp_serve.profiles import find, state_of
from opsmesh.handlers.mcp_serve.records import TOPIC
from opsmesh.handlers.runs.ledger import Ledger, Run, RunState
from opsmesh.router import trigger
from opsmesh.router.errands import PATIENCE, RUNNABLE
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event, encode

#: Runs of one answer.
MOST: Final = 50
#: Seconds that a client may wait for a run's end, and between looks.
WAIT_S: Final = 50.0
LOOK_S: Final = 0.5
#: Bytes of JSON that a client may hand to a profile.
MAX_DETAIL: Final = 16 * 1024
#: A trigger of the same key begins one run, however often it is asked for.
MAX_KEY: Final = 128

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
STATES: Final[tuple[RunState, ...]] = get_args(RunState)


class StepOut(BaseModel):
    """One step of the newest attempt."""

    id: str
    action: str
    state: str
    duration_ms: float | None = None
    exit_code: int | None = None
    error: str | None = None
    evidence_path: str | None = None
    output: dict[str, Any] = {}


class RunOut(BaseModel):
    """One run of a profile."""

    run_id: str
    profile: str
    state: str
    topic: str
    event_id: str
    trigger: str
    trigger_id: str = ""
    attempt: int
    created: str
    updated: str
    duration_ms: float | None = None
    reason: str = ""
    evidence_path: str | None = None
    steps: list[StepOut] = []
    errors: list[str] = []
    approval_id: str | None = Field(default=None, description="what it waits for, if a person")


class Runs(BaseModel):
    """Runs, the one that changed last first."""

    runs: list[RunOut]


class Triggered(BaseModel):
    """A run that was asked for; run_status with the trigger's id tells how it goes."""

    trigger_id: str
    profile: str
    event_id: str


class RunTools:
    """What a profile did, and doing it again."""

    def __init__(self, mesh: Mesh, events: EventTools) -> None:
        self._mesh = mesh
        self._events = events

    async def run_status(
        self,
        ctx: Context,
        run_id: Annotated[
            str | None, Field(min_length=4, max_length=128, description="or its start")
        ] = None,
        trigger_id: Annotated[
            str | None, Field(min_length=8, max_length=128, description="of trigger_profile")
        ] = None,
        profile: Annotated[str | None, Field(max_length=64)] = None,
        state: Annotated[str | None, Field(description=", ".join(STATES))] = None,
        limit: Annotated[int, Field(ge=1, le=MOST)] = 10,
        wait_s: Annotated[
            float, Field(ge=0, le=WAIT_S, description="wait for the one run's end")
        ] = 0.0,
    ) -> Annotated[CallToolResult, Marked[Runs]]:
        """How runs stand: one with its steps and their output, by its id or its trigger's, or the
        newest ones, of a profile or in a state if you like."""
        if state is not None and state not in STATES:
            raise Refused(
                f"{state[:40]!r} is no state of a run", hint=f"one of {', '.join(STATES)}"
            )
        if profile is not None and not _NAME.fullmatch(profile):
            raise Refused(f"{profile!r} is no profile's name", hint="list_profiles shows them")
        client = await self._mesh.client()
        if run_id is None and trigger_id is None:
            found = [
                run async for run in Ledger(client).runs(profile) if state in (None, run.state)
            ]
            newest = sorted(found, key=lambda run: -run.updated_us)[:limit]
            return answer(Runs(runs=[shown(run, steps=False) for run in newest]))
        run = await self._one(ctx, client, run_id, trigger_id, wait_s)
        return answer(Runs(runs=[shown(run, steps=True)]))

    async def _one(
        self,
        ctx: Context,
        client: Client,
        run_id: str | None,
        trigger_id: str | None,
        wait_s: float,
    ) -> Run:
        until = time.monotonic() + wait_s
        key: str | None = None
        while True:
            run = None
            if key is None:
                run = await _search(client, run_id, trigger_id)
            elif (held := await Ledger(client).get(key)) is not None:
                run = held.run
            if run is not None:
                key = run.key
            left = until - time.monotonic()
            if (run is not None and run.finished) or left <= 0:
                break
            await ctx.report_progress(wait_s - left, wait_s, run.state if run else "not begun")
            await asyncio.sleep(min(LOOK_S, left))
        if run is None:
            asked = run_id or trigger_id
            raise Refused(f"no run {asked} is known (yet)", hint="run_status lists the newest ones")
        return run

    async def trigger_profile(
        self,
        ctx: Context,
        profile: Annotated[str, Field(max_length=64)],
        event_id: Annotated[
            EventId | None, Field(description="run it for this stored event")
        ] = None,
        detail: Annotated[
            dict[str, Any] | None,
            Field(description="without an event: what the profile sees as event.payload.arguments"),
        ] = None,
        key: Annotated[
            str | None,
            Field(max_length=MAX_KEY, description="asked twice with the same key, it is run once"),
        ] = None,
    ) -> Annotated[CallToolResult, Marked[Triggered]]:
        """Run an enabled profile now, whatever its conditions say: for a stored event, or for this
        call (then its event's topic is agent.tool.called). Its actions are really done."""
        section = self._mesh.settings.mcp_serve
        if "trigger" not in section.allow:
            raise NotAllowed(
                "this server reads alone: profiles cannot be triggered here",
                hint="a person can allow it: opsmesh mcp serve --allow trigger, or "
                "mcp_serve: {allow: [trigger]} in config.yaml",
            )
        allowed = section.profiles
        if allowed and not any(fnmatch.fnmatchcase(profile, one) for one in allowed):
            raise NotAllowed(
                f"the profile {profile!r} may not be triggered here",
                hint=f"mcp_serve.profiles has {', '.join(allowed)}",
            )
        if event_id is not None and detail is not None:
            raise Refused("give an event's id or a detail, not both")
        if detail is not None and untrusted.size(detail) > MAX_DETAIL:
            raise Refused(f"detail has {MAX_DETAIL} bytes at most")
        known = await asyncio.to_thread(find, profile)
        if (state := await asyncio.to_thread(state_of, known)) != "enabled":
            raise Refused(f"{profile} is {state}", hint=f"opsmesh profile enable {profile}")
        client = await self._mesh.client()
        trigger_id = ids.uuid7() if key is None else ids.derived(0, "mcp", profile, key)
        if event_id is not None:
            place = await self._events.place(event_id)
            event, data = place.event, encode(place.event)
            origin = None if place.archived else (EVENTS, place.seq, place.stored_us)
        else:
            event, data = self._call(ctx, profile, detail or {}, trigger_id)
            origin = None
        await runnable(client, profile, event.host)
        what = trigger.Trigger(kind="manual", id=trigger_id, origin=origin)
        await trigger.send(client, profile, data, what)
        return answer(Triggered(trigger_id=trigger_id, profile=profile, event_id=event.id))

    def _call(
        self, ctx: Context, profile: str, detail: dict[str, Any], trigger_id: str
    ) -> tuple[Event, bytes]:
        """The call as the profile's event: for it alone, and not stored in the stream."""
        name, version = name_of(ctx)
        now_us = times.now_us()
        event = Event(
            topic=TOPIC,
            ts_utc=times.format_us(now_us),
            source="opsmesh",
            component="mcp-serve",
            severity="info",
            correlation_id=trigger_id,
            host=self._mesh.settings.host,
            session_id="",
            workspace="",
            payload={
                "server": "mcp",
                "tool": "trigger_profile",
                "client": untrusted.line(name, 80),
                "client_version": untrusted.line(version, 40),
                "arguments": untrusted.clean(detail),
                "outcome": "called",
            },
            id=trigger_id,
            schema_version=SCHEMA_VERSION,
            hops=1,
        )
        data, _ = self._mesh.redactor.event(encode(event))
        return event, data


async def runnable(client: Client, profile: str, host: str) -> None:
    """Refused unless handlers are there that can run it now: a trigger waits in its queue, and what
    an agent asks for happens now or is refused."""
    asked = msgspec.json.encode({"profile": profile, "host": host})
    try:
        said = await client.request(RUNNABLE, asked, timeout=PATIENCE)
    except (NoRespondersError, NatsTimeout):
        raise Refused(
            "no handlers are running; nothing was begun", hint="start the mesh: opsmesh up"
        ) from None
    found = msgspec.json.decode(said.data)
    if found.get("ok") is not True:
        raise Refused(str(found.get("error", "not now"))[:300], hint="list_profiles")


async def _search(client: Client, run_id: str | None, trigger_id: str | None) -> Run | None:
    found = [run async for run in _matching(client, run_id, trigger_id)]
    if len(found) > 1:
        raise Refused(f"{len(found)} runs begin with {run_id}", hint="give more of the id")
    return found[0] if found else None


async def _matching(
    client: Client, run_id: str | None, trigger_id: str | None
) -> AsyncIterator[Run]:
    async for run in Ledger(client).runs():
        if run_id is not None and not run.run_id.startswith(run_id):
            continue
        if trigger_id is not None and run.trigger_id != trigger_id:
            continue
        yield run


def shown(run: Run, *, steps: bool) -> RunOut:
    """A run as it is shown; with its steps and errors."""
    question = run.question
    return RunOut(
        run_id=run.run_id,
        profile=run.profile,
        state=run.state,
        topic=run.topic,
        event_id=run.event_id,
        trigger=run.trigger,
        trigger_id=run.trigger_id,
        attempt=run.attempt,
        created=times.format_us(run.created_us),
        updated=times.format_us(run.updated_us),
        duration_ms=run.duration_ms,
        reason=run.reason,
        evidence_path=run.evidence_path,
        steps=[
            StepOut(
                id=step.id,
                action=step.action,
                state=step.state,
                duration_ms=step.duration_ms,
                exit_code=step.exit_code,
                error=step.error,
                evidence_path=step.evidence_path,
                output=msgspec.to_builtins(step.output, enc_hook=str),
            )
            for step in run.steps
        ]
        if steps
        else [],
        errors=[f"attempt {one.attempt}, {one.step}: {one.error}" for one in run.errors]
        if steps
        else [],
        approval_id=question.id if question is not None else None,
    )
