"""Questions of this host's runs on its desktop: shown when they are asked, gone when they end.

A question is the ledger's. What is shown is a view of it: whatever is missed here, because there
was no desktop or no broker, is looked up when there is one again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from opsmesh.handlers.desktop import text
from opsmesh.handlers.desktop.board import Board
from opsmesh.handlers.desktop.notice import LABELS, Button, Does, Notice
from opsmesh.handlers.errors import DesktopAway
from opsmesh.handlers.runs import approvals
from opsmesh.handlers.runs.approvals import Open, UnknownApproval
from opsmesh.router import tasks, wire
from opsmesh.router.connection import AWAY
from opsmesh.router.errors import PermissionDenied
from opsmesh.schemas import times
from opsmesh.schemas.envelope import host_token
from opsmesh.schemas.redact import Redactor

#: Seconds between looks whether a broken connection is there again.
AGAIN_S: Final = 1.0
REQUESTED: Final = "automation.approval.requested"
#: How a question ends.
ENDED: Final = (
    "automation.approval.granted",
    "automation.approval.denied",
    "automation.approval.expired",
    "automation.approval.withdrawn",
)

log = structlog.get_logger()


class _About(msgspec.Struct, frozen=True):
    approval_id: str = ""


class _Told(msgspec.Struct, frozen=True):
    topic: str
    run_id: str = ""
    payload: _About = _About()


class Questions:
    """Keeps a board in step with what waits for a person."""

    def __init__(self, client: Client, board: Board, *, host: str, redactor: Redactor) -> None:
        self._client = client
        self._board = board
        self._host = host
        self._redactor = redactor
        self._subscription: Subscription | None = None
        self._unbreak: Callable[[], None] | None = None
        self._work: set[asyncio.Task[None]] = set()
        #: Held from the look whether a question is shown until it is: two may hear of it at once.
        self._showing = asyncio.Lock()

    async def start(self) -> None:
        """Listen, and show what waits already."""
        self._subscription = await self._client.subscribe(
            f"evt.{host_token(self._host)}.automation.approval.*", cb=self._hear
        )
        self._unbreak = wire.on_break(self._client, lambda: self._do(self._catch_up()))
        self._board.appeared = lambda: self._do(self._show_all())
        self._do(self._show_all())

    async def stop(self) -> None:
        """Listen no more; what is shown stays."""
        self._board.appeared = None
        if self._unbreak is not None:
            self._unbreak()
        if self._subscription is not None:
            with contextlib.suppress(Exception):
                await self._subscription.unsubscribe()
        await tasks.end(self._work)

    async def _hear(self, message: Msg) -> None:
        try:
            told = msgspec.json.decode(message.data, type=_Told)
        except msgspec.DecodeError:  # anybody may say anything under this topic
            return
        question = told.payload.approval_id
        if told.topic == REQUESTED and question:
            self._do(self._show_one(question))
        elif told.topic in ENDED and question:
            self._do(self._board.close(question=question, run_id=told.run_id))

    async def _show_one(self, question: str) -> None:
        with contextlib.suppress(UnknownApproval, PermissionDenied, *AWAY):
            found = await approvals.find(self._client, question)
            asked = found.asked
            await self._board.settled()
            if asked.reply is None and not asked.expired(times.now_us()):
                await self._show(found)

    async def _show_all(self) -> None:
        """Everything that waits, and is not shown; what is shown and waits no more goes."""
        await self._board.settled()
        with contextlib.suppress(*AWAY):
            open_ = [one async for one in approvals.waiting(self._client)]
            waiting = {one.asked.id for one in open_}
            for question in self._board.questions() - waiting:
                await self._board.close(question=question)
            for one in open_:
                await self._show(one)

    async def _catch_up(self) -> None:
        """What was told while the broker was away did not come by."""
        # nats-py tells one callback, which is another's
        while not self._client.is_connected and not self._client.is_closed:  # noqa: ASYNC110
            await asyncio.sleep(AGAIN_S)
        await self._show_all()

    async def _show(self, found: Open) -> None:
        async with self._showing:
            if found.run.host != self._host or found.asked.id in self._board.questions():
                return
            notice = worded(found, self._redactor)
            held = self._board.admit(notice)
            if held is None:  # `opsmesh approvals ls` has it
                about = {"profile": notice.profile, "id": notice.question}
                log.warning("desktop.question_held_back", **about)
                return
            try:
                await self._board.show(notice, held=held)
            except DesktopAway as away:
                self._board.take_back(notice, held)
                log.info("desktop.away", reason=str(away), question=notice.question)

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)


def worded(found: Open, redactor: Redactor) -> Notice:
    """The notice of a question. One that asks for a value cannot be granted by a button."""
    run, asked = found.run, found.asked

    def redact(value: str) -> str:
        return redactor.text(value, context=asked.id, path="$.prompt")

    title, prompt = text.title(asked.prompt, redact), text.body(asked.prompt, redact)
    lines = [prompt] if prompt != title else []
    lines.append(f"{run.profile}, step {found.step.id}")
    if asked.expires_us:
        lines.append(f"until {times.clock(asked.expires_us)}, then: {asked.otherwise}")
    keys: list[Does] = ["approve", "deny"]
    if asked.schema is not None:
        keys = ["deny"]
        lines.append(f"to approve, give a value: opsmesh approve {asked.id} --answer …")
    return Notice(
        title=title or f"{run.profile} asks",
        body="\n".join(lines),
        icon="dialog-question",
        timeout_ms=0,
        group=f"question:{asked.id}",
        once=asked.id,
        profile=run.profile,
        run_id=run.run_id,
        step=found.step.id,
        question=asked.id,
        buttons=tuple(Button(key=key, label=LABELS[key], does=key) for key in keys),
    )
