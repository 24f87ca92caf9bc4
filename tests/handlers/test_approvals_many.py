"""Approvals beside a ledger of 100,000 runs, and a thousand questions at once."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from tests.conftest import eventually, mesh_client, run
from tests.handlers.approving import asked, text
from tests.handlers.mesh import mesh

from opsmesh.handlers.runs import approvals, asker
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import scan as scanning
from opsmesh.router.errands import QUESTIONS
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids, times

pytestmark = pytest.mark.slow


def finished(n: int) -> Run:
    """A run that is over."""
    now_us = times.now_us()
    return Run(
        run_id=ids.uuid7(),
        profile=f"p{n % 20}",
        profile_hash="x",
        event_id=ids.uuid7(),
        topic="service.start.failed",
        correlation_id="c",
        host="laptop",
        stream_seq=1,
        created_us=now_us,
        updated_us=now_us,
        state="succeeded",
    )


def test_a_large_ledger_slows_no_list(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """What waits is found by the index: 100,000 runs are not read for it."""

    async def body() -> None:
        async with mesh(text(tmp_path / "out")) as m:
            for _ in range(3):
                await m.publish()
            await asked(m, 3)
            await Ledger(m.client).create_all([finished(n) for n in range(100_000)])
            began = time.monotonic()
            assert len([one async for one in approvals.waiting(m.client)]) == 3
            listed = time.monotonic() - began
            began = time.monotonic()
            answer = await m.client.request(QUESTIONS, b"{}", timeout=60)
            told = time.monotonic() - began
            assert len(msgspec.json.decode(answer.data)["questions"]) == 3
            print(f"approvals ls {listed * 1e3:.1f} ms, the bar's questions {told * 1e3:.1f} ms")
            assert max(listed, told) < 1.0

    run(body(), timeout=180)


def test_a_thousand_questions_are_taken_up(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes them up looks once whether they were told, not once for each."""
    settings, looks = Settings(), []
    monkeypatch.setattr(asker, "BROKER_KNOWS_US", -1)
    scan = scanning.scan

    def counted(*more: object, **named: object) -> object:
        looks.append(1)
        return scan(*more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(asker, "scan", counted)

    async def body() -> None:
        async with mesh(text(tmp_path / "out"), settings=settings) as m:
            for _ in range(1000):
                await m.publish()

            async def all_there() -> bool:
                return len([one async for one in approvals.waiting(m.client)]) == 1000

            await eventually(all_there, timeout=120)
        async with mesh_client(settings), mesh(text(tmp_path / "out"), settings=settings) as m:
            began = time.monotonic()

            async def told() -> bool:
                [active] = m.server.profiles.all()
                jobs = active.runs._jobs.values()
                return len(jobs) == 1000 and all(job.told for job in jobs)

            await eventually(told, timeout=120)
            print(
                f"1000 questions taken up in {time.monotonic() - began:.1f} s, {len(looks)} looks"
            )
            assert len(looks) < 20
            assert len(await m.events("automation.approval.requested")) == 1000

    run(body(), timeout=300)
