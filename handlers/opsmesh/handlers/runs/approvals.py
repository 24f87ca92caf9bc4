"""Approvals for whoever shows them: what waits, and taking an answer.

An answer counts once. Whoever shows a question says who answered (`by`) and on which surface
(`via`), as far as that surface can know it; one that cannot know has to present the question's
token. What is refused is an event, like what is taken. ADR 0019 says what this protects, and what
it does not.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import structlog
from nats.aio.client import Client

from opsmesh.handlers import jsonschemas
from opsmesh.handlers.desktop.text import clean
from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.runs import asking, results
from opsmesh.handlers.runs.ledger import Asked, Held, Ledger, Replied, Run, StepRecord
from opsmesh.handlers.runs.waiting import Index
from opsmesh.router.connection import AWAY
from opsmesh.router.errors import PermissionDenied
from opsmesh.router.kv import Conflict
from opsmesh.router.publish import Publisher
from opsmesh.schemas import times
from opsmesh.schemas.envelope import encode, subject
from opsmesh.schemas.redact import Redactor

Verdict = Literal["granted", "denied"]

#: Surfaces on which anybody could be: an answer from there needs the token.
UNKNOWN_PERSON: Final = frozenset({"notification", "link"})
#: Characters of what a person says, and of a name; bytes of a value.
MAX_COMMENT: Final = 1024
MAX_NAME: Final = 128
MAX_ANSWER: Final = 64 * 1024

log = structlog.get_logger()


@dataclass(frozen=True)
class Open:
    """A question that waits, and the run that asks it."""

    run: Run
    step: StepRecord
    asked: Asked

    def token(self, key: bytes) -> str:
        """What answers it once, for surfaces of the host whose key this is."""
        return asking.token(key, self.asked.id)


@dataclass(frozen=True)
class Answered:
    """The answer that counts; `new` when it was this one that made it."""

    run: Run
    asked: Asked
    new: bool


class ApprovalError(HandlersError):
    """An answer was not taken; `hint` is what a person can do."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class UnknownApproval(ApprovalError):
    """No such question is known."""


class InvalidAnswer(ApprovalError):
    """The value does not fit the question's schema; another one may be given."""


class RefusedAnswer(ApprovalError):
    """It came too late, twice, or from somebody who may not give it. It is on record."""


async def waiting(client: Client) -> AsyncIterator[Open]:
    """Every approval that somebody can still answer, the oldest first."""
    ledger, now_us = Ledger(client), times.now_us()
    async for question_id, run_key in Index(client).open():
        try:
            held = await ledger.get(run_key)
        except PermissionDenied:  # another handler's
            continue
        run = held.run if held is not None else None
        if run is None or run.finished or run.state != "waiting":
            continue
        step, asked = run.asking, run.question
        if step is None or asked is None or asked.id != question_id or asked.expired(now_us):
            continue
        yield Open(run, step, asked)


async def find(client: Client, approval_id: str) -> Open:
    """A question by its id, also one that has ended; UnknownApproval."""
    _, found = await _find(client, approval_id)
    return found


async def answer(
    client: Client,
    approval_id: str,
    verdict: Verdict,
    *,
    by: str,
    via: str,
    host: str,
    redactor: Redactor,
    token: str | None = None,
    value: Any = None,
    comment: str = "",
    taken_on: str = "",
) -> Answered:
    """Take an answer; it is in the ledger when this returns. `redactor` takes secrets out of the
    comment, and refuses a value that holds one. `taken_on` is the host that takes it, when that is
    not where the person is (`host`): a refusal is told under its name.

    The same answer by the same person again changes nothing, unless it came with the token, which
    is good for once. UnknownApproval, InvalidAnswer, RefusedAnswer.
    """
    by, via, host = (_word(text) for text in (by, via, host))
    # cut after secrets are taken out: half a secret has no form
    comment = redactor.text(clean(comment), context=approval_id[:64])[:MAX_COMMENT]
    while True:
        held, found = await _find(client, approval_id)
        reply = found.asked.reply
        if reply is not None and token is None and (reply.verdict, reply.by) == (verdict, by):
            return Answered(found.run, found.asked, new=False)
        if (reason := _refusal(found, by=by, via=via, token=token)) is not None:
            refused = {"verdict": verdict, "by": by, "via": via, "by_host": host}
            told_by = taken_on or host
            await _publish_refusal(client, redactor, found, told_by, reason=reason, **refused)
            raise RefusedAnswer(reason)
        if verdict == "granted" and found.asked.schema is not None:
            await _fits(found.asked.schema, value, redactor)
        elif value is not None:
            raise InvalidAnswer("this question takes no value, only yes or no")
        given = Replied(
            verdict=verdict,
            at_us=times.now_us(),
            answer=value if verdict == "granted" else None,
            by=by,
            host=host,
            via=via,
            comment=comment,
        )
        asked = asking.end(found.step, given)
        try:
            await held.save(given.at_us)
        except Conflict:
            continue
        return Answered(held.run, asked, new=True)


async def _fits(schema: Mapping[str, Any], value: Any, redactor: Redactor) -> None:
    try:
        size = len(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidAnswer(f"the answer cannot be stored: {error}") from error
    if size > MAX_ANSWER:
        raise InvalidAnswer(f"the answer has {size} bytes; {MAX_ANSWER} are allowed")
    if wrong := await jsonschemas.fault(schema, value):
        raise InvalidAnswer(f"the answer does not fit: {clean(wrong)}")
    # it would lie in the ledger and in an event; taken out, the step would be run with less
    if redactor.redact(value)[1]:
        raise InvalidAnswer(
            "the answer holds a secret, which would be on record",
            hint='store it, and write ${{ secret("name") }} in the step: docs/actions/approve.md',
        )


def _word(text: str) -> str:
    """A name as it may stand in a record."""
    return " ".join(clean(text).split())[:MAX_NAME]


async def _find(client: Client, approval_id: str) -> tuple[Held, Open]:
    run_key = await Index(client).run_key(approval_id) if _is_token(approval_id) else None
    held = await Ledger(client).get(run_key) if run_key is not None else None
    if held is not None:
        for step in held.run.steps:
            for asked in step.asked:
                if asked.id == approval_id:
                    return held, Open(held.run, step, asked)
    raise UnknownApproval(
        f"no approval {approval_id[:64]} is known", hint="those that wait: opsmesh approvals ls"
    )


def _is_token(text: str) -> bool:
    """Whether it can stand in a subject."""
    return bool(text) and len(text) <= 64 and text.replace("-", "").isalnum() and text.isascii()


def _refusal(found: Open, *, by: str, via: str, token: str | None) -> str | None:
    """Why an answer is not taken; None when it is."""
    asked = found.asked
    if token is None and via in UNKNOWN_PERSON:
        return f"an answer by {via} needs the question's token"
    if token is not None and not hmac.compare_digest(
        asking.token_sha256(token), asked.token_sha256
    ):
        return "the token is not this question's"
    if asked.by and by not in asked.by:
        return f"{by or 'nobody in particular'} may not answer; {' and '.join(asked.by)} may"
    if asked.reply is not None:
        when = times.clock(asked.reply.at_us)
        if asked.reply.verdict in ("expired", "withdrawn"):
            return f"nobody can answer it any more: {asking.why(asked)}, at {when}"
        return f"it was answered already: {asking.why(asked)}, at {when}"
    if asked.expired(times.now_us()):
        return f"it expired at {times.clock(asked.expires_us)}"
    if found.run.question is None or found.run.question.id != asked.id:
        return f"its run does not wait for it any more: it is {found.run.state}"
    return None


async def _publish_refusal(
    client: Client, redactor: Redactor, found: Open, told_by: str, **facts: str
) -> None:
    event = results.refused(found.run, found.step, found.asked, now_us=times.now_us(), **facts)
    event = msgspec.structs.replace(event, host=told_by)
    data, _ = redactor.event(encode(event))
    try:
        await Publisher(client).publish(subject(event.host, event.topic), data, msg_id=event.id)
    except AWAY as error:  # it is refused all the same
        log.warning("approval.refusal_not_told", id=found.asked.id, error=str(error))
