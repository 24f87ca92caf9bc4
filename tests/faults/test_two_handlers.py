"""Two handler processes for the same profiles: the one that decides hangs, again and again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from tests.conftest import run
from tests.faults.checks import check, client, rest
from tests.faults.load import load
from tests.faults.meshes import PROFILE, Mesh
from tests.handlers.handlers_process import owner_of


async def _owner(consumer: str) -> int:
    async with client() as nc:
        pid: int = (await owner_of(nc, consumer))["pid"]
        return pid


@pytest.mark.slow
@pytest.mark.parametrize("wakes", [False, True], ids=["is-killed", "wakes"])
def test_two_handlers_fight(fault: Mesh, wakes: bool) -> None:
    """The owner hangs until the other has taken its place, and wakes up in the middle of things or
    dies: each firing has one run, and what was done twice is in the ledger."""
    fault.start_all()
    fault.start("handlers")
    profile = load_profiles(Path(paths.config_dir())).profiles[PROFILE]
    consumer = consumer_name(profile, Settings().host)
    with load(fault.home, 20_000) as events:
        for turn in range(1, 5):
            events.reached(turn / 6)
            hangs = run(_owner(consumer))
            os.kill(hangs, signal.SIGSTOP)
            while run(_owner(consumer)) == hangs:
                pass
            if wakes:
                os.kill(hangs, signal.SIGCONT)
            else:
                fault.kill_pid("handlers", hangs)
                fault.start("handlers")
        events.finish()
        rest(fault)
        check(fault, events)
