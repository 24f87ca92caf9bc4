"""What a program that a step starts finds in its environment: little, and no secret of the mesh."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.process import minimal_environment

#: Variables with this prefix are set by opsmesh alone.
PREFIX = "OPSMESH_"
#: Bytes of a session or a workspace, at most: as long as a path can be (PATH_MAX).
LONGEST = 4096


def step_environment(
    ctx: StepContext, event_file: Path, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The minimal environment, what the profile adds, and the facts of this step."""
    return {
        **minimal_environment(),
        **(extra or {}),
        "OPSMESH_EVENT": str(event_file),
        "OPSMESH_EVENT_ID": ctx.event.id,
        "OPSMESH_CORRELATION_ID": ctx.event.correlation_id,
        # what the program says is caused by the event: a loop through programs ends like any other
        "OPSMESH_HOPS": str(ctx.event.hops + 1),
        # and is of the same session and project
        "OPSMESH_SESSION": _fitting(ctx.event.session_id),
        "OPSMESH_WORKSPACE": _fitting(ctx.event.workspace),
        "OPSMESH_IDEMPOTENCY_KEY": ctx.idempotency_key,
        "OPSMESH_ATTEMPT": str(ctx.attempt),
        "OPSMESH_PROFILE": ctx.profile,
        "OPSMESH_RUN_ID": ctx.run_id,
    }


def _fitting(text: str) -> str:
    """A stranger's text, or nothing where it would keep the program from being started."""
    return "" if "\0" in text or len(text.encode()) > LONGEST else text


def write_event(ctx: StepContext) -> Path:
    """A file with the event's original bytes, for its owner alone."""
    path = ctx.workdir / f"{ctx.step_id}.event.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(ctx.data)
    return path
