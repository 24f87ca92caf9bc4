"""One agent, reached: its card agreed to, and requests whose failures say what they mean.

The one rule: nothing that an agent says or fails to say leaves here as anything but a `Standing`,
or an AgentFault that knows whether another attempt could end differently.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from types import TracebackType
from typing import Final, Self

import httpx
from a2a.client import A2AClientTimeoutError, Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    Task,
)
from a2a.utils import errors as protocol
from google.protobuf.json_format import ParseError

from opsmesh.handlers.a2a import agents, answers, bounded, cards
from opsmesh.handlers.a2a.agents import Agent, Fills
from opsmesh.handlers.a2a.answers import Standing
from opsmesh.handlers.errors import AgentFault

#: What we can take.
OUTPUT_MODES: Final = ("text/plain", "application/json")
#: News of one stream: more is no progress.
MAX_NEWS: Final = 10_000
#: Pages of a conversation's tasks that are looked through for our own message, and its history.
PAGES, PAGE, HISTORY = 4, 50, 20

#: What no other attempt changes: the agent understood us, and says no.
_FINAL: Final = (
    protocol.InvalidParamsError,
    protocol.InvalidRequestError,
    protocol.MethodNotFoundError,
    protocol.UnsupportedOperationError,
    protocol.ContentTypeNotSupportedError,
    protocol.ExtensionSupportRequiredError,
    protocol.VersionNotSupportedError,
    protocol.InvalidAgentResponseError,
)
#: What the SDK raises for an answer that is not of the protocol's form.
_UNREADABLE: Final = (ParseError, KeyError, TypeError, ValueError, RecursionError)


class CannotList(Exception):
    """The agent does not tell its tasks."""


class Remote:
    """An agent with its card; opened with `open_`, and closed as a context."""

    def __init__(self, agent: Agent, card: AgentCard, http: httpx.AsyncClient) -> None:
        self.agent = agent
        self.card = card
        self._http = http
        self._stream = self._client(streaming=True)
        self._plain = self._client(streaming=False)

    def _client(self, *, streaming: bool) -> Client:
        chosen = AgentCard()
        chosen.CopyFrom(self.card)
        del chosen.supported_interfaces[:]
        chosen.supported_interfaces.append(self.agent.interface(self.card))
        config = ClientConfig(
            streaming=streaming,
            httpx_client=self._http,
            supported_protocol_bindings=list(agents.BINDINGS),
            accepted_output_modes=list(OUTPUT_MODES),
        )
        return ClientFactory(config).create(chosen)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    @property
    def name(self) -> str:
        """The agent's name in the settings."""
        return self.agent.name

    async def send(
        self, message: Message, *, immediately: bool, timeout_s: float | None = None
    ) -> Task | Standing:
        """Send, and the first answer: a task, or all there is to say."""
        request = self._request(message, immediately=immediately)
        with self._faults():
            async for answer in self._plain.send_message(request, context=_limit(timeout_s)):
                if answer.HasField("task"):
                    return answer.task
                if answer.HasField("message"):
                    return answers.direct(answer.message)
        raise AgentFault(self.name, "its answer is neither a task nor a message")

    async def stream(self, message: Message) -> AsyncGenerator[StreamResponse, None]:
        """Send, and everything that the agent tells until it ends the stream; AgentFault when it
        does not stop telling."""
        count = 0
        with self._faults():
            news = self._stream.send_message(self._request(message, immediately=False))
            async for answer in news:
                count += 1
                if count > MAX_NEWS:
                    raise AgentFault(self.name, f"its stream has over {MAX_NEWS} news and no end")
                yield answer

    def _request(self, message: Message, *, immediately: bool) -> SendMessageRequest:
        return SendMessageRequest(
            message=message,
            configuration=SendMessageConfiguration(return_immediately=immediately),
        )

    async def get(self, task_id: str) -> Task:
        """The task as it stands."""
        with self._faults():
            return await self._plain.get_task(GetTaskRequest(id=task_id, history_length=0))

    async def find(self, message_id: str, context_id: str) -> Task | None:
        """The task that came of a message; None when the agent knows none. CannotList when it does
        not say."""
        token = ""
        try:
            for _ in range(PAGES):
                page = await self._plain.list_tasks(
                    ListTasksRequest(
                        context_id=context_id,
                        page_size=PAGE,
                        page_token=token,
                        history_length=HISTORY,
                    )
                )
                for task in page.tasks:
                    said = (message.message_id for message in task.history)
                    if task.context_id == context_id and message_id in said:
                        found: Task = task
                        return found
                token = page.next_page_token
                if not token:
                    return None
        except A2AClientTimeoutError as error:
            raise AgentFault(self.name, "it did not answer in time", retryable=True) from error
        except (protocol.A2AError, *_UNREADABLE) as error:
            if _away(error):
                raise AgentFault(self.name, _why(error), retryable=True) from error
            raise CannotList(_why(error)) from error
        return None

    async def cancel(self, task_id: str) -> Task | None:
        """Ask the agent to stop; None when there is nothing to stop any more."""
        with self._faults():
            try:
                return await self._plain.cancel_task(CancelTaskRequest(id=task_id))
            except (protocol.TaskNotCancelableError, protocol.TaskNotFoundError):
                return None

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Every failure of a request as an AgentFault."""
        try:
            yield
        except A2AClientTimeoutError as error:
            raise AgentFault(self.name, "it did not answer in time", retryable=True) from error
        except protocol.TaskNotFoundError as error:
            raise AgentFault(self.name, "it does not know the task any more", retryable=True) from (
                error
            )
        except _FINAL as error:
            raise AgentFault(self.name, f"it refuses: {_why(error)}") from error
        except protocol.A2AError as error:
            raise AgentFault(self.name, _why(error), retryable=not _denied(error)) from error
        except (httpx.HTTPError, OSError) as error:
            raise AgentFault(self.name, _why(error), retryable=True) from error
        except _UNREADABLE as error:
            why = f"its answer cannot be read: {_why(error)}"
            raise AgentFault(self.name, why) from error


async def open_(agent: Agent, secrets: Fills, *, fresh: bool = False) -> Remote:
    """The agent, ready to be asked; AgentFault when its card is not there, or not the right one."""
    timeout_s = agent.about.timeout
    limit = 2 * cards.MAX_CARD
    headers = await _headers(agent, None, secrets)
    async with bounded.client(
        agent.name, headers=headers, timeout_s=timeout_s, limit=limit
    ) as http:
        found = await cards.get(
            http, agent.name, agent.card_url, pin=agent.about.card_sha256, fresh=fresh
        )
    card = found.parsed()
    headers = await _headers(agent, card, secrets)
    http = bounded.client(agent.name, headers=headers, timeout_s=timeout_s)
    try:
        return Remote(agent, card, http)
    except ValueError as error:
        await http.aclose()
        raise AgentFault(agent.name, f"its card cannot be used: {error}") from error
    except BaseException:
        await http.aclose()
        raise


async def _headers(agent: Agent, card: AgentCard | None, secrets: Fills) -> dict[str, str]:
    try:
        return await asyncio.to_thread(agent.headers, card, secrets)  # a keyring takes its time
    except ValueError as error:
        raise AgentFault(agent.name, f"a2a_agents.{agent.name}: {error}") from error


def _limit(timeout_s: float | None) -> ClientCallContext | None:
    return None if timeout_s is None else ClientCallContext(timeout=timeout_s)


def _why(error: Exception) -> str:
    said = str(error).splitlines()
    return (said[0] if said else type(error).__name__)[:300]


def _status(error: Exception) -> int:
    cause = error.__cause__
    return cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else 0


def _denied(error: Exception) -> bool:
    """Whether HTTP itself says that asking again is of no use."""
    status = _status(error)
    return 400 <= status < 500 and status not in (408, 425, 429)


def _away(error: Exception) -> bool:
    if not isinstance(error, A2AClientError):
        return False
    return isinstance(error.__cause__, httpx.RequestError) or _status(error) >= 500
