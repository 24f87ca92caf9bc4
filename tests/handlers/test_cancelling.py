"""A run that nobody wants any more, told at an instant at which its handlers do not expect it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.conftest import run
from tests.handlers.approving import ended
from tests.handlers.mesh import mesh

from opsmesh.handlers.runs import cancelling
from opsmesh.handlers.runs.ledger import Held, Ledger, Run
from opsmesh.router import trigger
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import encode

TEXT = """
profiles:
  note:
    on: service.start.failed
    actions: [{{command: [sh, -c, "echo ran > $0", "{out}"]{more}}}]
"""


# the first step of one has its turn before the run is written; that of the other may be skipped
@pytest.mark.parametrize("more", ["", ', when: "true"'])
def test_before_it_is_begun(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    """A run that is in the ledger, where others see it, and that its handlers have not begun yet,
    is cancelled like any other."""
    create_all, out = Ledger.create_all, tmp_path / "out"
    heard: list[bool] = []

    async def asked_at_once(self: Ledger, runs: Sequence[Run]) -> list[Held]:
        held = await create_all(self, runs)
        heard.extend(
            [await cancelling.ask(self._client, one.run.run_id, "no need") for one in held]
        )
        return held

    async def body() -> None:
        async with mesh(TEXT.format(out=out, more=more)) as m:
            event = await m.publish("demo.unheard")
            monkeypatch.setattr(Ledger, "create_all", asked_at_once)
            by_hand = Trigger(kind="manual", id=ids.uuid7())
            await trigger.send(m.client, "note", encode(event), by_hand)
            assert (await ended(m, "cancelled")).reason == "no need"
            assert (heard, out.exists()) == ([True], False)

    run(body())
