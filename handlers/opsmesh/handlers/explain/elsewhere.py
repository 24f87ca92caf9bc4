"""Runs of another broker: what their events tell here, and which host to ask for the rest.

A run's ledger stays with the handlers that have it; a hub has the events of its leaves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from opsmesh.router.scan import events
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, host_token

#: What is told of a run, in the order of the last word about it.
TOPICS: Final = ("automation.run.>", "automation.approval.>", "automation.step.>")
#: An event may carry an earlier time than its id; and hosts' clocks differ. In microseconds.
SLACK_US: Final = 60_000_000


class RunTold(msgspec.Struct, frozen=True, kw_only=True):
    """A run by the last event that tells of it."""

    run_id: str
    profile: str
    host: str
    state: str
    attempt: int
    event_id: str
    topic: str
    time: str
    correlation_id: str
    steps: tuple[dict[str, Any], ...] = ()
    error: str = ""

    @property
    def hint(self) -> str:
        """Where all of it is."""
        return f"all of it is on {self.host}: there, opsmesh run show {self.run_id}"


async def of_event(
    client: Client, event_id: str, profile: str, host: str, *, since_us: int
) -> RunTold | None:
    """The run of a profile on a host for an event; None when nothing has been told of it."""

    def ours(event: Event) -> bool:
        about = event.payload.get("profile") == profile
        return about and event_id in (event.causation_id, event.payload.get("trigger_id"))

    found = None
    async for event in _told(client, host_token(host), since_us, ours):
        found = _run(event)
    return found


async def of_run(client: Client, run_id: str) -> list[RunTold]:
    """Every run whose id begins so, by what has been told of it."""
    ms = ids.unix_ms(run_id)
    since_us = None if ms is None else max(0, ms * 1000 - SLACK_US)
    found: dict[str, RunTold] = {}
    async for event in _told(
        client, "*", since_us, lambda one: (one.run_id or "").startswith(run_id)
    ):
        found[event.run_id or ""] = _run(event)
    return list(found.values())


async def _told(
    client: Client, host: str, since_us: int | None, wanted: Callable[[Event], bool]
) -> AsyncIterator[Event]:
    subjects = [f"evt.{host}.{topic}" for topic in TOPICS]
    async for event, _ in events(client, subjects, since_us=since_us):
        if event.run_id and wanted(event):
            yield event


def _run(event: Event) -> RunTold:
    payload = event.payload
    kind, word = event.topic.split(".")[-2:]
    steps = payload.get("steps")
    return RunTold(
        run_id=event.run_id or "",
        profile=str(payload.get("profile") or event.component),
        host=event.host,
        state=_STATES.get(f"{kind}.{word}", word),
        attempt=event.attempt or 0,
        event_id=event.causation_id or "",
        topic=str(payload.get("trigger_topic") or ""),
        time=times.format_us(event.ts_us),
        correlation_id=event.correlation_id,
        steps=tuple(steps) if isinstance(steps, list) else (),
        error=str(payload.get("error") or payload.get("reason") or ""),
    )


#: What the last event of a run says of its state.
_STATES: Final = {
    "run.failed": "retrying",
    "approval.requested": "waiting",
    "approval.granted": "running",
    "approval.denied": "running",
    "approval.expired": "running",
    "approval.withdrawn": "running",
    "step.unknown": "running",
    "step.answered": "running",
}
