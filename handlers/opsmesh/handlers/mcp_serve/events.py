"""Tools that read events: search, one event whole, and why profiles fired for it or not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from pathlib import Path
from typing import Annotated, Any, Final

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import BaseModel, ConfigDict, Field

from opsmesh.handlers.explain.answers import Answer, Explainer, Finding
from opsmesh.handlers.explain.lookup import Lookup, Place
from opsmesh.handlers.mcp_serve import untrusted
from opsmesh.handlers.mcp_serve.answers import Marked, Refused, answer, when
from opsmesh.handlers.mcp_serve.connection import Mesh
from opsmesh.router import paths
from opsmesh.router.conditions import ConditionError, Expression
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.topic_patterns import disjoint, listens
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import decode, host_token
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.nearest import nearest
from opsmesh.schemas.registry import Registry, load_registry

#: Events of one answer, and how many unless asked.
MOST: Final = 200
USUAL: Final = 20
#: Seconds that a search may take.
SEARCH_S: Final = 20.0
#: Characters of a condition and of a searched text.
MAX_FILTER: Final = 2000
#: Events between looks at the clock, and at whether the client has given up.
LOOK: Final = 256
#: Bytes of JSON of all events of an answer: a model has to read them.
MAX_EVENTS: Final = 96 * 1024

EventId = Annotated[
    str, Field(min_length=4, max_length=128, description="an event's id, or its start")
]


class Envelope(BaseModel):
    """An event as it is stored; more fields than these may be there."""

    model_config = ConfigDict(extra="allow")

    id: str
    topic: str
    ts_utc: str
    host: str
    source: str
    severity: str
    correlation_id: str
    payload: dict[str, Any]


class Found(BaseModel):
    """An event, and where it lies."""

    seq: int
    stored: str = Field(description="when the broker stored it, RFC 3339")
    archived: bool = Field(default=False, description="gone from the stream, from the archive")
    event: Envelope


class Search(BaseModel):
    """Events in the order in which they were stored."""

    events: list[Found]
    complete: bool = Field(description="whether all of the asked time was looked at")
    searched: int = Field(description="events that were looked at")
    more_before_seq: int | None = Field(
        default=None, description="pass as before_seq for older ones; none: there are no more"
    )
    unanswered: int = Field(default=0, description="events for which `where` has no answer")


class Decision(BaseModel):
    """One decision of a profile about the event."""

    outcome: str
    clause: str
    reason: str
    at: str
    recorded: bool
    clauses: list[dict[str, Any]] = []
    run_id: str | None = None
    run_state: str | None = None


class Verdict(BaseModel):
    """What came of the event for one profile."""

    profile: str
    status: str
    candidate: bool = False
    text: str = ""
    hint: str = ""
    decisions: list[Decision] = []


class Why(BaseModel):
    """What every profile made of one event."""

    event: Found
    profiles: list[Verdict]
    not_listening: list[str] = []


class EventTools:
    """They need the mesh, and change nothing."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def search_events(
        self,
        ctx: Context,
        topics: Annotated[
            list[str],
            Field(max_length=32, description="topic patterns: * is one token, > the rest"),
        ] = [],  # noqa: B006 (pydantic copies it)
        host: Annotated[str | None, Field(description="only this host's")] = None,
        since: Annotated[str, Field(description="an age (10m, 2h, 7d) or a time")] = "1h",
        until: Annotated[str | None, Field(description="the same; now unless given")] = None,
        # no None: the SDK reads JSON out of what may be something else than text
        text: Annotated[
            str, Field(max_length=MAX_FILTER, description="stands in it, in any case")
        ] = "",
        where: Annotated[
            str,
            Field(max_length=MAX_FILTER, description="CEL, like event.payload.unit == 'a.service'"),
        ] = "",
        limit: Annotated[int, Field(ge=1, le=MOST)] = USUAL,
        before_seq: Annotated[int | None, Field(ge=1, description="older than this one")] = None,
    ) -> Annotated[CallToolResult, Marked[Search]]:
        """Search the mesh's events: the newest `limit` that fit, oldest first. Topics are words
        with dots, like service.start.failed; patterns are python.> or *.test.failed."""
        now_us = times.now_us()
        since_us, until_us = when(since, now_us) or 0, when(until, now_us)
        wanted = _Wanted(topics, text, where, registry())
        place = "*" if host is None else host_token(host)
        subjects = [f"evt.{place}.{topic}" for topic in disjoint(topics or [">"])]
        kept: deque[Found] = deque(maxlen=limit + 1)
        searched, complete, began = 0, True, time.monotonic()
        client = await self._mesh.client()
        messages = scan(client, EVENTS, subjects=subjects, since_us=since_us)
        async with contextlib.aclosing(messages):  # type: ignore[type-var]
            async for message in messages:
                where_it_is = delivery(message.reply)
                seq, stored_us = where_it_is.stream_seq, where_it_is.timestamp_ns // 1000
                if until_us is not None and stored_us >= until_us:
                    break
                if before_seq is not None and seq >= before_seq:
                    break
                searched += 1
                if searched % LOOK == 0:
                    await asyncio.sleep(0)
                    if time.monotonic() - began > SEARCH_S:
                        complete = False
                        break
                found = wanted.take(message.data, seq, stored_us)
                if found is not None:
                    kept.append(found)
        events = list(kept)
        more = len(events) > limit
        events = events[-limit:]
        fitting = _fitting(events)
        more = more or len(fitting) < len(events)
        return answer(
            Search(
                events=fitting,
                complete=complete,
                searched=searched,
                more_before_seq=fitting[0].seq if more and fitting else None,
                unanswered=wanted.unanswered,
            )
        )

    async def get_event(
        self, ctx: Context, event_id: EventId
    ) -> Annotated[CallToolResult, Marked[Found]]:
        """One event whole, by its id or the start of it, from the stream or the archive."""
        return answer(found_at(await self.place(event_id)))

    async def why(
        self,
        ctx: Context,
        event_id: EventId,
        profile: Annotated[str | None, Field(max_length=128, description="only this one")] = None,
    ) -> Annotated[CallToolResult, Marked[Why]]:
        """Why each profile fired for an event, or did not: every clause, with what it read."""
        client, settings = await self._mesh.client(), self._mesh.settings
        explainer = await Explainer.open(
            client,
            host=settings.host,
            config=Path(paths.config_dir()),
            archive=settings.evidence_dir,
        )
        known = explainer.files.names() | explainer.book.names()
        if profile is not None and profile not in known:
            raise Refused(f"no profile {profile!r}", hint=_near(profile, known))
        place = one(await explainer.lookup.find(event_id), event_id)
        told = await explainer.about(place, profile=profile)
        heard = [each for each in told if each.status != "unheard" or profile is not None]
        return answer(
            Why(
                event=found_at(place),
                profiles=[_verdict(each) for each in heard],
                not_listening=sorted({each.profile for each in told if each not in heard}),
            )
        )

    async def place(self, event_id: str) -> Place:
        """The event that is meant; Refused when there is none, or more than one."""
        client = await self._mesh.client()
        lookup = Lookup(client, registry(), self._mesh.settings.evidence_dir)
        return one(await lookup.find(event_id), event_id)


class _Wanted:
    """What a search keeps."""

    def __init__(self, topics: list[str], text: str, where: str, registry: Registry) -> None:
        self._topics = tuple(topics)
        self._text = text.lower() if text else None
        self._where = _condition(where) if where else None
        self._registry = registry
        self.unanswered = 0

    def take(self, data: bytes, seq: int, stored_us: int) -> Found | None:
        if self._text is not None and self._text not in data.decode(errors="replace").lower():
            return None
        try:
            event = self._registry.upcast(decode(data, stored=(EVENTS, seq, stored_us)))
        except SchemaError:
            return None
        if self._topics and not listens(self._topics, event.topic):
            return None
        if self._where is not None:
            try:
                if self._where.evaluate({"event": event.view()}) is not True:
                    return None
            except ConditionError:
                self.unanswered += 1
                return None
        return found_at(Place(event=event, seq=seq, stored_us=stored_us))


def registry() -> Registry:
    """The topics that are known here."""
    return load_registry(Path(paths.config_dir(), "topics.yaml"))


def one(found: list[Place], event_id: str) -> Place:
    """The only one; Refused otherwise."""
    if not found:
        raise Refused(
            f"no event {event_id} is in the stream or in the archive",
            hint="search_events shows the ids",
        )
    if len(found) > 1:
        raise Refused(f"{len(found)} events begin with {event_id}", hint="give more of the id")
    return found[0]


def found_at(place: Place) -> Found:
    """An event as it is shown: cleaned here already, so that what is counted is what is sent."""
    view = {key: value for key, value in place.event.view().items() if value is not None}
    return Found(
        seq=place.seq,
        stored=times.format_us(place.stored_us),
        archived=place.archived,
        event=Envelope.model_validate(untrusted.clean(view)),
    )


def _condition(text: str) -> Expression:
    try:
        found = Expression(text)
    except ConditionError as error:
        raise Refused(
            f"where: {error}", hint="CEL over `event`, like event.severity == 'error'"
        ) from None
    unknown = found.names - {"event"}
    if unknown or found.last:
        what = ", ".join(sorted(unknown)) or "last(…)"
        raise Refused(f"where: there is no {what} here", hint="it reads `event` alone")
    return found


def _fitting(events: list[Found]) -> list[Found]:
    """The newest events that fit into an answer: one at least."""
    left, kept = MAX_EVENTS, 0
    for event in reversed(events):
        left -= len(event.model_dump_json())
        if left < 0 and kept:
            break
        kept += 1
    return events[len(events) - kept :]


def _verdict(told: Answer) -> Verdict:
    return Verdict(
        profile=told.profile,
        status=told.status,
        candidate=told.candidate,
        text=told.text,
        hint=told.hint,
        decisions=[_decision(finding) for finding in told.findings],
    )


def _decision(finding: Finding) -> Decision:
    from opsmesh.handlers.mcp_serve.answers import plain

    decision = finding.decision
    return Decision(
        outcome=decision.outcome,
        clause=decision.clause,
        reason=decision.reason,
        at=times.format_us(decision.at_us),
        recorded=finding.recorded,
        clauses=plain(finding.verdicts),
        run_id=finding.run.run_id if finding.run else None,
        run_state=finding.run.state if finding.run else None,
    )


def _near(name: str, known: set[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else "list_profiles shows them"
