"""What a component does first: look whether this version may touch what is here."""

from __future__ import annotations

import structlog

from opsmesh.router import logs, state_format
from opsmesh.router.settings import Settings

log = structlog.get_logger()


def refused(component: str, settings: Settings) -> bool:
    """Whether the state here is not to be touched; the log says why. Before anything is written."""
    if (hindrance := state_format.hindrance()) is None:
        return False
    logs.configure(component, level=settings.log_level, style=settings.log)
    log.critical("state.refused", error=str(hindrance), hint=hindrance.hint)
    return True
