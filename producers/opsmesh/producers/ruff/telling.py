"""What is news at a look: findings that were not there at the last one, or that all are gone.

That some of several are mended is not told: it would be a failure told again for each that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from opsmesh.producers.remembered import News
from opsmesh.producers.ruff.findings import FAILED, PASSED, TOOL, Findings
from opsmesh.router import session


def news(before: Mapping[str, int] | None, now: Findings, path: Path) -> News | None:
    """The event that a look is; `before`: the keys of the last one, None when it is the first."""
    if new := now.new(before or {}):
        return _of(FAILED, now.payload(folder=str(path), new=new), path)
    if before and not now:
        payload = {"tool": TOOL, "folder": str(path), "mended": sum(before.values())}
        return _of(PASSED, payload, path)
    return None


def _of(topic: str, payload: dict[str, object], path: Path) -> News:
    return News(
        topic=topic, payload=payload, component=TOOL, workspace=session.workspace(str(path))
    )
