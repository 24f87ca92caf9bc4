"""A person's answer about a step whose outcome is unknown.

The answer is written into the run's record, and is there for whoever holds the run, now or later.
It is given once; giving the same one again changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from opsmesh.handlers.runs.ledger import Answer, Choice, Held, Ledger, Run
from opsmesh.handlers.runs.takeover import read
from opsmesh.router.kv import Conflict
from opsmesh.schemas import times

#: Seconds between looks for an answer that was not heard.
LOOK_S: Final = 15.0
#: Seconds between looks for one that was heard, and may not be stored yet.
SOON_S: Final = (0.02, 0.1, 0.5, 1.0)
#: Seconds after which a waiting run is written again: the bucket forgets what is old.
TOUCH_S: Final = 7 * 86400.0


class NotWaiting(Exception):
    """The run does not wait for an answer."""

    def __init__(self, run: Run) -> None:
        super().__init__(f"run {run.run_id} does not wait for an answer: it is {run.state}")
        self.run = run


class AnsweredOtherwise(Exception):
    """Somebody has given another answer."""

    def __init__(self, run: Run, answer: Answer) -> None:
        when = times.clock(answer.at_us)
        super().__init__(f"{answer.by or 'somebody'} answered {answer.choice} at {when}")
        self.run = run
        self.answer = answer


async def give(
    ledger: Ledger, key: str, choice: Choice, *, by: str, host: str, reason: str = ""
) -> tuple[Run, Answer, bool]:
    """Answer for the run with this key: its record, the answer that counts, and whether it is new.

    NotWaiting for a run that has no question, AnsweredOtherwise when somebody was faster.
    """
    while True:
        held = await ledger.get(key)
        if held is None:
            raise LookupError(key)
        run, step = held.run, held.run.unsettled
        given = run.answer(step) if step is not None else None
        if given is None and run.state != "waiting" and run.answers:
            given = run.answers[-1]  # taken up meanwhile
        if given is not None:
            if given.choice != choice:
                raise AnsweredOtherwise(run, given)
            return run, given, False
        if run.state != "waiting" or step is None:
            raise NotWaiting(run)
        answer = Answer(
            step=step.id,
            attempt=run.attempt,
            choice=choice,
            by=by,
            host=host,
            at_us=times.now_us(),
            reason=reason,
        )
        run.answers = (*run.answers, answer)
        with contextlib.suppress(Conflict):
            await held.save(answer.at_us)
            return run, answer, True


async def awaited(client: Client, ledger: Ledger, held: Held) -> Held:
    """The run's record once a person has answered, or once it does not wait any more."""
    heard = asyncio.Event()

    async def hear(_: Msg) -> None:
        heard.set()

    # every write of the record is published on its subject, and heard there
    subscription = await client.subscribe(ledger.subject(held.run.key), cb=hear)
    try:
        while True:
            held = await read(held, ledger)
            if not _waits(held.run):
                return held
            if times.now_us() - held.run.updated_us > TOUCH_S * 1e6:
                with contextlib.suppress(Conflict):
                    await held.save(times.now_us())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_patience(held.run)):
                    await heard.wait()
            for delay in SOON_S if heard.is_set() else ():
                heard.clear()
                await asyncio.sleep(delay)
                held = await read(held, ledger)
                if not _waits(held.run):
                    return held
    finally:
        with contextlib.suppress(Exception):
            await subscription.unsubscribe()


def _patience(run: Run) -> float:
    """Seconds until the next look: at the latest when nobody can answer any more."""
    asked = run.question
    if asked is None or not asked.expires_us:
        return LOOK_S
    return min(LOOK_S, max(0.0, (asked.expires_us - times.now_us()) / 1e6))


def _waits(run: Run) -> bool:
    if run.state != "waiting":
        return False
    if run.asking is not None:
        asked = run.question
        return asked is not None and not asked.expired(times.now_us())
    step = run.unsettled
    return step is None or run.answer(step) is None
