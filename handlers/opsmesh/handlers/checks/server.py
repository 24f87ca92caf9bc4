"""The MCP server of `opsmesh checks serve`: deterministic checks for agents, each off until a
person has written into `checks` what it may touch.
"""

from __future__ import annotations

from typing import Final

from opsmesh.handlers.checks.acting import ActingTools
from opsmesh.handlers.checks.tools import CheckTools
from opsmesh.handlers.mcp_serve import server, untrusted
from opsmesh.handlers.mcp_serve.events import EventTools
from opsmesh.handlers.mcp_serve.evidence import EvidenceTools
from opsmesh.handlers.mcp_serve.records import Transport
from opsmesh.router import redaction
from opsmesh.router.settings import Settings

INSTRUCTIONS: Final = (
    "Deterministic checks of a user's machine: the same question gets the same answer, without a "
    "model. Each works only with folders, files, units and commands that the user has allowed; a "
    f"refusal names the setting. {untrusted.NOTICE}"
)
#: Seconds that a call may take beside its program's own limit.
BESIDE_S: Final = 30.0


def make(settings: Settings, *, transport: Transport) -> server.Serving:
    """With everything that there is; what is not allowed refuses."""
    made, mesh, records, calls = server.base(
        settings,
        "checks",
        transport=transport,
        title="opsmesh checks",
        instructions=INSTRUCTIONS,
    )
    redactor = redaction.load(settings)
    checks, acting = CheckTools(settings, redactor), ActingTools(settings, redactor)
    evidence = EvidenceTools(
        mesh,
        EventTools(mesh),
        allowed=settings.checks.collectors,
        setting="checks.collectors",
    )
    limit = settings.checks.timeout + BESIDE_S
    calls.add(checks.run_pytest, title="Run tests", acts=True, idempotent=True, timeout_s=limit)
    calls.add(checks.run_lint, title="Look at code", timeout_s=limit)
    calls.add(checks.validate_schema, title="Check a file against its schema")
    calls.add(evidence.collect_evidence, title="Collect evidence of an event", acts=True)
    calls.add(
        acting.restart_unit, title="Restart a unit", acts=True, destructive=True, timeout_s=limit
    )
    calls.add(
        acting.apply_config,
        title="Apply configuration",
        acts=True,
        destructive=True,
        idempotent=True,
        timeout_s=limit,
    )
    return server.Serving(made, mesh, records)
