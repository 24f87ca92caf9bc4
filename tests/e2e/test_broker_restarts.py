"""The promise itself: whatever happens to the broker, every event is stored and archived, once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from opsmesh.handlers.evidence.reader import read
from opsmesh.handlers.evidence.verify import verify
from opsmesh.router import paths
from opsmesh.router.scan import scan
from tests.conftest import WHOLE, mesh_client, run, start_server
from tests.router.agent_process import agent, until, wait_drained

CLIENTS, KILLS = 4, 3
#: One client: the id of each event that it was told is safe, on standard output.
CLIENT = """
import sys
from opsmesh.router.client import Client
client = Client()
for n in range(int(sys.argv[2])):
    id = f"{sys.argv[1]}-{n}"
    line = b'{"topic":"load.test","id":"%s","payload":{"n":%d},"_reply":true}' % (id.encode(), n)
    assert client.deliver(line, id).startswith(b'{"ok":true'), id
    print(n, flush=True)
"""


@pytest.mark.parametrize("each", [750, pytest.param(2500, marks=pytest.mark.slow)])
def test_every_event_is_stored_once_while_the_broker_is_killed(home: Path, each: int) -> None:
    """Events from four processes, the broker killed and restarted three times: each of them is in
    EVENTS exactly once, and exactly one line of an evidence archive that is intact."""
    broker = start_server()
    told = [home / f"client-{n}" for n in range(CLIENTS)]
    clients = []
    sink = subprocess.Popen(
        [sys.executable, "-m", "opsmesh.handlers.evidence.sink"], stderr=subprocess.DEVNULL
    )
    folder = Path(paths.evidence_dir())
    try:
        with agent(home):
            for n, path in enumerate(told):
                with path.open("wb") as out:
                    argv = [sys.executable, "-c", CLIENT, str(n), str(each)]
                    clients.append(subprocess.Popen(argv, stdout=out))

            def count() -> int:
                return sum(path.read_bytes().count(b"\n") for path in told)

            def reached(wanted: float) -> Callable[[], bool]:
                return lambda: count() > wanted

            for kill in range(1, KILLS + 1):
                until(reached(kill * CLIENTS * each / (KILLS + 1)))
                broker.kill()
                # the spool takes them; as many as are left, when this process was held up
                until(reached(min(count() + 200, CLIENTS * each - 1)))
                broker.start()
            assert [client.wait(WHOLE) for client in clients] == [0] * CLIENTS
            wait_drained()
            stored = Counter(run(ids()))
            until(lambda: len(archived(folder)) >= len(stored))
    finally:
        sink.terminate()
        sink.wait(60)
        for client in clients:
            if client.poll() is None:
                client.kill()
        broker.stop()
    wanted = {f"{client}-{n}" for client in range(CLIENTS) for n in range(each)}
    assert stored.keys() == wanted
    assert set(stored.values()) == {1}
    assert Counter(archived(folder)) == stored
    assert verify(folder).problems == []


def archived(folder: Path) -> list[str]:
    """The id on each line of the archive for an event of this test."""
    return [json.loads(line.data)["id"] for line in read(folder, topics=["load.test"])]


async def ids() -> list[str]:
    """The id of every stored event of this test."""
    async with mesh_client() as client:
        return [
            msg.headers["Nats-Msg-Id"]
            async for msg in scan(client, "EVENTS", subjects=["evt.*.load.test"])
            if msg.headers
        ]
