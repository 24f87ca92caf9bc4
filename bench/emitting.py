"""`opsmesh emit` as a hook calls it: the whole process, beside `python -c pass`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from figure import Figure, FigureError, Target
from lab import Lab, broker, check_runs, connected, environment, process, until
from opsmesh.router import paths
from samples import TOPIC

#: Seconds that one call may take.
LIMIT = 10.0


async def emit(lab: Lab) -> list[Figure]:
    """Milliseconds of one call: with an agent, and without one (into the spool)."""
    amount = lab.amount(40, least=4)
    script = str(Path(sys.executable).with_name("opsmesh"))
    call = [script, "emit", TOPIC, "tool=ruff", "count:=1", "path=src/shop/cart.py"]
    bare = [sys.executable, "-c", "pass"]
    alone = lab.folder / "alone"
    alone.mkdir()
    without = {**os.environ, **environment(alone)}
    with broker():
        async with connected():
            pass  # the streams are there
        with process("agent") as agent:

            def listening() -> bool:
                check_runs(agent)
                return os.path.exists(paths.ingest_socket())  # noqa: PTH110

            await until(listening, "the agent's socket")
            # 75 would say that the event waits in the spool: the agent is not through yet
            stored = [*call, "--wait", "1"]
            await until(lambda: _run(stored, os.environ, allow=75) == 0, "the agent's broker")
            rounds: list[tuple[float, float, float]] = []
            for n in range(lab.rounds + 1):
                with_agent: list[float] = []
                to_spool: list[float] = []
                plain: list[float] = []
                for _ in range(amount if n else 2):
                    with_agent.append(_timed(call, os.environ))
                    plain.append(_timed(bare, os.environ))
                    to_spool.append(_timed(call, without))
                    await asyncio.sleep(0)  # an interrupt is heard between calls
                if n:  # the first calls warm the caches of the disk
                    rounds.append((median(with_agent), median(to_spool), median(plain)))
    return [
        Figure(
            name=name,
            what=what,
            unit="ms",
            ours=[ours[place] for ours in rounds],
            beside="python -c pass",
            plain=[plain for _, _, plain in rounds],
            target=Target(of="ratio", at="most", limit=1.25),
            details={"calls_a_round": amount},
        )
        for place, name, what in (
            (0, "emit", "opsmesh emit, whole process, stored by the agent"),
            (1, "emit_spool", "opsmesh emit, whole process, no agent: spool"),
        )
    ]


def _timed(command: Sequence[str], env: Mapping[str, str]) -> float:
    began = time.perf_counter()
    _run(command, env)
    return (time.perf_counter() - began) * 1e3


def _run(command: Sequence[str], env: Mapping[str, str], *, allow: int = 0) -> int:
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Not wait(LIMIT): that looks at growing intervals, 16 ms and 32 ms after the start among them,
    # and would measure itself.
    limit = threading.Timer(LIMIT, process.kill)
    limit.start()
    try:
        code = process.wait()
    finally:
        limit.cancel()
    if code not in (0, allow):
        raise FigureError(f"`opsmesh {' '.join(command[1:])}` ended with code {code}")
    return code
