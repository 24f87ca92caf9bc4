"""automation.slo.*: how profiles stand by their objectives."""

from __future__ import annotations

from typing import Annotated, Any, Final

from opsmesh.schemas.topics import Payload, Topic, doc


class AutomationSloChanged(Payload, frozen=True, kw_only=True):
    """An objective of a profile stands otherwise than before."""

    profile: Annotated[str, doc("name of the profile")]
    objective: Annotated[str, doc("latency_p50, latency_p95, latency_p99, success, …")]
    target: Annotated[float, doc("share of good runs that is wanted, 0 to 1")]
    good: Annotated[float, doc("share of good runs that there is, 0 to 1")]
    runs: Annotated[int, doc("runs that count, in the window")]
    bad: Annotated[int, doc("bad ones among them")]
    window_s: Annotated[float, doc("time that is looked back, seconds")]
    budget_left: Annotated[
        float | None, doc("share of the error budget that is left; below 0: overdrawn")
    ] = None
    burn_rate_1h: Annotated[
        float | None, doc("how fast it was spent in the last hour; 1: just enough")
    ] = None
    within_ms: Annotated[float | None, doc("limit of a latency, milliseconds")] = None
    value_ms: Annotated[float | None, doc("the latency at its percentile, milliseconds")] = None
    then: Annotated[str | None, doc("what the profile asks for: notify, pause or shadow")] = None
    did: Annotated[str | None, doc("the state that it was put into: disabled or shadow")] = None


_EXAMPLE: Final[dict[str, Any]] = {
    "profile": "triage-failed-service",
    "objective": "success",
    "target": 0.99,
    "good": 0.95,
    "runs": 40,
    "bad": 2,
    "window_s": 604800.0,
    "budget_left": -4.0,
    "burn_rate_1h": 5.0,
}

TOPICS: Final = (
    Topic(
        "automation.slo.breached",
        payload=AutomationSloChanged,
        owner="handlers",
        description="A profile's error budget is spent.",
        example={**_EXAMPLE, "then": "shadow", "did": "shadow"},
    ),
    Topic(
        "automation.slo.burning",
        payload=AutomationSloChanged,
        owner="handlers",
        severity="warn",
        description="A profile's error budget is being spent too fast.",
        example={**_EXAMPLE, "good": 0.992, "bad": 1, "budget_left": 0.2, "burn_rate_1h": 20.0},
    ),
    Topic(
        "automation.slo.recovered",
        payload=AutomationSloChanged,
        owner="handlers",
        severity="info",
        description="A profile is within its objective again.",
        example={**_EXAMPLE, "good": 1.0, "bad": 0, "budget_left": 1.0, "burn_rate_1h": 0.0},
    ),
)
