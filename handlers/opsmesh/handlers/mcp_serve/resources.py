"""Resources: how the streams stand, what lies in the dead letters, figures of profiles, one event
or run by its id. JSON, cleaned and marked like every answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.feedback import feedback
from opsmesh.handlers.mcp_serve import answers, untrusted
from opsmesh.handlers.mcp_serve.answers import Refused
from opsmesh.handlers.mcp_serve.connection import Mesh
from opsmesh.handlers.mcp_serve.events import EventTools, found_at
from opsmesh.handlers.mcp_serve.runs import shown
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.handlers.slo import book
from opsmesh.handlers.slo.objectives import Policy, nearest_rank
from opsmesh.router import deadletter, paths, topology
from opsmesh.router.settings import Settings
from opsmesh.schemas import times
from opsmesh.schemas.envelope import decode, host_token
from opsmesh.schemas.errors import SchemaError

JSON: Final = "application/json"
#: The mesh's streams.
STREAMS: Final = (topology.EVENTS, topology.DLQ, topology.TRIGGERS)
#: Dead letters of one answer.
LETTERS: Final = 50
#: What is said of the figures.
OF_WHICH: Final = (
    "Figures of runs that a profile began by itself and that the ledger remembers; objectives, "
    "where the profile has some, over its own window of the stream."
)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def add(server: MCPServer, mesh: Mesh, events: EventTools) -> None:
    """Offer them."""
    reading = _Resources(mesh, events)
    for name in STREAMS:
        server.resource(
            f"mesh://streams/{name}",
            name=f"stream {name}",
            description="Messages, bytes, first and last message of the stream." + answers.MARKED,
            mime_type=JSON,
        )(_fixed(reading.stream, name))
    for uri, name, description, read in (
        ("mesh://dlq", "dead letters", "How many dead letters wait, by profile.", reading.letters),
        ("mesh://slo", "figures", "Success and latency of every profile.", reading.figures),
    ):
        server.resource(uri, name=name, description=description + answers.MARKED, mime_type=JSON)(
            _fixed(read)
        )
    for uri, name, description, read_one in (
        ("mesh://dlq/{profile}", "dead letters of a profile", "The newest.", reading.letters_of),
        ("mesh://slo/{profile}", "figures of a profile", "Its figures.", reading.figures_of),
        ("mesh://events/{event_id}", "event", "One event, whole.", reading.event),
        ("mesh://runs/{run_id}", "run", "One run, its steps and errors.", reading.run),
    ):
        server.resource(uri, name=name, description=description + answers.MARKED, mime_type=JSON)(
            read_one
        )


class _Resources:
    def __init__(self, mesh: Mesh, events: EventTools) -> None:
        self._mesh = mesh
        self._events = events

    async def stream(self, name: str) -> str:
        return await _read(lambda: self._stream(name))

    async def letters(self) -> str:
        return await _read(self._letters)

    async def letters_of(self, profile: str) -> str:
        return await _read(lambda: self._letters_of(_name(profile)))

    async def figures(self) -> str:
        return await _read(lambda: self._figures(None))

    async def figures_of(self, profile: str) -> str:
        return await _read(lambda: self._figures(_name(profile)))

    async def event(self, event_id: str) -> str:
        async def body() -> dict[str, Any]:
            return found_at(await self._events.place(event_id)).model_dump(mode="json")

        return await _read(body)

    async def run(self, run_id: str) -> str:
        async def body() -> dict[str, Any]:
            client = await self._mesh.client()
            found = [r async for r in Ledger(client).runs() if r.run_id.startswith(run_id)]
            if len(run_id) < 4 or len(found) != 1:
                raise ResourceNotFoundError(f"{len(found)} runs begin with {run_id[:60]}")
            return shown(found[0], steps=True).model_dump(mode="json")

        return await _read(body)

    async def _stream(self, name: str) -> dict[str, Any]:
        client = await self._mesh.client()
        info = await client.jetstream().stream_info(name)
        state = info.state
        return {
            "stream": name,
            "messages": state.messages,
            "bytes": state.bytes,
            "first_seq": state.first_seq,
            "last_seq": state.last_seq,
            "consumers": state.consumer_count,
            "subjects": list(info.config.subjects or ()),
            "max_age_s": info.config.max_age,
            "max_bytes": info.config.max_bytes,
        }

    async def _letters(self) -> dict[str, Any]:
        client = await self._mesh.client()
        waiting: dict[str, int] = {}
        async for letter in deadletter.letters(client, bodies=False):
            waiting[letter.profile] = waiting.get(letter.profile, 0) + 1
        return {"waiting": waiting, "total": sum(waiting.values())}

    async def _letters_of(self, profile: str) -> dict[str, Any]:
        client = await self._mesh.client()
        letters = [one async for one in deadletter.letters(client, profile=profile)]
        return {
            "profile": profile,
            "waiting": len(letters),
            "newest": [_letter(one) for one in letters[-LETTERS:]],
        }

    async def _figures(self, profile: str | None) -> dict[str, Any]:
        client = await self._mesh.client()
        runs = [run async for run in Ledger(client).runs(profile)]
        verdicts = feedback.newest(await feedback.judgements(client, profile))
        wanted = {
            name: one.slo
            for name, one in load_profiles(Path(paths.config_dir())).profiles.items()
            if one.slo is not None and profile in (None, name)
        }
        names = sorted({run.profile for run in runs} | wanted.keys())
        objectives = await _objectives(client, wanted)
        return {
            "note": OF_WHICH,
            "profiles": {
                name: {
                    **figures([run for run in runs if run.profile == name], verdicts),
                    "objectives": objectives.get(name, []),
                }
                for name in names
            },
        }


async def _objectives(client: Client, wanted: Mapping[str, Policy]) -> dict[str, list[Any]]:
    """How each profile stands by its objectives, on all hosts together."""
    if not wanted:
        return {}
    now_us = times.now_us()
    longest = max(policy.window_us for policy in wanted.values())
    found = await book.of_stream(client, since_us=now_us - longest)
    host = host_token(Settings().host)
    return {
        name: [
            {**book.described(one), "verdict": one.verdict}
            for one in found.standings(name, policy, host=host, of=None, now_us=now_us)
        ]
        for name, policy in wanted.items()
    }


def figures(runs: Sequence[Run], verdicts: Any) -> dict[str, Any]:
    """How a profile's runs went. Pure."""
    counted = feedback.counted(runs)
    ended = [run for run in counted if run.finished]
    good = [run for run in ended if run.state == "succeeded"]
    took = sorted(run.duration_ms for run in ended if run.duration_ms is not None)
    waited = sorted(
        (step.started_us - run.stored_us) / 1e3
        for run in counted
        if run.stored_us and (step := next(iter(run.steps), None)) is not None and run.attempt == 1
    )
    rate = feedback.rate(counted, verdicts)
    return {
        "runs": len(counted),
        "finished": len(ended),
        "succeeded": len(good),
        "success": round(len(good) / len(ended), 4) if ended else None,
        "duration_ms": _percentiles(took),
        "event_to_first_step_ms": _percentiles(waited),
        "false_positives": rate.false_positives,
        "false_positive_share": round(rate.share, 4),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {f"p{share}": round(nearest_rank(values, share / 100), 1) for share in (50, 95, 99)}


def _letter(one: deadletter.Letter) -> dict[str, Any]:
    found: dict[str, Any] = {
        "seq": one.seq,
        "stored": times.format_us(one.stored_us),
        "topic": one.topic,
        "host": one.host,
        "event_id": one.event_id,
        "run_id": one.run_id,
        "reason": one.reason,
        "errors": one.errors[-3:],
    }
    try:
        found["payload"] = decode(one.data).payload
    except SchemaError:
        found["payload"] = None
    return found


def _name(profile: str) -> str:
    if not _NAME.fullmatch(profile):
        raise ResourceNotFoundError(f"{untrusted.line(profile, 64)!r} is no profile's name")
    return profile


def _fixed(read: Callable[..., Awaitable[str]], *given: str) -> Callable[[], Awaitable[str]]:
    async def body() -> str:
        return await read(*given)

    return body


async def _read(work: Callable[[], Awaitable[dict[str, Any]]]) -> str:
    try:
        data, cut = untrusted.bounded(untrusted.clean(await work()))
    except NotFoundError:
        raise ResourceError("the mesh has no such stream; next: opsmesh up") from None
    except Refused as error:
        raise ResourceNotFoundError(f"{error}; next: {error.hint}") from None
    except Exception as error:
        told = answers.refusal(error)
        if isinstance(error, ResourceError) or told is None:
            raise
        raise ResourceError(str(told)) from None
    marked = {
        "untrusted": True,
        "notice": untrusted.NOTICE,
        "data": data,
        "truncated": cut,
    }
    return json.dumps(marked, ensure_ascii=False)
