"""Capture what this version stores: run it before a release, and keep what it writes for ever.

    python -m tests.versions.capture tests/versions/data/0.2.0

It starts a broker, the agent and the handlers in folders of its own, sends an example of every
topic through the ingest socket, lets one profile fire and one fail, and writes what the streams
then hold: a file for each, a JSON object for each message (`subject`, `headers`, `data`: the bytes
as text). Nothing of it is written by hand.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from opsmesh.handlers.server import Server
from opsmesh.router import connection, topology
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
from opsmesh.schemas.registry import load_registry
from tests.conftest import eventually, private_folders, run, start_server
from tests.router.agent_process import Connection, agent
from tests.versions.stored import STREAMS

HOST = "elder"
PROFILES = """
version: 1
profiles:
  told:
    on: [service.start.failed]
    where: event.payload.unit != ""
    debounce: {window: 1h, key: [host]}
    actions:
      - emit: {topic: local.told, payload: {unit: "${{ event.payload.unit }}"}}
  hopeless:
    on: [shell.command.failed]
    retry: {attempts: 1}
    actions:
      - command: [/nonexistent/program]
"""


def events() -> list[dict[str, Any]]:
    """An event of every topic, and one that says everything which an envelope can say."""
    found: list[dict[str, Any]] = [
        {"topic": topic.name, "payload": topic.example, "severity": topic.severity}
        for topic in load_registry()
    ]
    whole = {
        "topic": "acme.every.field",
        "ts_utc": "2026-11-27T20:00:00.123456Z",
        "source": "acme",
        "component": "tests",
        "severity": "critical",
        "correlation_id": "story-1",
        "session_id": "session-1",
        "workspace": "~/work",
        "payload": {"n": 1, "text": "ü\u2028\U0001f600", "deep": {"list": [1, 2.5, None, True]}},
        "run_id": "run-1",
        "attempt": 2,
        "exit_code": 3,
        "duration_ms": 4.5,
        "evidence_path": "bundles/1",
        "causation_id": "cause-1",
        "hops": 1,
        "seq": 7,
        "boot_id": "boot-1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "acme_field": {"kept": ["as", "it", "is"]},
    }
    failed = next(event for event in found if event["topic"] == "service.start.failed")
    return [*found, whole, failed]


def main(folder: Path) -> None:
    """Write the files of this version into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as env, tempfile.TemporaryDirectory() as home:
        private_folders(Path(home), env)
        env.setenv("OPSMESH_HOST", HOST)
        profiles = Path(os.environ["XDG_CONFIG_HOME"], "opsmesh", "profiles.yaml")
        profiles.parent.mkdir(parents=True, exist_ok=True)
        profiles.write_text(PROFILES)
        broker = start_server()
        try:
            with agent(Path(home)):
                run(_capture(folder))
        finally:
            broker.stop()


async def _capture(folder: Path) -> None:
    settings = Settings()
    client = await connection.connect(connection.endpoint(settings, role="admin"), name="capture")
    server = Server(client, settings)
    await server.start()
    await server.owned()
    sender = Connection()
    for event in events():
        answer = sender.ask(event)
        assert answer["ok"], (event, answer)
    sender.close()
    js = client.jetstream()

    async def done() -> bool:
        letters = (await js.stream_info(topology.DLQ)).state.messages
        quiet = (await js.stream_info(topology.DECISIONS)).state.messages
        return letters >= 1 and quiet >= 1

    await eventually(done)
    await server.stop()
    for stream in STREAMS:
        lines = [line async for line in _lines(client, stream)]
        Path(folder, f"{stream}.jsonl").write_text("".join(lines))
        print(f"{stream}: {len(lines)}")
    await client.close()


async def _lines(client: Client, stream: str) -> Any:
    async for message in scan(client, stream):
        line = {
            "subject": message.subject,
            "headers": dict(message.headers or {}),
            "data": message.data.decode(),
        }
        yield json.dumps(line) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
