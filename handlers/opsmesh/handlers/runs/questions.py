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

from opsmesh.handlers.runs import answers, approvals
from opsmesh.handlers.runs.ledger import Choice, Ledger, Run
from opsmesh.handlers.runs.waiting import Index
from opsmesh.router.errands import ANSWER, QUESTIONS, RUNNABLE
from opsmesh.schemas import ids, times
from opsmesh.schemas.redact import Redactor

#: Processes of one group: one of them answers.
GROUP: Final = "handlers"
CHOICES: Final[tuple[Choice, ...]] = get_args(Choice)
#: Answers to an approval, and what they are in its record.
APPROVAL: Final[dict[str, approvals.Verdict]] = {"approve": "granted", "deny": "denied"}
#: Characters of who answered, and why.
MAX_BY, MAX_REASON = 64, 1024
#: Questions in one answer, the oldest first: it has to fit into a message.
MAX_QUESTIONS: Final = 100
MAX_BYTES: Final = 512 * 1024

log = structlog.get_logger()


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it comes in; `run`: the id of the question it is for, which for one about a run
    is the run's. `via` is the surface; the agent says who its user is."""

    run: str
    choice: str
    by: str = "quickshell"
    reason: str = ""
    via: str = "quickshell"
    token: str | None = None
    answer: Any = None
    #: Where the person is; unset: on the host of whoever takes the answer.
    host: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The profile that somebody wants to run."""

    profile: str
    #: Of which host the event is; unset: of whoever's handlers answer.
    host: str = ""


#: Why a profile of that name cannot be run by hand for an event of that host; "" when it can.
Hindrance = Callable[[str, str], Awaitable[str]]


class Desk:
    """Answers requests while the handlers run."""

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        *,
        host: str,
        redactor: Redactor,
        hindrance: Hindrance,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._index = Index(client)
        self._host = host
        self._redactor = redactor
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
        asked = []
        async for _id, run_key in self._index.open():
            held = await self._ledger.get(run_key)
            if held is not None and (one := question(held.run)) is not None:
                asked.append(one)
        asked.sort(key=lambda one: str(one["since"]))
        shown, size = [], 0
        for one in asked[:MAX_QUESTIONS]:
            size += len(msgspec.json.encode(one))
            if size > MAX_BYTES:
                break
            shown.append(one)
        return {"ok": True, "questions": shown, "left_out": len(asked) - len(shown)}

    async def _runnable(self, data: bytes) -> dict[str, Any]:
        wanted = msgspec.json.decode(data, type=Wanted)
        error = await self._hindrance(wanted.profile, wanted.host)
        return {"ok": False, "run": wanted.profile, "error": error} if error else {"ok": True}

    async def _answer(self, data: bytes) -> dict[str, Any]:
        given = msgspec.json.decode(data, type=Given)
        if given.choice in APPROVAL:
            return await self._approval(given, APPROVAL[given.choice])
        if given.choice not in CHOICES:
            return {"ok": False, "error": f"{given.choice[:64]!r} is no answer"}
        key = await self._index.run_key(given.run) if ids.unix_ms(given.run) is not None else None
        if key is None:
            return {"ok": False, "error": f"no run {given.run[:64]} is known"}
        try:
            run, answer, new = await answers.give(
                self._ledger,
                key,
                given.choice,
                by=given.by[:MAX_BY],
                host=given.host or self._host,
                reason=given.reason[:MAX_REASON],
            )
        except (answers.NotWaiting, answers.AnsweredOtherwise, LookupError) as error:
            return {"ok": False, "id": given.run, "error": str(error)}
        return {"ok": True, "id": run.run_id, "answer": answer.choice, "new": new}

    async def _approval(self, given: Given, verdict: approvals.Verdict) -> dict[str, Any]:
        try:
            done = await approvals.answer(
                self._client,
                given.run,
                verdict,
                by=given.by[:MAX_BY],
                via=given.via[:MAX_BY],
                host=given.host or self._host,
                taken_on=self._host,
                redactor=self._redactor,
                token=given.token,
                value=given.answer,
                comment=given.reason,
            )
        except approvals.ApprovalError as error:
            return {"ok": False, "id": given.run[:MAX_BY], "error": str(error)}
        return {"ok": True, "id": given.run, "answer": given.choice, "new": done.new}


def question(run: Run) -> dict[str, Any] | None:
    """What a person is asked about a run, or by one of its steps; None when nothing waits."""
    if (asked := run.question) is not None:
        if asked.expired(times.now_us()):
            return None
        return {
            "id": asked.id,
            "kind": "approval",
            "profile": run.profile,
            "prompt": asked.prompt,
            "choices": list(APPROVAL),
            "since": times.format_us(asked.asked_us),
            "expires": times.format_us(asked.expires_us) if asked.expires_us else None,
            "schema": asked.schema,
            "otherwise": asked.otherwise if asked.expires_us else None,
            "may_answer": list(asked.by),
        }
    step = run.unsettled
    if run.state != "waiting" or step is None or run.answer(step) is not None:
        return None
    return {
        "id": run.run_id,
        "kind": "run",
        "profile": run.profile,
        "prompt": f"nobody knows how step {step.id} of {run.profile} went; how does it go on?",
        "choices": list(CHOICES),
        "since": times.format_us(step.unknown_us or run.updated_us),
        "expires": None,  # such a run waits until somebody answers
        "schema": None,
        "otherwise": None,
        "may_answer": [],
    }


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
