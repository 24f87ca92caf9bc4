"""A mesh with `opsmesh a2a serve`: a real broker, handlers and server, each a process of its own,
and the SDK's own client to ask them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from a2a.client import Client, ClientConfig, create_client
from a2a.types import (
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    Task,
)
from nats.aio.client import Client as Nats
from tests.handlers.handlers_process import Processes, handled

from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router.scan import scan
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import Event, decode

PROFILES = """
profiles:
  say:
    on: a2a.message.received
    description: says it again
    expose: {tags: [say], examples: [hello]}
    actions:
      - command: [echo, "${{ event.payload.text }}"]
  until:
    on: a2a.message.received
    expose: true
    concurrency: {mode: parallel, limit: 8}
    actions:
      - command:
          - sh
          - -c
          - 'while ! test -e "$0"; do sleep 0.05; done; echo gone'
          - "${{ event.payload.text }}"
  fails:
    on: a2a.message.received
    expose: true
    retry: {attempts: 1}
    actions: [command: [sh, -c, "echo out of paper >&2; exit 3"]]
  data:
    on: a2a.message.received
    expose: true
    actions: [command: [echo, '{"count": 3, "name": "x"}']]
  asks:
    on: a2a.message.received
    expose: true
    actions:
      - approve: {prompt: "Restart ${{ event.payload.text }}?", by: ["a2a:local"]}
        emit: x.y
  values:
    on: a2a.message.received
    expose: true
    actions:
      - id: gate
        approve:
          prompt: Which branch?
          by: ["a2a:local"]
          otherwise: fail
          answer: {type: object, required: [branch], properties: {branch: {type: string}}}
        emit: x.y
      - command: [echo, "${{ steps.gate.approval.answer.branch }}"]
  persons:
    on: a2a.message.received
    expose: true
    actions: [{approve: "Sure?", emit: x.y}]
  hidden:
    on: a2a.message.received
    actions: [command: ["true"]]
  off:
    on: a2a.message.received
    expose: true
    state: disabled
    actions: [command: ["true"]]
"""


@dataclass
class Served:
    """A mesh that is an agent."""

    home: Path
    processes: Processes
    address: str = ""
    argv: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def serve(self, *argv: str) -> str:
        """Start `opsmesh a2a serve`; its address."""
        self.argv = list(argv)
        with (self.home / "serve.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "opsmesh.cli.entry", "a2a", "serve", *argv],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving "), (self.home / "serve.log").read_text()
        self.address = line.split()[1].removesuffix("/.well-known/agent-card.json")
        return self.address

    def stop(self, *, kill: bool = False) -> int:
        """End it: its exit code."""
        assert self.process is not None
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        return self.process.wait(60)


@contextlib.contextmanager
def served(home: Path, *argv: str, settings: dict[str, Any] | None = None) -> Iterator[Served]:
    """A mesh of its own in `home`, whose folders are this process's until the body ends."""
    with handled(home, PROFILES, settings) as (_, processes):
        mesh = Served(home, processes)
        mesh.serve(*argv)
        try:
            yield mesh
        finally:
            mesh.stop(kill=True)


def message(text: str, skill: str, **more: Any) -> Message:
    """What a client says."""
    facts: dict[str, Any] = {"message_id": ids.uuid7(), "role": Role.ROLE_USER}
    found = Message(**{"parts": [Part(text=text)], **facts, **more})
    if skill:
        found.metadata.update({"skill": skill})
    return found


@contextlib.asynccontextmanager
async def client(
    address: str, *, token: str = "", streaming: bool = False
) -> AsyncIterator[Client]:
    """The SDK's client."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # one that waits is closed after five seconds, also under a request that comes just then
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(headers=headers, timeout=60, limits=limits) as http:
        config = ClientConfig(httpx_client=http, streaming=streaming)
        yield await create_client(address, client_config=config)


async def send(asking: Client, said: Message, *, immediately: bool = False, **more: Any) -> Task:
    """The task that a message became."""
    configuration = SendMessageConfiguration(return_immediately=immediately, **more)
    request = SendMessageRequest(message=said, configuration=configuration)
    async for answer in asking.send_message(request):
        return answer.task
    raise AssertionError("no answer")


def stream(asking: Client, said: Message) -> AsyncIterator[StreamResponse]:
    """Everything that is told of a message."""
    return asking.send_message(SendMessageRequest(message=said))


async def run_of(nats: Nats, task_id: str) -> Run | None:
    """The run that a task is."""
    found = [run async for run in Ledger(nats).runs() if run.event_id == task_id]
    return found[0] if found else None


async def events(nats: Nats, topic: str) -> list[Event]:
    """Every stored event of a topic."""
    return [decode(one.data) async for one in scan(nats, EVENTS, subjects=[f"evt.*.{topic}"])]
