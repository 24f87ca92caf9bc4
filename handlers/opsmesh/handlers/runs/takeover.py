"""Taking over a run that another handler held: when that may be, and what is done first.

In this order: its lease ends, or its holder is known to be gone; the ledger says that the step is
*unknown*, which fences the holder off; what is left of the step on this host is ended. Only then it
is decided how to go on.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import structlog

from opsmesh.handlers import leash
from opsmesh.handlers.procfs import boot
from opsmesh.handlers.runs.holder import SLACK, Holder, clock, gone
from opsmesh.handlers.runs.ledger import Held, Ledger, Run, StepRecord
from opsmesh.router.kv import Conflict
from opsmesh.schemas import times

#: Seconds between looks at a run that somebody else holds.
LOOK_S: Final = 0.5
#: The same for one that was handed over: somebody waits for its turn.
FOLLOW_S: Final = 0.1
#: Seconds before the ledger is asked again when the broker does not answer.
AWAY_S: Final = 1.0
#: The longest lease that is believed.
MOST_S: Final = 3600.0
#: The folder of the steps' files, among the runs' own.
STEPS: Final = ".steps"

log = structlog.get_logger()


def leash_path(workdirs: Path, run: Run, step: str) -> Path:
    """The file of a step of the run's attempt."""
    return workdirs / STEPS / f"{run.run_id}.{run.attempt}.{step}"


def lost(run: Run, step: StepRecord, why: str) -> None:
    """Note that nobody knows how the step went."""
    step.state = "unknown"
    step.unknown_us = times.now_us()
    step.held_by = run.holder
    step.error = why


async def take_over(held: Held, ledger: Ledger, *, me: Holder, workdirs: Path) -> Held:
    """The run, ours, with nothing under way any more; or finished by whoever had it."""
    while True:
        held = await free(held, ledger, me)
        run, step = held.run, held.run.unsettled
        if run.state != "running" or step is None:
            return held
        if step.state == "started":
            lost(run, step, _why(run.holder, me))
        run.holder = me
        try:
            await held.save(times.now_us())
        except Conflict:
            held = await read(held, ledger)
            continue
        if step.held_by is not None and step.held_by.boot == boot():
            path = leash_path(workdirs, run, step.id)
            ended = await leash.clear(path, spare=step.held_by.pid)
            if ended:
                log.warning("step.ended", run_id=run.run_id, step=step.id, pids=ended)
        return held


def _why(holder: Holder | None, me: Holder) -> str:
    if holder is not None and holder.id == me.id:
        return f"the handler on {holder} could not renew its lease, and ended this step"
    if holder is not None and not gone(holder):
        return f"the handler on {holder} did not renew its lease while this step was under way"
    whose = f" on {holder}" if holder is not None else ""
    return f"the handler{whose} ended while this step was under way"


async def read(held: Held, ledger: Ledger) -> Held:
    """What the ledger says of a run by now, however long the broker is away."""
    while True:
        try:
            return await ledger.get(held.run.key) or held
        except Exception as error:
            log.debug("run.not_read", error=str(error))
            await asyncio.sleep(AWAY_S)


async def free(held: Held, ledger: Ledger, me: Holder, *, look_s: float = LOOK_S) -> Held:
    """The run when nobody can be at work on it any more.

    A lease's length is measured from when its record was first seen here: whatever the clocks say,
    its holder wrote it before that.
    """
    said = False
    while (holder := held.run.holder) is not None and holder.id != me.id:
        lease_s = (holder.until_us - held.run.updated_us) / 1e6
        end = clock() + min(max(0.0, lease_s), MOST_S) + SLACK
        now = held
        while clock() < end and not gone(holder) and now.revision == held.revision:
            if not said:
                log.info("run.held", run_id=held.run.run_id, by=str(holder), lease_s=lease_s)
                said = True
            await asyncio.sleep(look_s)
            now = await read(held, ledger)
        if now.revision == held.revision:
            return held
        held = now
    return held
