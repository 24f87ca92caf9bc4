"""What agents ask of the mesh, answered from the ledger.

A message becomes a trigger of the profile that it names, and the task is that run. Nothing is kept
in this process: the next one knows the same tasks. The one rule: a caller sees its own tasks alone,
and cannot tell another's from one that is not there.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator
from typing import Final

import structlog
from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event as News
from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskArtifactUpdateEvent,
    TaskPushNotificationConfig,
    TaskState,
    TaskStatusUpdateEvent,
)
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import (
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.task import (
    apply_history_length,
    decode_page_token,
    encode_page_token,
    validate_history_length,
    validate_page_size,
)

from opsmesh.handlers.a2a_serve import answering, incoming, news, push, standing
from opsmesh.handlers.a2a_serve.mesh import Mesh
from opsmesh.handlers.a2a_serve.records import PushTo, Record
from opsmesh.handlers.runs import approvals, cancelling
from opsmesh.handlers.runs.ledger import Run
from opsmesh.router import trigger
from opsmesh.router.settings_a2a import A2aServe
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import encode

#: Seconds in which a caller may send `per_minute` messages.
MINUTE: Final = 60.0

log = structlog.get_logger()


class Requests(RequestHandler):
    """Answers for every binding."""

    def __init__(self, mesh: Mesh, settings: A2aServe) -> None:
        self._mesh = mesh
        self._settings = settings
        self._sent: defaultdict[str, deque[float]] = defaultdict(deque)

    # -- messages

    @validate_request_params
    async def on_message_send(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> Task | Message:
        validate_history_length(params.configuration)
        record = await self._accept(params, context)
        task = await news.now(self._mesh.ledger, record)
        if not params.configuration.return_immediately:
            async with contextlib.aclosing(self._follow(record)) as following:
                async for task in following:
                    if task.status.state in standing.TERMINAL | standing.WAITING:
                        break
        return apply_history_length(task, params.configuration)

    @validate_request_params
    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[News, None]:
        validate_history_length(params.configuration)
        record = await self._accept(params, context)
        until = standing.TERMINAL | standing.WAITING
        async with contextlib.aclosing(self._news(record, until=until)) as following:
            async for one in following:
                yield one

    @validate_request_params
    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[News, None]:
        record = await self._own(params.id, context)
        task = await news.now(self._mesh.ledger, record)
        if task.status.state in standing.TERMINAL:
            raise UnsupportedOperationError("the task is over: get it instead")
        # somebody else may answer what it waits for: only its end ends this
        async with contextlib.aclosing(self._news(record, until=standing.TERMINAL)) as following:
            async for one in following:
                yield one

    async def _accept(self, params: SendMessageRequest, context: ServerCallContext) -> Record:
        message = params.message
        incoming.check(message)
        if message.task_id:
            return await self._further(message, context)
        profiles = self._mesh.exposed.profiles()
        skill = incoming.skill_of(message, profiles)
        push_to = self._push_of(params)
        caller = context.user.user_name
        self._slow_down(caller)
        if hindrance := await self._mesh.hindrance(skill):
            raise InternalError(hindrance)
        now_us = times.now_us()
        task_id = ids.uuid7(now_us // 1000)
        record, new = await self._mesh.records.create(
            Record(
                task_id=task_id,
                profile=skill,
                context_id=message.context_id or ids.uuid7(now_us // 1000),
                given_context=message.context_id,
                message_id=message.message_id,
                caller=caller,
                created_us=now_us,
                message=incoming.kept(message, self._mesh.redactor, task_id),
                push=[push_to] if push_to is not None else [],
            )
        )
        if push_to is not None and not new:
            record = await self._set_push(record, push_to)
        await self._begin(record, message)
        self._mesh.herald.watch(record)
        log.info("a2a.accepted", task=record.task_id, skill=skill, caller=caller, new=new)
        return record

    async def _begin(self, record: Record, message: Message) -> None:
        """Trigger the profile; of a message that comes again, what was left undone before."""
        if await self._mesh.ledger.get(record.run_key) is not None:
            return
        story = incoming.story(message)
        content = incoming.payload(message, record, self._mesh.redactor)
        host = self._mesh.host
        accepted = incoming.event(incoming.ACCEPTED, record, content, story, host=host)
        await self._mesh.publish(accepted)
        received = incoming.event(incoming.RECEIVED, record, content, story, host=host)
        data, _ = self._mesh.redactor.event(encode(received))
        # the task's id is the event's and the trigger's: asked twice, it is run once
        asked = trigger.Trigger(kind="manual", id=record.task_id)
        await trigger.send(self._mesh.client, record.profile, data, asked)

    async def _further(self, message: Message, context: ServerCallContext) -> Record:
        """A message to a task that there is already: runs take none but an answer to what they
        ask, from a caller that the question names."""
        record = await self._own(message.task_id, context)
        if message.context_id and message.context_id != record.context_id:
            raise InvalidParamsError("the task is of another context")
        held = await self._mesh.ledger.get(record.run_key)
        run = held.run if held is not None else None
        if run is not None and run.finished:
            raise UnsupportedOperationError("the task is over; send a message without taskId")
        asked = run.question if run is not None else None
        if asked is None:
            raise UnsupportedOperationError("a task takes no further message while it is under way")
        by = answering.name_of(record.caller)
        if by not in asked.by:  # also where anybody of the mesh may: a caller is nobody of it
            raise UnsupportedOperationError("a person of the mesh answers this, not an agent")
        verdict, value, comment = answering.read(message, asked)
        try:
            await approvals.answer(
                self._mesh.client,
                asked.id,
                verdict,
                by=by,
                via=answering.VIA,
                host=self._mesh.host,
                redactor=self._mesh.redactor,
                value=value,
                comment=comment,
            )
        except approvals.InvalidAnswer as error:
            raise InvalidParamsError(str(error)) from error
        except approvals.ApprovalError as error:
            raise UnsupportedOperationError(str(error)) from error
        return record

    def _slow_down(self, caller: str) -> None:
        now, sent = time.monotonic(), self._sent[caller]
        while sent and now - sent[0] > MINUTE:
            sent.popleft()
        if len(sent) >= self._settings.per_minute:
            raise InternalError(f"over {self._settings.per_minute} messages a minute; wait")
        sent.append(now)

    # -- tasks

    @validate_request_params
    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task | None:
        validate_history_length(params)
        record = await self._own(params.id, context)
        return apply_history_length(await news.now(self._mesh.ledger, record), params)

    @validate_request_params
    async def on_list_tasks(
        self, params: ListTasksRequest, context: ServerCallContext
    ) -> ListTasksResponse:
        validate_history_length(params)
        size = DEFAULT_LIST_TASKS_PAGE_SIZE
        if params.HasField("page_size"):
            validate_page_size(params.page_size)
            size = params.page_size
        found = await self._listed(params, context.user.user_name)
        start = 0
        if params.page_token:
            last = decode_page_token(params.page_token)
            at = next((n for n, task in enumerate(found) if task.id == last), None)
            if at is None:
                raise InvalidParamsError("pageToken is none of ours")
            start = at + 1
        page = found[start : start + size]
        for task in page:
            if not params.include_artifacts:
                task.ClearField("artifacts")
        return ListTasksResponse(
            tasks=[apply_history_length(task, params) for task in page],
            next_page_token=encode_page_token(page[-1].id) if start + size < len(found) else "",
            page_size=size,
            total_size=len(found),
        )

    async def _listed(self, params: ListTasksRequest, caller: str) -> list[Task]:
        """The caller's tasks that fit, the newest news first."""
        records = [
            record
            async for record in self._mesh.records.all()
            if record.caller == caller and params.context_id in ("", record.context_id)
        ]
        runs: dict[str, Run] = {}
        if records:
            runs = {held.run.key: held.run async for held in self._mesh.ledger.triggered()}
        tasks = [standing.task(record, runs.get(record.run_key)) for record in records]
        if params.status:
            tasks = [task for task in tasks if task.status.state == params.status]
        if params.HasField("status_timestamp_after"):
            after = params.status_timestamp_after.ToMicroseconds()
            tasks = [task for task in tasks if task.status.timestamp.ToMicroseconds() >= after]
        return sorted(tasks, key=lambda task: task.status.timestamp.ToMicroseconds(), reverse=True)

    @validate_request_params
    async def on_cancel_task(
        self, params: CancelTaskRequest, context: ServerCallContext
    ) -> Task | None:
        record = await self._own(params.id, context)
        by = f"the agent {record.caller}" if record.caller else "an agent"
        asked = False
        async with contextlib.aclosing(self._follow(record)) as following:
            async for task in following:
                state = task.status.state
                if asked and state == TaskState.TASK_STATE_CANCELED:
                    return task
                if state in standing.TERMINAL:
                    raise TaskNotCancelableError(f"the task is over: {TaskState.Name(state)}")
                held = await self._mesh.ledger.get(record.run_key)
                if held is None or asked:  # handed over, and not begun: it will be soon
                    continue
                asked = await cancelling.ask(
                    self._mesh.client, held.run.run_id, f"{by} canceled the task"
                )
                if not asked:
                    raise TaskNotCancelableError("no handlers are there that have the run")
        raise TaskNotCancelableError

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        raise UnsupportedOperationError("there is no other card than the public one")

    # -- news that are sent

    @validate_request_params
    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        self._pushes()
        record = await self._own(params.task_id, context)
        wanted = self._wanted(params)
        record = await self._set_push(record, wanted)
        self._mesh.herald.watch(record)
        return push.shown(wanted, record.task_id)

    @validate_request_params
    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        self._pushes()
        record = await self._own(params.task_id, context)
        for one in record.push:
            if one.id == params.id:
                return push.shown(one, record.task_id)
        raise TaskNotFoundError("no such configuration")

    @validate_request_params
    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        self._pushes()
        record = await self._own(params.task_id, context)
        configs = [push.shown(one, record.task_id) for one in record.push]
        return ListTaskPushNotificationConfigsResponse(configs=configs)

    @validate_request_params
    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        self._pushes()
        record = await self._own(params.task_id, context)
        await self._mesh.records.drop_push(record.task_id, params.id)

    async def _set_push(self, record: Record, wanted: PushTo) -> Record:
        try:
            return await self._mesh.records.set_push(record.task_id, wanted) or record
        except ValueError as error:
            raise InvalidParamsError(str(error)) from error

    def _pushes(self) -> None:
        if not self._settings.push_urls:
            raise PushNotificationNotSupportedError

    def _push_of(self, params: SendMessageRequest) -> PushTo | None:
        configuration = params.configuration
        if not configuration.HasField("task_push_notification_config"):
            return None
        self._pushes()
        return self._wanted(configuration.task_push_notification_config)

    def _wanted(self, config: TaskPushNotificationConfig) -> PushTo:
        if not push.allowed(config.url, self._settings.push_urls):
            raise InvalidParamsError("news are not sent to this address")
        try:
            return push.wanted(config)
        except ValueError as error:
            raise InvalidParamsError(str(error)) from error

    # -- what they have in common

    async def _own(self, task_id: str, context: ServerCallContext) -> Record:
        record = await self._mesh.records.get(task_id)
        if record is None or record.caller != context.user.user_name:
            raise TaskNotFoundError
        return record

    def _follow(self, record: Record) -> AsyncGenerator[Task, None]:
        return news.follow(self._mesh.client, self._mesh.ledger, record)

    async def _news(
        self, record: Record, *, until: frozenset[TaskState]
    ) -> AsyncGenerator[News, None]:
        """The task, then what changes about it, until it is in one of these states."""
        first = True
        async with contextlib.aclosing(self._follow(record)) as following:
            async for task in following:
                if first:
                    yield task
                else:
                    for artifact in task.artifacts:
                        yield TaskArtifactUpdateEvent(
                            task_id=task.id,
                            context_id=task.context_id,
                            artifact=artifact,
                            last_chunk=True,
                        )
                    yield TaskStatusUpdateEvent(
                        task_id=task.id, context_id=task.context_id, status=task.status
                    )
                first = False
                if task.status.state in until:
                    return
