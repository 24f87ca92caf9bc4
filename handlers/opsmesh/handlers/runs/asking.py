"""The questions of a step: how they are put into its record, and what their ends mean.

A question stands in the ledger before anybody sees it, and its end before anything follows from it.
What lets a surface answer that cannot say who is in front of it is the question's token: an HMAC by
a key of the asking host, of which the ledger holds the SHA-256 alone (ADR 0019).
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import structlog

from opsmesh.handlers import jsonschemas
from opsmesh.handlers.actions.contract import Otherwise, Question, Reply
from opsmesh.handlers.desktop.text import clean
from opsmesh.handlers.profiles.spec import ApproveSpec
from opsmesh.handlers.runs.ledger import Asked, Replied, Run, StepRecord
from opsmesh.schemas import ids
from opsmesh.schemas.redact import Redactor

#: The name of the question that stands before a step (`approve:`).
GATE: Final = "approve"
#: Bytes of the key, and of a token before it is written as text.
KEY_BYTES: Final = 32
#: The key's file in the state folder.
KEY_FILE: Final = "approvals.key"
#: Characters of a prompt: it has to fit on a screen, and into an event.
MAX_PROMPT: Final = 4096

#: Questions of one step, characters of a question's name, and the longest that one is open.
MAX_ASKED: Final = 64
MAX_NAME: Final = 64
MAX_EXPIRES_S: Final = 366 * 86400.0

#: What becomes of a step that has asked.
Outcome = Literal["run", "skip", "fail"]

#: What a refusal means, for people.
REFUSED: Final[dict[Otherwise, str]] = {
    "skip": "the step is skipped",
    "run": "the step is skipped",
    "fail": "the run is given up",
}

log = structlog.get_logger()


def load_key(state: Path) -> bytes:
    """This host's key, which only its user can read; made when there is none to be trusted."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # processes that start together get the same one
        return _read_key(state / KEY_FILE) or _make_key(state / KEY_FILE)
    finally:
        os.close(folder)


def _read_key(path: Path) -> bytes | None:
    """The key, when it is whole and nobody else's; without one, a question has no buttons only."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("approvals.key_replaced", path=str(path), reason=str(error))
        return None
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        reason = ""
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != KEY_BYTES:
            reason = "it is damaged"
        elif facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            reason = "others can read it"
        if reason:
            log.warning("approvals.key_replaced", path=str(path), reason=reason)
            return None
        return file.read()


def _make_key(path: Path) -> bytes:
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    key = secrets.token_bytes(KEY_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)  # whole or not at all
    return key


def token(key: bytes, question_id: str) -> str:
    """What a surface shows to answer this question, once."""
    digest = hmac.new(key, question_id.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def token_sha256(text: str) -> str:
    """What the ledger knows of a token."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def checked(question: Question, record: StepRecord, redactor: Redactor, *, place: str) -> Question:
    """An action's question as it may be put: whatever a server or an agent has said stands in it.
    ValueError when it cannot be put."""
    if len(record.asked) >= MAX_ASKED:
        raise ValueError(f"a step may ask {MAX_ASKED} questions, and no more")
    if not 0 < len(question.name) <= MAX_NAME or question.name == GATE:
        raise ValueError(f"{question.name[:MAX_NAME]!r} is no name of a question")
    if question.expires_s is not None and not 0 < question.expires_s <= MAX_EXPIRES_S:
        raise ValueError(f"a question cannot expire after {question.expires_s} s")
    schema: dict[str, Any] | None = None
    if question.schema is not None:
        jsonschemas.check(question.schema)
        schema, _ = redactor.redact(dict(question.schema), context=place)
    prompt = redactor.text(clean(question.prompt), context=place, path="$.prompt")
    return replace(question, prompt=prompt, schema=schema)


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
        prompt=clean(question.prompt)[:MAX_PROMPT],
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


def withdraw(run: Run, why: str, *, now_us: int) -> StepRecord | None:
    """End what the run asks, for the run itself ends; the step that asked, None when none did. An
    answer that was not taken up yet counts, and is still to be told."""
    step = run.asking
    if step is None:
        return None
    if step.asked[-1].reply is None:
        end(step, Replied(verdict="withdrawn", at_us=now_us, comment=why[:MAX_PROMPT]))
    return step


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


def let_pass(asked: Asked) -> bool:
    """Whether this is the question before a step, which let the step be run."""
    return asked.name == GATE and outcome(asked) in ("run", None)


def refused(record: StepRecord) -> bool:
    """Whether the question before the step has ended, and did not let it be run."""
    asked = gate_of(record)
    return asked is not None and outcome(asked) in ("skip", "fail")


def why(asked: Asked) -> str:
    """How an ended question ended, for people."""
    reply = asked.reply
    if reply is None:
        return "nobody has answered yet"
    if reply.verdict == "expired":
        return "the approval expired: nobody answered in time"
    if reply.verdict == "withdrawn":
        return f"it was withdrawn, for its run ended: {reply.comment}"
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
        if one.reply is not None and one.reply.verdict != "withdrawn" and one.name != GATE
    }


def gate_of(record: StepRecord | None) -> Asked | None:
    """The question that stood before this step."""
    return next((one for one in record.asked if one.name == GATE), None) if record else None
