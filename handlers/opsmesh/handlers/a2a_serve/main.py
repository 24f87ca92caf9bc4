"""The server as a component of `opsmesh up`, where `a2a_serve.enabled` says so."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable

import structlog

from opsmesh.handlers.errors import ExtraMissing, HandlersError
from opsmesh.handlers.secrets import store
from opsmesh.router import logs, notify, redaction, tasks
from opsmesh.router.settings import Settings
from opsmesh.schemas.exact import Known

log = structlog.get_logger()


def main() -> int:
    """Serve until SIGTERM; 1 when it cannot be served like this."""
    settings, known = Settings(), Known()
    clean = redaction.of_logs(settings, known=known)
    logs.configure("a2a", level=settings.log_level, style=settings.log, redactor=clean)

    def ready(address: str) -> None:
        log.info("a2a.serving", address=address)
        notify.ready()

    try:
        tasks.run(_serve(settings, known, ready))
    except HandlersError as error:
        log.error(  # noqa: TRY400 (a person's mistake needs no traceback)
            "a2a.not_served", error=str(error), hint=str(getattr(error, "hint", ""))
        )
        return 1
    return 0


async def _serve(settings: Settings, known: Known, ready: Callable[[str], None]) -> None:
    try:
        from opsmesh.handlers.a2a_serve import serve
    except ImportError as error:
        raise ExtraMissing("a2a", str(error)) from error
    beating = asyncio.create_task(notify.beat())
    try:
        await serve.serve(settings, store.load(settings.secrets, known), ready=ready)
    finally:
        beating.cancel()


if __name__ == "__main__":
    gc.freeze()  # what was imported stays: it is never looked through for rubbish again
    sys.exit(main())
