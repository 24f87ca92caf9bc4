"""An agent made with the A2A SDK's own server, as a process: `python -m tests.handlers.a2a_agent
FOLDER`. What it does is the first word of the text that it is sent; what it hears is written, a
line of JSON each, to FOLDER/heard. Its address is FOLDER/address.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from a2a.helpers import get_message_text
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.routes import (
    create_agent_card_routes,
    create_jsonrpc_routes,
    create_rest_routes,
)
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    HTTPAuthSecurityScheme,
    Message,
    Part,
    Role,
    SecurityRequirement,
    SecurityScheme,
    StringList,
    Task,
    TaskState,
    TaskStatus,
)
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


def data(value: Any) -> Part:
    """A data part."""
    return Part(data=ParseDict(value, Value()))


async def there(path: Path) -> None:
    """Return once a file is there; another process makes it."""
    while not path.exists():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


class Scripted(AgentExecutor):
    """Does what it is told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _note(self, **facts: Any) -> None:
        with (self._folder / "heard").open("a") as file:
            file.write(json.dumps(facts) + "\n")

    async def execute(self, context: RequestContext, queue: EventQueue) -> None:
        message = context.message
        assert message is not None
        words = get_message_text(message).split()
        word = words[0] if words else "echo"
        self._note(kind="message", task=context.task_id, message=MessageToDict(message))
        if word == "message":
            await queue.enqueue_event(
                Message(
                    message_id="direct",
                    context_id=context.context_id or "",
                    role=Role.ROLE_AGENT,
                    parts=[Part(text="no task needed"), data({"answer": 42})],
                )
            )
            return
        if word == "hold":  # it has heard, and its answer is not out yet
            await there(Path(words.pop(1)))
        going_on = context.current_task
        if going_on is None:
            await queue.enqueue_event(
                Task(
                    id=context.task_id or "",
                    context_id=context.context_id or "",
                    status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED),
                    history=[message],
                )
            )
        updater = TaskUpdater(queue, context.task_id or "", context.context_id or "")
        if going_on is not None:
            answer = [MessageToDict(part) for part in message.parts]
            await updater.add_artifact([data({"answered": answer})], name="answer")
            await updater.complete()
            return
        await updater.start_work()
        await getattr(self, f"_{word}")(updater, words[1:], message)

    async def cancel(self, context: RequestContext, queue: EventQueue) -> None:
        self._note(kind="cancel", task=context.task_id)
        updater = TaskUpdater(queue, context.task_id or "", context.context_id or "")
        await updater.cancel()

    async def _echo(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        await updater.add_artifact([message.parts[-1]], name="echo")
        await updater.complete()

    async def _say(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        facts = {"service": "backup", "count": 3, "share": 0.5, "big": str(2**60)}
        await updater.add_artifact([Part(text=" ".join(words)), data(facts)], name="said")
        await updater.complete(updater.new_agent_message([Part(text="well done")]))

    async def _drift(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        await updater.add_artifact([data(json.loads(" ".join(words)))], name="event")
        await updater.complete()

    async def _wait(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        await there(Path(words[0]))
        await self._say(updater, ["waited"], message)

    _hold = _wait

    async def _ask(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        schema = {
            "type": "object",
            "properties": {"branch": {"type": "string", "pattern": "(a+)+"}},
        }
        parts = [Part(text="Which branch?"), data({"schema": schema})]
        await updater.requires_input(updater.new_agent_message(parts))

    async def _auth(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        await updater.requires_auth(updater.new_agent_message([Part(text="Log in at the bank")]))

    async def _fail(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        await updater.failed(updater.new_agent_message([Part(text="\x1b[31mno model\x1b[0m")]))

    async def _reject(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        await updater.reject(updater.new_agent_message([Part(text="not my skill")]))

    async def _canceled(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        await updater.cancel()

    async def _stream(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        for n in range(int(words[0])):
            await updater.add_artifact(
                [Part(text=f"{n} ")], artifact_id="pieces", append=n > 0, last_chunk=False
            )
        await updater.complete()

    async def _long(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        parts = [Part(text="x" * 100_000), Part(raw=b"\0" * 1000, filename="../../etc/passwd")]
        await updater.add_artifact(parts, name="long")
        await updater.complete()

    async def _huge(self, updater: TaskUpdater, words: list[str], message: Message) -> None:
        await updater.add_artifact([Part(text="x" * (17 * 1024 * 1024))], name="huge")
        await updater.complete()


class Door:
    """Refuses whoever has not the token."""

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/.well-known"):
            await self._app(scope, receive, send)
        elif Request(scope).headers.get("authorization") != f"Bearer {self._token}":
            refused: Response = JSONResponse({"error": "who are you?"}, status_code=401)
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def card(address: str, token: str) -> AgentCard:
    """What it says of itself."""
    found = AgentCard(
        name="Scripted Agent",
        description="does what it is told",
        version="1",
        supported_interfaces=[
            AgentInterface(
                url=f"{address}/rpc", protocol_binding="JSONRPC", protocol_version="1.0"
            ),
            AgentInterface(
                url=f"{address}/rest", protocol_binding="HTTP+JSON", protocol_version="1.0"
            ),
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain", "application/json"],
        default_output_modes=["text/plain", "application/json"],
        skills=[AgentSkill(id="do", name="do", description="does it", tags=["test"])],
    )
    if token:
        scheme = SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="bearer"))
        found.security_schemes["token"].CopyFrom(scheme)
        found.security_requirements.append(SecurityRequirement(schemes={"token": StringList()}))
    return found


def main(folder: Path) -> None:
    """Serve until killed."""
    token = os.environ.get("AGENT_TOKEN", "")
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("AGENT_PORT", "0"))))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    about = card(address, token)
    handler = DefaultRequestHandlerV2(Scripted(folder), InMemoryTaskStore(), about)
    app = Starlette(
        routes=[
            *create_agent_card_routes(about),
            *create_jsonrpc_routes(handler, "/rpc"),
            *create_rest_routes(handler, path_prefix="/rest"),
        ],
        middleware=[Middleware(Door, token=token)] if token else [],
    )
    (folder / "address.new").write_text(address)
    (folder / "address.new").rename(folder / "address")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
