"""What hooks call, `opsmesh emit` and `opsmesh agent-hook`: the whole process, beside
`python -c pass`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from figure import Figure, FigureError, Target
from lab import Lab, agent, environment, until
from samples import TOPIC

#: Seconds that one call may take.
LIMIT = 10.0
EMIT = ["emit", TOPIC, "tool=ruff", "count:=1", "path=src/shop/cart.py"]
#: What Claude Code says after a command.
RAN = {
    "session_id": "29c33d88-2ba8-47a6-b64a-68a79f76856d",
    "prompt_id": "e0427a5b-d5c0-4af3-87b8-80bc049402f8",
    "cwd": "/",
    "hook_event_name": "PostToolUse",
    "tool_name": "Bash",
    "tool_input": {"command": "make test", "description": "Run the tests"},
    "tool_response": {"stdout": "passed\n" * 500, "stderr": "", "interrupted": False},
    "duration_ms": 4711,
}


async def emit(lab: Lab) -> list[Figure]:
    """Milliseconds of one call: with an agent, and without one (into the spool)."""
    return await _calls(lab, "emit", EMIT, limit=1.25)


async def agent_hook(lab: Lab) -> list[Figure]:
    """The same of a coding agent's hook, with 4 KB of JSON on its standard input."""
    given = lab.folder / "ran.json"
    given.write_text(json.dumps(RAN))
    call = ["agent-hook", "--agent", "claude"]
    return await _calls(lab, "agent_hook", call, limit=1.75, given=given)


async def _calls(
    lab: Lab, name: str, arguments: list[str], *, limit: float, given: Path = Path(os.devnull)
) -> list[Figure]:
    amount = lab.amount(40, least=4)
    script = str(Path(sys.executable).with_name("opsmesh"))
    call = [script, *arguments]
    bare = [sys.executable, "-c", "pass"]
    alone = lab.folder / "alone"
    alone.mkdir()
    without = {**os.environ, **environment(alone)}
    async with agent():
        # 75 would say that the event waits in the spool: the agent is not through yet
        stored = [script, *EMIT, "--wait", "1"]
        await until(lambda: _run(stored, os.environ, allow=75) == 0, "the agent's broker")
        rounds: list[tuple[float, float, float]] = []
        for n in range(lab.rounds + 1):
            with_agent: list[float] = []
            to_spool: list[float] = []
            plain: list[float] = []
            for _ in range(amount if n else 2):
                with_agent.append(_timed(call, os.environ, given))
                plain.append(_timed(bare, os.environ))
                to_spool.append(_timed(call, without, given))
                await asyncio.sleep(0)  # an interrupt is heard between calls
            if n:  # the first calls warm the caches of the disk
                rounds.append((median(with_agent), median(to_spool), median(plain)))
    return [
        Figure(
            name=figure,
            what=f"opsmesh {arguments[0]}, whole process, {how}",
            unit="ms",
            ours=[ours[place] for ours in rounds],
            beside="python -c pass",
            plain=[plain for _, _, plain in rounds],
            target=Target(of="ratio", at="most", limit=limit),
            details={"calls_a_round": amount},
        )
        for place, figure, how in (
            (0, name, "stored by the agent"),
            (1, f"{name}_spool", "no agent: spool"),
        )
    ]


def _timed(command: Sequence[str], env: Mapping[str, str], given: Path = Path(os.devnull)) -> float:
    began = time.perf_counter()
    _run(command, env, given=given)
    return (time.perf_counter() - began) * 1e3


def _run(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    allow: int = 0,
    given: Path = Path(os.devnull),
) -> int:
    with given.open("rb") as stdin:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=stdin,
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
