"""News of tasks, sent to addresses that the settings allow. At least once, and never anywhere else.

An address is compared with the list when it is given and again before each sending; redirects are
not followed, answers not read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Final

import httpx
import structlog
from a2a.types import Task, TaskPushNotificationConfig, TaskStatusUpdateEvent
from a2a.utils.proto_utils import to_stream_response
from google.protobuf.json_format import MessageToDict
from nats.aio.client import Client

from opsmesh.handlers.a2a import agents, bounded
from opsmesh.handlers.a2a_serve import news, standing
from opsmesh.handlers.a2a_serve.records import PushTo, Record, Records
from opsmesh.handlers.errors import AgentFault
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.router import tasks
from opsmesh.schemas import ids

#: Seconds for one sending, and before each further try of one that failed.
TIMEOUT_S: Final = 10.0
AGAIN_S: Final = (1.0, 5.0, 30.0)
#: Characters of a token or of credentials.
MAX_SECRET: Final = 4096

log = structlog.get_logger()


def allowed(url: str, prefixes: Sequence[str]) -> bool:
    """Whether news may be sent there."""
    return any(agents.within(url, prefix) for prefix in prefixes)


def wanted(config: TaskPushNotificationConfig) -> PushTo:
    """Where an agent wants news to go; ValueError for what cannot be sent."""
    about = config.authentication
    secrets = (config.token, about.scheme, about.credentials)
    if any(len(text) > MAX_SECRET or not text.isprintable() for text in secrets):
        raise ValueError("a token or credentials cannot be sent as they are")
    return PushTo(
        # without an id of its own: the same, when the same is asked for again
        id=config.id[:80] or ids.derived(0, "push", config.url, *secrets),
        url=config.url,
        token=config.token,
        scheme=about.scheme,
        credentials=about.credentials,
    )


def shown(push: PushTo, task_id: str) -> TaskPushNotificationConfig:
    """The same as A2A has it."""
    found = TaskPushNotificationConfig(id=push.id, task_id=task_id, url=push.url, token=push.token)
    if push.scheme:
        found.authentication.scheme = push.scheme
        found.authentication.credentials = push.credentials
    return found


class Herald:
    """Tells what becomes of tasks; one watch for each address that somebody wants news at, so that
    one that does not answer holds up no other."""

    def __init__(
        self, client: Client, records: Records, ledger: Ledger, prefixes: Sequence[str]
    ) -> None:
        self._client = client
        self._records = records
        self._ledger = ledger
        self._prefixes = prefixes
        self._watches: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Go on where the process before has stopped."""
        if not self._prefixes:
            return
        async for record in self._records.all():
            self.watch(record)

    async def stop(self) -> None:
        """Tell no more."""
        await tasks.end(list(self._watches.values()))

    def watch(self, record: Record) -> None:
        """Tell of this task wherever news of it go, unless it is done already."""
        for push in record.push:
            key = (record.task_id, push.id)
            if key not in self._watches:
                watch = asyncio.create_task(self._watch(record, push.id))
                self._watches[key] = watch
                watch.add_done_callback(partial(self._ended, key))

    def _ended(self, key: tuple[str, str], _: asyncio.Task[None]) -> None:
        self._watches.pop(key, None)

    async def _watch(self, record: Record, push_id: str) -> None:
        async with contextlib.aclosing(
            news.follow(self._client, self._ledger, record)
        ) as following:
            async for task in following:
                found = await self._records.get(record.task_id)
                push = next((p for p in found.push if p.id == push_id), None) if found else None
                if push is None:  # nobody wants to hear of it there any more
                    return
                await self._tell(record, push, task)

    async def _tell(self, record: Record, push: PushTo, task: Task) -> None:
        mark = standing.mark(task)
        if push.told == mark:
            return
        if not allowed(push.url, self._prefixes):
            log.warning("a2a.push_not_allowed", task=record.task_id, url=push.url[:200])
            return
        for delay in (*AGAIN_S, None):
            try:
                await _send(push, task)
                await self._records.told(record.task_id, push.id, mark)
            except (httpx.HTTPError, AgentFault, OSError) as error:
                log.warning("a2a.push_failed", task=record.task_id, error=str(error)[:200])
                if delay is None:
                    return
                await asyncio.sleep(delay)
            else:
                return


async def _send(push: PushTo, task: Task) -> None:
    headers = {"X-A2A-Notification-Token": push.token} if push.token else {}
    if push.scheme and push.credentials:
        headers["Authorization"] = f"{push.scheme} {push.credentials}"
    over = task.status.state in standing.TERMINAL
    said = (
        task
        if over
        else TaskStatusUpdateEvent(task_id=task.id, context_id=task.context_id, status=task.status)
    )
    body = MessageToDict(to_stream_response(said))
    async with (
        bounded.client("push", headers=headers, timeout_s=TIMEOUT_S) as http,
        http.stream("POST", push.url, json=body) as answer,
    ):
        answer.raise_for_status()
        if answer.is_redirect:
            raise AgentFault("push", "the address redirects")
