"""The questions of a step: how they are put into its record, and what their ends mean.

A question stands in the ledger before anybody sees it, and its end before anything follows from it.
What lets a surface answer that cannot say who is in front of it is the question's token: an HMAC by
a key of the asking host, of which the ledger holds the SHA-256 alone (ADR 0019).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final, Literal

import msgspec

from opsmesh.handlers.actions.contract import Question, Reply
from opsmesh.handlers.profiles.spec import ApproveSpec
from opsmesh.handlers.runs.ledger import Asked, Replied, Run, StepRecord
from opsmesh.schemas import ids

#: The name of the question that stands before a step (`approve:`).
GATE: Final = "approve"
#: Bytes of the key, and of a token before it is written as text.
KEY_BYTES: Final = 32
#: The key's file in the state folder.
KEY_FILE: Final = "approvals.key"
#: Characters of a prompt: it has to fit on a screen, and into an event.
MAX_PROMPT: Final = 4096

#: What becomes of a step that has asked.
Outcome = Literal["run", "skip", "fail"]


def load_key(state: Path) -> bytes:
    """This host's key, made when there is none; only its user can read it."""
    path = state / KEY_FILE
    while True:
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = state / f".{KEY_FILE}.{os.getpid()}"
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(fresh, path)  # whole or not at all; whoever was faster has made it
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
            continue
        if len(key) != KEY_BYTES:
            raise ValueError(f"{path} is damaged; remove it, and open questions lose their buttons")
        return key


def token(key: bytes, question_id: str) -> str:
    """What a surface shows to answer this question, once."""
    digest = hmac.new(key, question_id.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def token_sha256(text: str) -> str:
    """What the ledger knows of a token."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def put(run: Run, record: StepRecord, question: Question, *, key: bytes, now_us: int) -> Asked:
    """Put a question into the step's record, where it is the last one.

    Its id is derived from the run: a handler that died before the ledger had it asks the same one.
    """
    number = str(sum(1 for one in record.asked if one.name == question.name))
    about = (run.run_id, run.profile_hash, str(run.attempt), record.id, question.name, number)
    question_id = ids.derived(run.created_us // 1000, *about)
    expires = question.expires_s
    asked = Asked(
        id=question_id,
        name=question.name,
        prompt=question.prompt[:MAX_PROMPT],
        asked_us=now_us,
        otherwise=question.otherwise,
        token_sha256=token_sha256(token(key, question_id)),
        schema=None if question.schema is None else dict(question.schema),
        expires_us=0 if expires is None else now_us + round(expires * 1e6),
        by=question.by,
    )
    record.state, record.asked = "asked", (*record.asked, asked)
    return asked


def end(record: StepRecord, reply: Replied) -> Asked:
    """Note how the step's open question ended."""
    asked = msgspec.structs.replace(record.asked[-1], reply=reply)
    record.asked = (*record.asked[:-1], asked)
    return asked


def gate(spec: ApproveSpec, prompt: str) -> Question:
    """The question before a step."""
    return Question(
        name=GATE,
        prompt=prompt,
        schema=spec.answer,
        expires_s=spec.expires,
        otherwise=spec.otherwise,
        by=tuple(spec.by),
    )


def outcome(asked: Asked) -> Outcome | None:
    """What an ended question means for its step; None for one that is open.

    A refusal never lets the step happen: with `otherwise: run` it is skipped.
    """
    if asked.reply is None:
        return None
    if asked.reply.verdict == "granted":
        return "run"
    if asked.reply.verdict == "denied" and asked.otherwise == "run":
        return "skip"
    return asked.otherwise


def why(asked: Asked) -> str:
    """How an ended question ended, for people."""
    reply = asked.reply
    if reply is None:
        return "nobody has answered yet"
    if reply.verdict == "expired":
        return "the approval expired: nobody answered in time"
    said = f"{reply.by or 'somebody'} {reply.verdict} it"
    return f"{said}: {reply.comment}" if reply.comment else said


def replies(record: StepRecord) -> dict[str, Reply]:
    """The ends of the questions that the action itself has put."""
    return {
        one.name: Reply(
            verdict=one.reply.verdict,
            answer=one.reply.answer,
            by=one.reply.by,
            host=one.reply.host,
            at_us=one.reply.at_us,
            comment=one.reply.comment,
        )
        for one in record.asked
        if one.reply is not None and one.name != GATE
    }


def gate_of(record: StepRecord | None) -> Asked | None:
    """The question that stood before this step."""
    return next((one for one in record.asked if one.name == GATE), None) if record else None
