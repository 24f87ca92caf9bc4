"""The tool that collects evidence of an event into a bundle, with collectors that are allowed.

A client names collectors, and nothing else: those that need a value of their own (a path, a
command) cannot be asked for.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import BaseModel, Field

from opsmesh.handlers.actions.collect import FOUND, Collect
from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.bundles import folders
from opsmesh.handlers.live import recent
from opsmesh.handlers.mcp_serve.answers import Marked, NotAllowed, Refused, answer
from opsmesh.handlers.mcp_serve.connection import Mesh
from opsmesh.handlers.mcp_serve.events import EventId, EventTools
from opsmesh.router import paths
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import Event, encode

#: Seconds that a bundle may take.
BUNDLE_S: Final = 45.0


class Piece(BaseModel):
    """One file of the bundle."""

    name: str
    size: int | None = None
    error: str | None = None


class Bundle(BaseModel):
    """A bundle on this host: opsmesh evidence bundle show opens it."""

    bundle: str = Field(description="its id: the SHA-256 of its manifest")
    path: str
    event_id: str
    pieces: list[Piece]
    facts: dict[str, Any] = {}


class EvidenceTools:
    """`allowed` are the collectors, `setting` is where they are written."""

    def __init__(
        self, mesh: Mesh, events: EventTools, *, allowed: Sequence[str], setting: str
    ) -> None:
        self._mesh = mesh
        self._events = events
        self._allowed = tuple(allowed)
        self._setting = setting

    async def collect_evidence(
        self,
        ctx: Context,
        event_id: EventId,
        collectors: Annotated[
            list[str],
            Field(max_length=32, description="some of those that are allowed; empty: all of them"),
        ] = [],  # noqa: B006 (pydantic copies it)
    ) -> Annotated[CallToolResult, Marked[Bundle]]:
        """Collect what there is about a stored event into an evidence bundle on this host: unit
        status, journal, versions. Secrets are taken out. Only collectors that a person allowed."""
        chosen = self._chosen(collectors)
        place = await self._events.place(event_id)
        client = await self._mesh.client()
        data, _ = self._mesh.redactor.event(encode(place.event))
        call = ids.uuid7()
        folder = Path(tempfile.mkdtemp(prefix="opsmesh-collect-"))
        try:
            context = StepContext(
                event=place.event,
                data=data,
                profile="mcp",
                profile_hash=call,
                run_id=call,
                step_id="collect",
                attempt=1,
                idempotency_key=f"{call}:collect",
                variables={
                    "event": place.event.view(),
                    "steps": {},
                    "vars": {},
                    "run": {"id": call, "attempt": 1},
                    "host": self._mesh.settings.host,
                },
                timeout=BUNDLE_S,
                folder=folder,
                bundles=Path(paths.bundles_dir()),
                publish=_unsaid,
                host=self._mesh.settings.host,
                recent=recent.reader(client),
                redactor=self._mesh.redactor,
            )
            result = await Collect.parse(list(chosen)).run(context)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        made = Path(result.output["path"])
        manifest = await asyncio.to_thread(folders.read_manifest, made)
        return answer(
            Bundle(
                bundle=result.output["bundle"],
                path=str(made),
                event_id=place.event.id,
                pieces=[
                    Piece(name=one["name"], size=one.get("size"), error=one.get("error"))
                    for one in manifest.get("files", [])
                ],
                facts=result.output.get("facts", {}),
            )
        )

    def _chosen(self, asked: Sequence[str]) -> Sequence[str]:
        if not self._allowed:
            raise NotAllowed(
                "no collector is allowed here",
                hint=f"a person can allow some in config.yaml: {self._setting}: [unit_status, "
                f"journal]; there are {', '.join(FOUND.words)}",
            )
        usable = [word for word in self._allowed if word in FOUND.words]
        if other := [word for word in asked if word not in usable]:
            raise NotAllowed(
                f"not allowed here: {', '.join(other)[:200]}",
                hint=f"allowed ({self._setting}): {', '.join(usable)}",
            )
        if not usable:
            raise Refused(
                f"{self._setting} names no collector that needs no value of its own",
                hint=f"there are {', '.join(FOUND.words)}",
            )
        return list(dict.fromkeys(asked)) or usable


async def _unsaid(_: Event) -> None:
    """What a collector would publish stays unsaid: the call itself is on record."""
