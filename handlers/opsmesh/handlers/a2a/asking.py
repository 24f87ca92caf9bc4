"""One step's task at another agent, from the message to its end, across restarts and questions.

What a later go needs is in the ledger before it is needed: that we are about to send, then the
task's id, then what is being answered. The one rule: a task whose id is known is never sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog
from a2a.types import Message, StreamResponse, Task

from opsmesh.handlers import jsonschemas
from opsmesh.handlers.a2a import answers, messages
from opsmesh.handlers.a2a.answers import Standing
from opsmesh.handlers.a2a.remote import CannotList, Remote
from opsmesh.handlers.actions.contract import CANCELLED, Question, Reply, StepContext
from opsmesh.handlers.errors import AgentFault
from opsmesh.schemas import times

#: Seconds that an agent has to hear that a task is not wanted any more.
CANCEL_S: Final = 5.0
#: Seconds that are left to the run when it is given up: to cancel the task, and to say so.
ROOM_S: Final = 3.0
#: Times that one task may ask something.
MAX_QUESTIONS: Final = 20
#: Seconds between looks at an agent that does not answer, at most.
SLOWEST_S: Final = 60.0
#: News of a stream between two writes of how far it is.
SAVE_EVERY: Final = 25

log = structlog.get_logger()


class Late(Exception):
    """The task did not end in time."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a task is asked for, as the profile says."""

    said: Any
    skill: str | None
    envelope: bool
    stream: bool
    immediately: bool
    poll_s: float
    timeout_s: float
    on_input: Literal["ask", "fail"]
    expires_s: float | None
    by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it ended, or what is to be told before a person is asked."""

    standing: Standing
    message_id: str
    updates: int
    duration_ms: float
    #: Asks the person; None at an end.
    question: Question | None = None
    #: Why it failed, for an end that is not the agent's.
    error: str = ""
    retryable: bool = False
    timed_out: bool = False


class Asking:
    """Brings one task to its end, or to a question."""

    def __init__(self, ctx: StepContext, remote: Remote, manner: Manner) -> None:
        self._ctx = ctx
        self._remote = remote
        self._manner = manner
        self._saved: dict[str, Any] = dict(ctx.saved)
        self._context = ctx.event.correlation_id
        self._message_id = str(ctx.saved.get("message_id") or messages.message_id(ctx))
        loop = asyncio.get_running_loop()
        self._loop = loop
        #: When the step or the run would be stopped: a little before, we stop by ourselves.
        limits = [limit for limit in (ctx.timeout, ctx.left) if limit is not None]
        room = min(ROOM_S, min(limits) / 4) if limits else 0.0
        self._own_end = loop.time() + min(limits) - room if limits else None

    @property
    def _task_id(self) -> str | None:
        found = self._saved.get("task_id")
        return found if isinstance(found, str) else None

    async def go(self) -> Outcome:
        """Send or go on, until the task ends or asks something."""
        try:
            return await self._go()
        except asyncio.CancelledError as cancelled:
            if CANCELLED in cancelled.args:  # the run is not wanted; else somebody will go on
                await self._cancel()
            raise
        except AgentFault as fault:
            if not fault.retryable:  # whatever it does now, nobody waits for it
                await self._cancel()
            raise

    async def _go(self) -> Outcome:
        try:
            standing = await self._begin()
            while True:
                if standing.state in answers.WAITS and standing.mark != self._saved.get("settled"):
                    ended = await self._asked(standing)
                    if isinstance(ended, Outcome):
                        return ended
                    standing = ended
                elif standing.state in answers.ENDS:
                    return self._outcome(standing)
                else:
                    standing = await self._next()
        except Late:
            limit = self._manner.timeout_s
            await self._cancel()
            own = self._own_end is not None and self._loop.time() >= self._own_end
            error = (
                "the task was not done within the time limit of the step or its profile; it was "
                "canceled (a profile's timeout is 60 s unless it says otherwise)"
                if own
                else f"the task was not done within {limit:g} s, its timeout; it was canceled"
            )
            standing = Standing(state="canceled", task_id=self._task_id, said=error)
            return self._outcome(standing, error=error, retryable=True, timed_out=True)

    # -- the beginning

    async def _begin(self) -> Standing:
        if self._task_id is not None:
            log.info("a2a.resumed", agent=self._remote.name, task=self._task_id)
            return answers.standing(await self._get())
        again, now_us = bool(self._saved), times.now_us()
        if not again:
            if (earlier := await self._earlier()) is not None:
                return earlier
            await self._save(message_id=self._message_id, sent_us=now_us, since_us=now_us)
        elif (found := await self._found(self._message_id)) is not None:
            return await self._take(found)
        else:
            log.warning("a2a.sent_again", agent=self._remote.name, message=self._message_id)
        try:
            return await self._send(self._message())
        except AgentFault as fault:
            if self._task_id is not None or not fault.retryable:
                raise
            found = await self._found(self._message_id)  # only the answer may have been lost
            if found is None:
                raise
            return await self._take(found)

    async def _earlier(self) -> Standing | None:
        """The task of the attempt before, where that one ended and the task did not."""
        if self._ctx.attempt < 2:
            return None
        earlier = messages.message_id(self._ctx, attempt=self._ctx.attempt - 1)
        found = await self._found(earlier)
        if found is None or answers.state_of(found) in answers.ENDS:
            return None
        now_us = times.now_us()
        self._message_id = earlier
        self._saved |= {"message_id": earlier, "sent_us": now_us, "since_us": now_us}
        return await self._take(found)

    def _message(self) -> Message:
        manner = self._manner
        return messages.about_event(
            self._ctx,
            id=self._message_id,
            said=manner.said,
            skill=manner.skill,
            envelope=manner.envelope,
        )

    async def _found(self, message_id: str) -> Task | None:
        """The task of a message that may have been sent before."""
        try:
            found = await self._remote.find(message_id, self._context)
        except CannotList as why:
            log.info("a2a.cannot_list", agent=self._remote.name, reason=str(why))
            return None
        if found is not None:
            log.info("a2a.found", agent=self._remote.name, task=found.id)
        return found

    async def _send(self, message: Message) -> Standing:
        if self._manner.stream and self._remote.card.capabilities.streaming:
            return await self._follow(message)
        timeout_s = None if self._manner.immediately else self._left()
        answer = await self._remote.send(
            message, immediately=self._manner.immediately, timeout_s=timeout_s
        )
        return answer if isinstance(answer, Standing) else await self._take(answer)

    async def _take(self, task: Task) -> Standing:
        """A task that was heard of: its id is written down before anything else."""
        answers.check(self._remote.name, task, context_id=self._context, task_id=self._task_id)
        if self._task_id is None:
            await self._save(task_id=task.id)
        return answers.standing(task)

    async def _get(self) -> Task:
        task = await self._remote.get(self._task_id or "")
        answers.check(self._remote.name, task, context_id=self._context, task_id=self._task_id)
        return task

    # -- waiting

    async def _follow(self, message: Message) -> Standing:
        """Hear what the agent tells, to the end of its stream or of our patience."""
        task: Task | None = None
        try:
            async with (
                asyncio.timeout(self._left()),
                contextlib.aclosing(self._remote.stream(message)) as news,
            ):
                async for one in news:
                    if one.HasField("message"):
                        return answers.direct(one.message)
                    task = await self._heard(task, one)
                    if answers.state_of(task) in answers.ENDS | answers.WAITS:
                        return answers.standing(task)
        except TimeoutError:
            raise Late from None
        except AgentFault as fault:
            if self._task_id is None or not fault.retryable:
                raise
            log.info("a2a.stream_broke", agent=self._remote.name, reason=fault.reason)
        if self._task_id is None:
            raise AgentFault(self._remote.name, "its stream ended without a word", retryable=True)
        return await self._next()

    async def _heard(self, task: Task | None, news: StreamResponse) -> Task:
        """The task, as it is after this."""
        if news.HasField("task"):
            await self._take(news.task)
            task = news.task
        elif task is None:  # it goes on with one that we know
            if self._task_id is None:
                raise AgentFault(self._remote.name, "its stream begins without a task")
            task = await self._get()
        elif news.HasField("status_update"):
            answers.apply(self._remote.name, task, news.status_update)
        elif news.HasField("artifact_update"):
            answers.apply(self._remote.name, task, news.artifact_update)
        count = self._saved["updates"] = int(self._saved.get("updates", 0)) + 1
        state = answers.state_of(task)
        log.info("a2a.update", agent=self._remote.name, task=task.id, state=state, count=count)
        if count % SAVE_EVERY == 0:
            await self._save()
        return task

    async def _next(self) -> Standing:
        """Look at the task until it says something that matters."""
        delay = self._manner.poll_s
        while True:
            await asyncio.sleep(min(delay, self._left()))
            try:
                standing = answers.standing(await self._get())
            except AgentFault as fault:
                # an agent that restarts, or a network that is away: the task goes on without us
                if not fault.retryable or "know the task" in fault.reason:
                    raise
                log.info("a2a.not_reached", agent=self._remote.name, reason=fault.reason)
                delay = min(delay * 2, SLOWEST_S)
                continue
            delay = self._manner.poll_s
            settled = standing.state in answers.WAITS and standing.mark == self._saved.get(
                "settled"
            )
            if standing.over and not settled:
                return standing

    def _left(self) -> float:
        since_us = self._saved.get("since_us") or times.now_us()
        left = self._manner.timeout_s - (times.now_us() - since_us) / 1e6
        if self._own_end is not None:
            left = min(left, self._own_end - self._loop.time())
        if left <= 0:
            raise Late
        return left

    # -- questions

    async def _asked(self, standing: Standing) -> Standing | Outcome:
        """The agent wants something: a person is asked, or has answered."""
        count = int(self._saved.get("questions", 0))
        if self._manner.on_input == "fail":
            await self._cancel()
            error = f"the agent asks: {standing.said or standing.state}"
            return self._outcome(standing, error=error)
        if standing.mark != self._saved.get("asked"):
            if count >= MAX_QUESTIONS:
                raise AgentFault(self._remote.name, f"it asked more than {count} times")
            count += 1
            await self._save(questions=count, asked=standing.mark)
        name = f"input-{count}"
        reply = self._ctx.replies.get(name)
        if reply is None:
            return self._outcome(standing, question=self._question(name, standing))
        if reply.verdict != "granted":
            await self._cancel()
            who = f" by {reply.by}" if reply.by else ""
            error = f"the agent's question was {reply.verdict}{who}"
            return self._outcome(standing, error=error)
        return await self._answer(name, standing, reply)

    async def _answer(self, name: str, standing: Standing, reply: Reply) -> Standing:
        # the clock stood still while a person was asked; sent twice, it is the same message
        await self._save(since_us=times.now_us())
        value = reply.answer if reply.answer is not None else "granted"
        message = messages.answer(
            self._ctx,
            id=messages.message_id(self._ctx, name),
            task_id=self._task_id or "",
            value=value,
            comment=reply.comment,
        )
        answer = await self._send(message)
        await self._save(settled=standing.mark)
        return answer

    def _question(self, name: str, standing: Standing) -> Question:
        agent = self._remote.name
        wants = "asks for a permission" if standing.state == "auth_required" else "asks"
        schema = _checked(standing.schema)
        if schema is None and standing.state == "input_required":
            schema = {"type": "string", "maxLength": 4000}
        return Question(
            name=name,
            prompt=f"The agent {agent} {wants} (its own words, unchecked): {standing.said}",
            schema=schema,
            expires_s=self._manner.expires_s,
            by=self._manner.by,
        )

    # -- the end

    async def _cancel(self) -> None:
        """Tell the agent that nobody waits any more; it may not hear."""
        if self._task_id is None:
            return
        telling = asyncio.create_task(self._tell(self._task_id))
        while not telling.done():  # a step that has to end is told again and again
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([telling])

    async def _tell(self, task_id: str) -> None:
        try:
            async with asyncio.timeout(CANCEL_S):
                await self._remote.cancel(task_id)
            log.info("a2a.canceled", agent=self._remote.name, task=task_id)
        except (AgentFault, TimeoutError) as error:
            log.warning("a2a.not_canceled", agent=self._remote.name, error=str(error))

    async def _save(self, **changes: Any) -> None:
        self._saved |= changes
        await self._ctx.save(self._saved)

    def _outcome(
        self,
        standing: Standing,
        *,
        question: Question | None = None,
        error: str = "",
        retryable: bool = False,
        timed_out: bool = False,
    ) -> Outcome:
        sent_us = self._saved.get("sent_us") or times.now_us()
        return Outcome(
            standing=standing,
            message_id=self._message_id,
            updates=int(self._saved.get("updates", 0)),
            duration_ms=round((times.now_us() - sent_us) / 1e3, 3),
            question=question,
            error=error,
            retryable=retryable,
            timed_out=timed_out,
        )


def _checked(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """A schema that is one; an agent's may be anything."""
    if schema is None:
        return None
    try:
        jsonschemas.check(schema)
    except ValueError as error:
        log.info("a2a.schema_ignored", error=str(error))
        return None
    return schema
