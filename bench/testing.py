"""What the pytest plug-in and `opsmesh exec` add to runs of tests: whole processes, with and
without."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from sys import executable

from figure import Figure, FigureError, Target
from lab import Lab, agent, environment
from opsmesh.producers.exec import bridge

#: Tests of a run, and how many of them fail where some do.
TESTS, FAILING = 200, 20
#: Seconds that one run may take.
LIMIT = 60.0
#: What may be added to a run.
MOST = Target(of="ratio", at="most", limit=1.1)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A command with us and the same without; both end with this code."""

    name: str
    what: str
    command: Sequence[str]
    code: int
    ours: Mapping[str, str]
    plain: Mapping[str, str]
    off: Sequence[str] = ()
    target: Target | None = MOST


async def runs(lab: Lab) -> list[Figure]:
    """Milliseconds of each command of `_pairs`."""
    amount = lab.amount(4, least=1)
    alone = lab.folder / "alone"
    alone.mkdir()
    pairs = _pairs(environment(alone))
    rounds: dict[str, list[tuple[float, float]]] = {pair.name: [] for pair in pairs}
    async with agent():
        project = _project(lab.folder)
        for n in range(lab.rounds + 1):
            for pair in pairs:
                times: list[tuple[float, float]] = []
                for _ in range(amount if n else 1):
                    ours = _timed(pair.command, pair.ours, project, pair.code)
                    plain = _timed([*pair.command, *pair.off], pair.plain, project, pair.code)
                    times.append((ours, plain))
                    await asyncio.sleep(0)  # an interrupt is heard between runs
                if n:  # the first ones write byte code
                    ours, plain = (median(side) for side in zip(*times, strict=True))
                    rounds[pair.name].append((ours, plain))
    if not any((alone / "state/opsmesh/spool").glob("*.spool")):
        raise FigureError("the plug-in did not do what it is for")
    return [
        Figure(
            name=pair.name,
            what=pair.what,
            unit="ms",
            ours=[ours for ours, _ in rounds[pair.name]],
            beside="the same without us",
            plain=[plain for _, plain in rounds[pair.name]],
            target=pair.target,
            details={"runs_a_round": amount, "tests": TESTS},
        )
        for pair in pairs
    ]


def _pairs(spool: Mapping[str, str]) -> list[Pair]:
    """pytest where all pass, where some fail, with an agent and with the spool alone; unittest, and
    a Python that runs no tests, below exec."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PY")}
    below = {**bare, "PYTHONPATH": str(bridge.folder())}
    pytest = [executable, "-m", "pytest", "-q", "--tb=short"]
    off = ["-p", "no:pytest_opsmesh"]
    return [
        Pair(
            name="pytest_pass",
            what=f"pytest, {TESTS} tests pass",
            command=[*pytest, "test_good.py"],
            code=0,
            ours=bare,
            plain=bare,
            off=off,
        ),
        Pair(
            name="pytest_fail",
            what=f"pytest, {FAILING} of {TESTS} fail",
            command=[*pytest, "test_some.py"],
            code=1,
            ours=bare,
            plain=bare,
            off=off,
        ),
        Pair(
            name="pytest_spool",
            what=f"pytest, {FAILING} of {TESTS} fail, no agent: spool",
            command=[*pytest, "test_some.py"],
            code=1,
            ours={**bare, **spool},
            plain={**bare, **spool},
            off=off,
        ),
        Pair(
            name="unittest_fail",
            what=f"unittest below exec, {FAILING} of {TESTS} fail",
            command=[executable, "-m", "unittest", "-q", "cases"],
            code=1,
            ours=below,
            plain=bare,
            target=None,  # a tenth of a second in all: the wait for the agent's disk is seen
        ),
        Pair(
            name="below_exec",
            what="python -c pass below exec",
            command=[executable, "-c", "pass"],
            code=0,
            ours=below,
            plain=bare,
        ),
    ]


def _project(folder: Path) -> Path:
    project = folder / "project"
    project.mkdir()
    for name, failing in (("good", 0), ("some", FAILING)):
        tests = (f"def test_{n}():\n    assert {n} >= {failing}\n" for n in range(TESTS))
        (project / f"test_{name}.py").write_text("\n".join(tests))
    cases = (
        f"    def test_{n}(self):\n        self.assertGreaterEqual({n}, {FAILING})\n"
        for n in range(TESTS)
    )
    head = "import unittest\n\nclass Cases(unittest.TestCase):\n"
    (project / "cases.py").write_text(head + "\n".join(cases))
    return project


def _timed(command: Sequence[str], env: Mapping[str, str], cwd: Path, code: int) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    took = (time.perf_counter() - began) * 1e3
    if done.returncode != code:
        raise FigureError(f"{' '.join(command[1:4])} ended with code {done.returncode}")
    return took
