"""How soon a save with a finding is an event: the producer ruff, its pause included."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

from figure import Figure, FigureError, Target
from lab import Lab
from opsmesh.producers import environments
from opsmesh.producers.ruff.watching import SETTLE
from opsmesh.router import paths
from opsmesh.router.client import with_address

#: Milliseconds from a save to its event, at the median.
SOON: Final = 500.0
#: Seconds that one event may take.
LIMIT: Final = 30.0
#: Modules of the project, in folders of ten.
MODULES: Final = 200
CLEAN, BROKEN = "print(1)\n", "import os\n"


class Events:
    """A stand-in for the agent: takes events, and says when each came."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[float] = asyncio.Queue()
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self._came.put_nowait(time.perf_counter())
            answer = {"ok": True, "id": json.loads(line)["id"], "seq": 1}
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()
        self.gone.set()

    async def next(self) -> float:
        """When the next one came."""
        return await asyncio.wait_for(self._came.get(), LIMIT)


async def watched(lab: Lab) -> list[Figure]:
    """Milliseconds from a save to its event."""
    if environments.program("ruff", lab.folder) is None:
        raise FigureError("ruff is not installed")
    project, saves = lab.folder / "project", lab.amount(20, least=2)
    for number in range(MODULES):
        module = project / f"part{number // 10}/module{number}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(CLEAN)
    events, ours = Events(), list[float]()
    Path(paths.ingest_socket()).parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with_address(paths.ingest_socket(), listener.bind)
    command = [sys.executable, "-m", "opsmesh.producers.host", "ruff", "-o", f"path={project}"]
    async with await asyncio.start_unix_server(events.serve, sock=listener):
        module.write_text(BROKEN)  # the first event says that it watches
        producer = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        try:
            await events.next()
            for _ in range(lab.rounds):
                times = list[float]()
                for text in [CLEAN, BROKEN] * (saves // 2 or 1):
                    began = time.perf_counter()
                    module.write_text(text)
                    times.append((await events.next() - began) * 1e3)
                ours.append(median(times))
        finally:
            producer.terminate()
            await producer.wait()
            await asyncio.wait_for(events.gone.wait(), LIMIT)
    return [
        Figure(
            name="lint_watched",
            what=f"a save to its event, {SETTLE * 1e3:g} ms of it waiting for further ones",
            unit="ms",
            ours=ours,
            target=Target(of="value", at="most", limit=SOON),
            details={"saves": saves, "modules": MODULES},
        )
    ]
