"""Runs that a handler left behind in the middle of a step: as they are in the ledger then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.client import Client
from tests.handlers.conftest import EVENT

from opsmesh.handlers.live import firing
from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.procfs import proc
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs import holder
from opsmesh.handlers.runs.holder import Holder
from opsmesh.handlers.runs.ledger import Held, Ledger
from opsmesh.handlers.runs.steps import begun
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.schemas import times
from opsmesh.schemas.envelope import decode, encode, subject


def dead() -> Holder:
    """A holder whose process has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = proc(child.pid)
    assert found is not None
    child.communicate(b"\n")
    return msgspec.structs.replace(
        holder.this_process("dev"), id="dead", pid=child.pid, start=found.start
    )


def elsewhere(settings: Settings) -> Holder:
    """A holder of which nothing can be known here."""
    return msgspec.structs.replace(
        holder.this_process(settings.host), id="elsewhere", host="far", boot="another"
    )


async def left_behind(
    client: Client,
    settings: Settings,
    profile: str,
    by: Holder,
    *,
    number: int = 1,
    lease_s: float = 30.0,
    **facts: Any,
) -> Held:
    """An event whose run was under way in its first step when its holder `by` was lost."""
    chosen = load_profiles(Path(paths.config_dir())).profiles[profile]
    now_us = times.now_us()
    event = msgspec.structs.replace(
        EVENT,
        id=f"{EVENT.id[:-4]}{number:04d}",
        ts_utc=times.format_us(now_us),
        host=settings.host,
    )
    ack = await client.jetstream().publish(subject(event.host, event.topic), encode(event))
    run = firing.new_run(
        chosen,
        decode(encode(event)),
        consumer=consumer_name(chosen, settings.host),
        host=settings.host,
        seq=ack.seq,
        stored_us=now_us,
    )
    run.state, run.attempt = "running", 1
    run.steps = [begun(chosen.steps[0], now_us)]
    run.holder = msgspec.structs.replace(by, until_us=now_us + round(lease_s * 1e6))
    for name, value in facts.items():
        setattr(run, name, value)
    held = await Ledger(client).create(run)
    assert held is not None
    return held
