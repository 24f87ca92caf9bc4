"""What an agent's answer becomes: events in the story of the one that was sent to it.

Their ids are derived from the step and the state: an answer that is told again is the same event.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opsmesh.handlers.a2a import words
from opsmesh.handlers.a2a.asking import Outcome
from opsmesh.handlers.actions import caused
from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.errors import AgentFault
from opsmesh.router import paths
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import Event, Severity
from opsmesh.schemas.errors import PayloadError
from opsmesh.schemas.registry import load_registry

#: Severities of the states; others are a warning.
_SEVERITY: Final[dict[str, Severity]] = {"completed": "info", "failed": "error"}


@dataclass(frozen=True, kw_only=True)
class About:
    """Whom it is from: the agent's name in the settings, and what its card calls it."""

    agent: str
    card: str
    skill: str | None


def told(ctx: StepContext, outcome: Outcome, about: About) -> Event:
    """a2a.task.<state>"""
    standing = outcome.standing
    payload: dict[str, Any] = {
        "agent": about.agent,
        "state": standing.state,
        "context_id": ctx.event.correlation_id,
        "message_id": outcome.message_id,
        "task_id": standing.task_id,
        "skill": about.skill,
        "status_message": standing.said or None,
        "artifacts": standing.artifacts,
        "truncated": standing.truncated,
        "updates": outcome.updates or None,
        "duration_ms": outcome.duration_ms,
    }
    payload = {key: value for key, value in payload.items() if value is not None}
    severity = _SEVERITY.get(standing.state, "warn")
    topic = f"a2a.task.{standing.state}"
    return _event(ctx, about, topic, severity, payload, standing.mark)


def returned(ctx: StepContext, outcome: Outcome, about: About, topic: str) -> Event:
    """The first data that the agent made, as an event of the profile's choice. Its numbers, which
    have come as doubles, are what the topic's type says; AgentFault when it does not fit."""
    payload = outcome.standing.data
    if not isinstance(payload, dict):
        raise AgentFault(about.agent, f"it made no data that could be an event {topic}")
    registry = load_registry(Path(paths.config_dir(), "topics.yaml"))
    try:
        fitting = registry.check(topic, payload, coerce=True)
    except PayloadError as error:
        raise AgentFault(about.agent, f"what it made is no {topic}: {error}") from error
    return _event(ctx, about, topic, "info", payload if fitting is None else fitting, "")


def _event(
    ctx: StepContext,
    about: About,
    topic: str,
    severity: Severity,
    payload: dict[str, Any],
    mark: str,
) -> Event:
    name, _ = words.text(about.card, 80)
    step = (ctx.idempotency_key, str(ctx.attempt))
    return caused.event(
        ctx,
        topic,
        payload,
        severity=severity,
        id=ids.derived(ctx.event.ts_us // 1000, "a2a", *step, topic, mark),
        source=f"a2a:{' '.join(name.split()) or about.agent}",
        component=about.agent,
    )
