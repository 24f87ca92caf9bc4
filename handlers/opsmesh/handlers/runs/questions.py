"""What waits for a person, where a person's answer is taken, and what can be run, over the broker.

A program without Python's ledger (the desktop's bar, by way of the agent) asks here. Any handlers
process can answer: the ledger is one for all hosts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, get_args

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from opsmesh.handlers.runs import answers
from opsmesh.handlers.runs.ledger import Choice, Ledger, Run, StepRecord
from opsmesh.router.errands import ANSWER, QUESTIONS, RUNNABLE
from opsmesh.schemas import times

#: Processes of one group: one of them answers.
GROUP: Final = "handlers"
CHOICES: Final[tuple[Choice, ...]] = get_args(Choice)
#: Characters of who answered, and why.
MAX_BY, MAX_REASON = 64, 1024
#: Questions in one answer, the oldest first: it has to fit into a message.
MAX_QUESTIONS: Final = 100

log = structlog.get_logger()


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it comes in; `run`: the id of the run it is for."""

    run: str
    choice: Choice
    by: str = "quickshell"
    reason: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The profile that somebody wants to run."""

    profile: str


#: Why a profile of that name cannot be run by hand; "" when it can.
Hindrance = Callable[[str], Awaitable[str]]


class Desk:
    """Answers requests while the handlers run."""

    def __init__(self, client: Client, ledger: Ledger, *, host: str, hindrance: Hindrance) -> None:
        self._client = client
        self._ledger = ledger
        self._host = host
        self._hindrance = hindrance
        self._open: list[Subscription] = []

    async def start(self) -> None:
        """Listen."""
        for subject, handle in (
            (ANSWER, self._answer),
            (QUESTIONS, self._questions),
            (RUNNABLE, self._runnable),
        ):
            self._open.append(
                await self._client.subscribe(subject, queue=GROUP, cb=_replying(handle))
            )

    async def stop(self) -> None:
        """Listen no more."""
        for subscription in self._open:
            await subscription.unsubscribe()
        self._open.clear()

    async def _questions(self, _: bytes) -> dict[str, Any]:
        waiting = [run async for run in self._ledger.runs() if run.state == "waiting"]
        asked = [question(run, step) for run in waiting if (step := _open_step(run)) is not None]
        asked.sort(key=lambda one: str(one["since"]))
        left = max(0, len(asked) - MAX_QUESTIONS)
        return {"ok": True, "questions": asked[:MAX_QUESTIONS], "left_out": left}

    async def _runnable(self, data: bytes) -> dict[str, Any]:
        wanted = msgspec.json.decode(data, type=Wanted)
        error = await self._hindrance(wanted.profile)
        return {"ok": False, "run": wanted.profile, "error": error} if error else {"ok": True}

    async def _answer(self, data: bytes) -> dict[str, Any]:
        given = msgspec.json.decode(data, type=Given)
        found = [run async for run in self._ledger.runs() if run.run_id == given.run]
        if not found:
            return {"ok": False, "error": f"no run {given.run[:64]} is known"}
        try:
            run, answer, new = await answers.give(
                self._ledger,
                found[0].key,
                given.choice,
                by=given.by[:MAX_BY],
                host=self._host,
                reason=given.reason[:MAX_REASON],
            )
        except (answers.NotWaiting, answers.AnsweredOtherwise) as error:
            return {"ok": False, "id": given.run, "error": str(error)}
        return {"ok": True, "id": run.run_id, "answer": answer.choice, "new": new}


def question(run: Run, step: StepRecord) -> dict[str, Any]:
    """What a person is asked about a run."""
    return {
        "id": run.run_id,
        "kind": "run",
        "profile": run.profile,
        "prompt": f"nobody knows how step {step.id} of {run.profile} went; how does it go on?",
        "choices": list(CHOICES),
        "since": times.format_us(step.unknown_us or run.updated_us),
        "expires": None,  # such a run waits until somebody answers
    }


def _open_step(run: Run) -> StepRecord | None:
    step = run.unsettled
    return step if step is not None and run.answer(step) is None else None


def _replying(
    handle: Callable[[bytes], Awaitable[dict[str, Any]]],
) -> Callable[[Msg], Awaitable[None]]:
    async def reply(message: Msg) -> None:
        try:
            said = await handle(message.data)
        except msgspec.DecodeError as wrong:
            said = {"ok": False, "error": f"not understood: {wrong}"}
        except Exception as error:
            log.exception("questions.failed")
            said = {"ok": False, "error": f"the handlers failed: {error}"}
        await message.respond(msgspec.json.encode(said))

    return reply
