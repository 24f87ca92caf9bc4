"""The MCP server of `opsmesh mcp serve`: which tools and resources there are, and how it speaks.

It reads; what acts is offered all the same, and refused with the setting that would allow it, so
that an agent can tell its user. Over stdio nothing but the protocol is written to standard output.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer

from opsmesh.handlers.mcp_serve import profiles, resources, untrusted
from opsmesh.handlers.mcp_serve.approvals import ApprovalTools
from opsmesh.handlers.mcp_serve.calls import Calls
from opsmesh.handlers.mcp_serve.connection import Mesh
from opsmesh.handlers.mcp_serve.events import EventTools
from opsmesh.handlers.mcp_serve.evidence import EvidenceTools
from opsmesh.handlers.mcp_serve.records import Records, Transport, Which
from opsmesh.handlers.mcp_serve.runs import RunTools
from opsmesh.router import redaction
from opsmesh.router.settings import Settings

INSTRUCTIONS: Final = (
    "opsmesh is an event mesh of a user's Linux machines: what happens becomes an event (a topic "
    "like service.start.failed and a payload), profiles fire on events and do things, runs are "
    "what they did. Begin with search_events; why tells why a profile fired or not, run_status "
    f"what came of it. {untrusted.NOTICE}"
)


class Serving:
    """A server, and what has to be closed behind it."""

    def __init__(self, server: MCPServer, mesh: Mesh, records: Records) -> None:
        self.server = server
        self._mesh = mesh
        self._records = records

    async def close(self) -> None:
        """Once nobody calls any more."""
        await self._mesh.close()
        self._records.close()


def base(
    settings: Settings, which: Which, *, transport: Transport, title: str, instructions: str
) -> tuple[MCPServer, Mesh, Records, Calls]:
    """What both servers have: a connection, records of every call, a name."""
    redactor = redaction.load(settings)
    records = Records(which, transport=transport, redactor=redactor)
    server: MCPServer = MCPServer(
        "opsmesh" if which == "mcp" else f"opsmesh-{which}",
        title=title,
        instructions=instructions,
        version=version("opsmesh"),
        log_level="ERROR",
        middleware=[_recorder(records)],
        subscriptions=False,
    )
    return server, Mesh(settings, redactor, name=which), records, Calls(server, records)


def make(settings: Settings, *, transport: Transport) -> Serving:
    """The server of `mcp serve`."""
    server, mesh, records, calls = base(
        settings, "mcp", transport=transport, title="opsmesh", instructions=INSTRUCTIONS
    )
    events = EventTools(mesh)
    about, runs, waiting = profiles.ProfileTools(mesh), RunTools(mesh, events), ApprovalTools(mesh)
    evidence = EvidenceTools(
        mesh,
        events,
        allowed=settings.mcp_serve.collectors,
        setting="mcp_serve.collectors",
    )
    calls.add(events.search_events, title="Search events")
    calls.add(events.get_event, title="One event")
    calls.add(events.why, title="Why a profile fired, or not")
    calls.add(about.list_profiles, title="Profiles")
    calls.add(about.validate_profile, title="Check a profile's text")
    calls.add(
        about.backtest_profile, title="Decide past events again", timeout_s=profiles.BACKTEST_S
    )
    calls.add(runs.run_status, title="Runs")
    calls.add(runs.trigger_profile, title="Run a profile", acts=True, destructive=True)
    calls.add(waiting.list_approvals, title="What waits for a person")
    calls.add(
        waiting.approve,
        title="Answer what waits for a person",
        acts=True,
        destructive=True,
        idempotent=True,
        timeout_s=600.0,  # a person reads it
    )
    calls.add(evidence.collect_evidence, title="Collect evidence of an event", acts=True)
    resources.add(server, mesh, events)
    return Serving(server, mesh, records)


def _recorder(records: Records) -> Any:
    """Puts every reading of a resource on record; tools see to it themselves."""

    async def middleware(ctx: ServerRequestContext[Any, Any], call_next: Any) -> Any:
        if ctx.method != "resources/read":
            return await call_next(ctx)
        params = ctx.session.client_params
        client = (params.client_info.name, params.client_info.version) if params else ("", "")
        uri = str((ctx.params or {}).get("uri", ""))
        try:
            result = await call_next(ctx)
        except Exception as error:
            records.tell(uri, client=client, arguments={}, outcome="failed", error=str(error))
            raise
        records.tell(uri, client=client, arguments={}, outcome="ok")
        return result

    return middleware
