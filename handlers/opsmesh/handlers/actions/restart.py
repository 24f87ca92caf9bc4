"""`restart_unit`: restarts a failed unit, where that is not what makes things worse.

    restart_unit: {flapping: 15m, settle: 10s}

Looked at is how things stand when the step is run, not when the event came: a person may have said
yes an hour later. A unit that flaps, that was throttled, or that is up again, is left alone, and
that is no failure. Whether the restart helped is looked at until it has been up for `settle`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field

from opsmesh.handlers import process
from opsmesh.handlers.actions.contract import Past, StepContext, StepResult
from opsmesh.handlers.actions.environment import step_environment, write_event
from opsmesh.handlers.actions.spec import Duration, Spec, Text
from opsmesh.handlers.collectors import subject
from opsmesh.handlers.collectors.contract import Request, Unavailable
from opsmesh.handlers.errors import HandlersError
from opsmesh.router.errors import RouterError
from opsmesh.schemas import times

#: Topics that say that a restart would only feed the loop.
STOPPING: Final = ("service.unit.flapping", "service.restart.throttled")
#: Seconds that systemctl may take to start the unit, and between two looks at it.
START_S: Final = 90.0
LOOK_S: Final = 0.5
#: Events that are looked through.
LIMIT: Final = 200
_PROPERTIES: Final = "LoadState,ActiveState,SubState,Result,NRestarts,Type"


class RestartSpec(Spec):
    """Which unit, and what keeps it from being restarted."""

    unit: Text | None = None
    flapping: Annotated[
        Duration, Field(ge=0, description="A unit that flapped or was throttled within this time.")
    ] = 900.0
    settle: Annotated[Duration, Field(ge=0, le=600)] = 10.0


class RestartUnit:
    """`steps.<id>`: `restarted`, `healthy`, `why`, `state`, `unit`."""

    key: ClassVar[str] = "restart_unit"
    spec: ClassVar[type[RestartSpec]] = RestartSpec
    #: A handler that died in the middle: looking again is right, and restarts what is still failed.
    on_unknown: ClassVar[str] = "retry"

    def __init__(self, spec: RestartSpec) -> None:
        self._spec = spec

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From a mapping; nothing is the event's own unit."""
        return cls(RestartSpec.model_validate({} if value is None else value))

    def describe(self) -> dict[str, Any]:
        """The value written out, with its defaults."""
        return self._spec.model_dump(mode="json")

    async def run(self, ctx: StepContext) -> StepResult:
        """Look, restart, and look again."""
        env = step_environment(ctx, write_event(ctx))
        request = Request(
            ctx=ctx, env=env, source=self.key, name=None, timeout_s=START_S, max_bytes=64 * 1024
        )
        try:
            unit = subject.unit_of(request, self._spec.unit)
            if not unit:
                raise Unavailable("the event's payload names no unit")
            return await self._restart(request, unit)
        except HandlersError as error:
            return StepResult(ok=False, output={}, error=str(error), retryable=False)

    async def _restart(self, request: Request, unit: str) -> StepResult:
        before = await _show(request, unit)
        why = await self._held_back(request, unit) or _left_alone(before)
        output: dict[str, Any] = {"unit": unit, "restarted": False, "healthy": False, "why": why}
        if why:
            healthy = before.get("ActiveState") == "active"
            output |= {"state": before.get("ActiveState", ""), "healthy": healthy}
            return StepResult(ok=True, output=output)
        argv = [*subject.systemctl(request), "--no-ask-password", "restart", "--", unit]
        ended = await request.run(argv)
        after = await self._settled(request, unit)
        healthy = ended.ok and _is_well(after)
        error = None
        if not healthy:
            said = ended.stderr_tail.strip().splitlines()
            error = said[0] if said else f"{unit} is {after.get('ActiveState')} after its restart"
        # it was tried: to try again is for whoever decides, with what is known now
        return StepResult(
            ok=healthy,
            output={
                **output,
                "restarted": ended.ok,
                "healthy": healthy,
                "why": error or "",
                "state": after.get("ActiveState", ""),
            },
            error=error,
            retryable=False,
        )

    async def _held_back(self, request: Request, unit: str) -> str:
        """Why a restart would be wrong; empty when nothing speaks against it."""
        if not self._spec.flapping:
            return ""
        now_us = times.now_us()
        try:
            cause = request.ctx.event
            past = Past(
                topics=STOPPING,
                since_us=min(now_us, cause.ts_us) - round(self._spec.flapping * 1e6),
                until_us=now_us,
                limit=LIMIT,
                host=cause.host,
            )
            found = await request.ctx.recent(past)
        except (RouterError, TimeoutError) as error:
            return f"whether it flaps cannot be known: {error}"
        manager = request.ctx.event.payload.get("manager", "system")
        for event in found:
            payload = event.payload
            if payload.get("unit") == unit and payload.get("manager", "system") == manager:
                return f"{event.topic} at {event.ts_utc}: a restart would feed the loop"
        return ""

    async def _settled(self, request: Request, unit: str) -> dict[str, str]:
        until = time.monotonic() + self._spec.settle
        while True:
            facts = await _show(request, unit)
            if facts.get("ActiveState") == "failed" or time.monotonic() >= until:
                return facts
            await asyncio.sleep(LOOK_S)


def _left_alone(facts: dict[str, str]) -> str:
    if facts.get("LoadState") not in (None, "loaded"):
        return f"it is {facts['LoadState']}"
    state = facts.get("ActiveState", "")
    return "" if state == "failed" else f"it is {state or 'unknown'}, not failed any more"


def _is_well(facts: dict[str, str]) -> bool:
    """Up; or, of a unit that does one thing and ends, done."""
    if facts.get("ActiveState") == "active":
        return True
    return facts.get("ActiveState") == "inactive" and facts.get("Result") == "success"


async def _show(request: Request, unit: str) -> dict[str, str]:
    argv: Sequence[str] = [
        *(*subject.systemctl(request), "show", f"--property={_PROPERTIES}", "--", unit)
    ]
    ended: process.ProcessResult = await request.run(argv, timeout_s=10.0)
    if not ended.ok:
        said = ended.stderr_tail.strip().splitlines()
        raise Unavailable(said[0] if said else f"systemctl show: exit code {ended.exit_code}")
    return dict(line.partition("=")[::2] for line in ended.stdout_tail.splitlines())
