"""The endpoint as a component of `opsmesh up`, where `metrics.port` is set."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable

if __name__ == "__main__":  # before everything that it makes cheaper
    from opsmesh.router import beginning

import structlog

from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.metrics.serve import Endpoint
from opsmesh.router import logs, notify, redaction, tasks
from opsmesh.router.settings import Settings

log = structlog.get_logger()


def main() -> int:
    """Serve until SIGTERM; 1 when it cannot be served like this."""
    settings = Settings()
    logs.configure(
        "metrics",
        level=settings.log_level,
        style=settings.log,
        redactor=redaction.of_logs(settings),
    )

    def ready(address: str) -> None:
        log.info("metrics.serving", address=f"{address}/metrics")
        notify.ready()

    port = settings.metrics.port
    try:
        tasks.run(serve(settings, settings.metrics.address, 0 if port is None else port, ready))
    except HandlersError as error:
        log.error(  # noqa: TRY400 (a person's mistake needs no traceback)
            "metrics.not_served", error=str(error), hint=str(getattr(error, "hint", ""))
        )
        return 1
    return 0


async def serve(settings: Settings, address: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; `ready` is told the address."""
    endpoint = Endpoint(settings, address=address, port=port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.create_task(endpoint.run(ready))
    beating = asyncio.create_task(notify.beat())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await tasks.end([serving, beating, stopping])


if __name__ == "__main__":
    beginning.over()
    sys.exit(main())
