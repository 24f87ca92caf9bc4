"""A run that is written for a trigger, and whose handlers do not hear that it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.conftest import run
from tests.handlers.mesh import mesh

from opsmesh.handlers.runs.ledger import Held, Ledger, Run
from opsmesh.router import trigger
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import encode

#: Each run waits until as many are there as the file `wanted` says.
TOGETHER = "cd $0; : > $$.run; until ls *.run | wc -l | grep -qx $(cat wanted); do sleep 0.02; done"
PROFILES = """
profiles:
  note:
    on: service.start.failed
    concurrency: {{mode: parallel, limit: 2}}
    actions: [command: [sh, -c, "{script}", "{folder}"]]
"""


def test_its_turn_is_given_back(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trigger is taken again and its run begins, once; those that come later have all turns."""
    create_all, lost = Ledger.create_all, list[str]()

    async def once_the_answer_is_lost(self: Ledger, runs: Sequence[Run]) -> list[Held]:
        held = await create_all(self, runs)
        if not lost:
            lost.extend(one.run.key for one in held)
            raise TimeoutError
        return held

    async def body() -> None:
        async with mesh(PROFILES.format(script=TOGETHER, folder=tmp_path)) as m:
            event = await m.publish("demo.unheard")
            monkeypatch.setattr(Ledger, "create_all", once_the_answer_is_lost)
            for wanted, triggers in ((1, 1), (3, 2)):
                (tmp_path / "wanted").write_text(f"{wanted}\n")
                for _ in range(triggers):
                    by_hand = Trigger(kind="manual", id=ids.uuid7())
                    await trigger.send(m.client, "note", encode(event), by_hand)
                await m.wait("automation.run.succeeded", wanted)
            assert len(lost) == 1
            assert [one.attempt async for one in Ledger(m.client).runs()] == [1, 1, 1]

    run(body())
