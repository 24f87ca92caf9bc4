"""The sink in this process: what it has to end, it ends."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from opsmesh.handlers.evidence.archive import Archive
from opsmesh.handlers.evidence.sealer import Sealer
from opsmesh.handlers.evidence.sink import Sink
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from tests.conftest import eventually, mesh_client, run
from tests.evidence.sinks import archived, publish

pytestmark = pytest.mark.usefixtures("nats_server")


async def _misses_one_cancellation(_: Sealer) -> None:
    """A stand-in for a seal's announcement whose answer comes as it is cancelled: nats-py waits
    with `asyncio.wait_for`, which in Python 3.11 then swallows the cancellation."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


def test_a_sealer_that_misses_its_cancellation_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sink that is stopped while it announces a seal ends, and need not be killed."""
    monkeypatch.setattr(Sealer, "run", _misses_one_cancellation)
    settings = Settings()

    async def body() -> None:
        stop = asyncio.Event()
        with Archive(Path(paths.evidence_dir()), stream=EVENTS, segment_bytes=1 << 20) as archive:
            async with mesh_client(settings) as client:
                running = asyncio.create_task(Sink(settings, archive, stop).run())
                await publish(client, b'{"topic":"a.b"}')
                await eventually(lambda: archived(client))
                stop.set()
                await eventually(running.done)
                running.result()

    run(body())
