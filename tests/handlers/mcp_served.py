"""A mesh with `opsmesh mcp serve` or `checks serve`: a real broker, handlers and server, each a
process of its own, and the SDK's own client to ask them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult
from tests.conftest import mesh_client
from tests.handlers.handlers_process import Processes, handled

from opsmesh.router import paths, server
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, encode, subject

PROFILES = """
profiles:
  triage:
    on: service.start.failed
    description: looks at a unit that failed
    where: event.payload.unit != "ignored.service"
    actions:
      - {id: look, command: [echo, "looked at", "${{ event.payload.unit }}"]}
  asked:
    on: mesh.demo.asked
    actions:
      - id: go
        approve: {prompt: "Go on with it?"}
        command: [echo, gone]
  named:
    on: mesh.demo.named
    actions:
      - id: go
        approve:
          prompt: Which branch?
          answer: {type: object, properties: {branch: {type: string}}, required: [branch]}
        command: [echo, "${{ steps.go.approval.answer.branch }}"]
  off:
    on: mesh.demo.off
    state: disabled
    actions: [command: ["true"]]
"""


@dataclass
class Served:
    """A mesh whose folders are this process's until it ends."""

    home: Path
    processes: Processes
    broker: server.EmbeddedServer
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def stdio(self, *argv: str) -> StdioServerParameters:
        """How a client starts the server."""
        return StdioServerParameters(
            command=sys.executable,
            args=["-m", "opsmesh.cli.entry", *(argv or ("mcp", "serve"))],
            env=dict(os.environ),
        )

    def http(self, *argv: str) -> str:
        """Start it over HTTP; its address."""
        with (self.home / "serve.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "opsmesh.cli.entry", *argv, "--http", "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving "), (self.home / "serve.log").read_text()
        return line.split()[1]

    def configure(self, **settings: Any) -> None:
        """Write config.yaml."""
        Path(paths.config_dir(), "config.yaml").write_text(yaml.safe_dump(settings))

    def records(self) -> list[dict[str, Any]]:
        """The calls on record: without an agent they lie in the spool."""
        found = [json.loads(line) for line in _spooled() if line.startswith(b"{")]
        return [one for one in found if one.get("topic") == "agent.tool.called"]


@contextlib.contextmanager
def served(home: Path, *, settings: dict[str, Any] | None = None) -> Iterator[Served]:
    """A mesh of its own in `home`."""
    with handled(home, PROFILES, settings) as (broker, processes):
        mesh = Served(home, processes, broker)
        try:
            yield mesh
        finally:
            for process in mesh.running:
                process.terminate()
                process.wait(60)


def _spooled() -> list[bytes]:
    lines: list[bytes] = []
    for path in sorted(Path(paths.spool_dir()).rglob("*")):
        if path.is_file():
            # each line begins with its checksum; one that is being written has no end yet
            whole = path.read_bytes().rpartition(b"\n")[0]
            lines += [one.partition(b" ")[2] for one in whole.splitlines()]
    return lines


async def publish(topic: str = "service.start.failed", **payload: Any) -> Event:
    """One event, stored as its producer would."""
    settings = Settings()
    now_us, event_id = times.now_us(), ids.uuid7()
    event = Event(
        topic=topic,
        ts_utc=times.format_us(now_us),
        source="test",
        component="test",
        severity="error",
        correlation_id=event_id,
        host=settings.host,
        session_id="",
        workspace="",
        payload=payload or {"unit": "backup.service"},
        id=event_id,
    )
    async with mesh_client(settings) as client:
        await client.jetstream().publish(
            subject(event.host, topic), encode(event), headers={"Nats-Msg-Id": event.id}
        )
    return event


@contextlib.asynccontextmanager
async def asking(where: Any, **more: Any) -> AsyncIterator[Client]:
    """The SDK's client."""
    async with Client(where, **more) as client:
        yield client


async def ask(client: Client, tool: str, **arguments: Any) -> Any:
    """What a tool answers, under `data`; AssertionError when it refuses."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert not result.is_error, said(result)
    assert result.structured_content is not None
    assert result.structured_content["untrusted"] is True
    return result.structured_content["data"]


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """What a tool says that refuses."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert result.is_error, result.structured_content
    return said(result)


def said(result: CallToolResult) -> str:
    """The text of a result."""
    return "\n".join(getattr(one, "text", "") for one in result.content)


def fence(text: str) -> tuple[str, str]:
    """The mark of a text's fence, and what is inside; AssertionError when it has none."""
    found = re.search(r"<untrusted-data ([0-9a-f]{32})>\n(.*)\n</untrusted-data \1>\Z", text, re.S)
    assert found is not None, text
    return found[1], found[2]
