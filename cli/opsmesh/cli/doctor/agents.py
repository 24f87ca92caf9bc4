"""What `doctor` says of coding agents: calls of their hooks that told nothing, and lines of Codex'
files that were not understood. Neither the agent nor the producer stops for them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from opsmesh.cli.doctor.checks import Check
from opsmesh.producers.agents import failures
from opsmesh.producers.memory import Memory

HOOKS, CODEX = "agents' hooks", "codex' files"
#: Kinds of lines that are named.
NAMED = 3


def hooks() -> Iterator[Check]:
    """Calls of the last day that told nothing; nothing is said where there were none."""
    found = failures.recent(time.time())
    if found:
        at, what = found[-1]
        moment = time.strftime("%H:%M:%S", time.localtime(at))
        detail = f"{len(found)} calls of the last day told nothing, the last at {moment}: {what}"
        yield Check(check=HOOKS, ok=False, detail=detail, fix=f"see {failures.path()}")


def codex() -> Iterator[Check]:
    """Lines that were not understood: Codex is newer than we know it."""
    unknown = Memory("codex").load().get("unknown")
    if not isinstance(unknown, dict) or not unknown:
        return
    kinds = sorted(unknown, key=lambda kind: -int(unknown[kind]))
    more = f" and {len(kinds) - NAMED} other kinds" if len(kinds) > NAMED else ""
    detail = f"not understood: {', '.join(kinds[:NAMED])}{more} ({sum(unknown.values())} lines)"
    fix = "a newer Codex: what else it does is told; see docs/producers/agents.md"
    yield Check(check=CODEX, ok=None, detail=detail, fix=fix)
