"""`slo:` of a profile: what its owner wants of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from opsmesh.handlers.actions.spec import Duration, Share, Spec
from opsmesh.handlers.slo.objectives import Objective, Policy

#: Over which time runs are looked at, unless a profile says otherwise: a week.
WINDOW_S: Final = 7 * 24 * 3600.0
#: Fewer runs than this conclude nothing.
MIN_RUNS: Final = 10
#: Percentiles that a latency can be wanted at.
PERCENTILES: Final = {"latency_p50": 0.5, "latency_p95": 0.95, "latency_p99": 0.99}

_Latency = Annotated[
    Duration | None,
    Field(gt=0, description="From an event's storing to its run's first step, at most."),
]


class SloSpec(Spec):
    """Objectives over a window of time, and what happens when one is missed."""

    latency_p50: _Latency = None
    latency_p95: _Latency = None
    latency_p99: _Latency = None
    success: Annotated[
        Share | None, Field(description="Share of runs that end well, like 99%.")
    ] = None
    false_positives: Annotated[
        Share | None, Field(description="Share of runs that may be judged a false positive.")
    ] = None
    window: Annotated[Duration, Field(ge=60, description="Time that is looked back.")] = WINDOW_S
    min_runs: Annotated[int, Field(ge=1, description="Fewer runs conclude nothing.")] = MIN_RUNS
    on_breach: Annotated[
        Literal["notify", "pause", "shadow"],
        Field(
            description="notify: an event, and a notification on the desktop; pause: and the "
            "profile is disabled, its events wait; shadow: and it decides without acting."
        ),
    ] = "notify"

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self._objectives():
            wanted = ", ".join((*PERCENTILES, "success", "false_positives"))
            raise ValueError(f"no objective; say one of {wanted}")
        return self

    def policy(self) -> Policy:
        """What `objectives` computes with."""
        return Policy(
            objectives=tuple(self._objectives()),
            window_us=round(self.window * 1e6),
            min_runs=self.min_runs,
            on_breach=self.on_breach,
        )

    def _objectives(self) -> list[Objective]:
        found = [
            Objective(name=name, kind="latency", target=share, within_us=round(limit * 1e6))
            for name, share in PERCENTILES.items()
            if (limit := getattr(self, name)) is not None
        ]
        if self.success is not None:
            found.append(Objective(name="success", kind="success", target=self.success))
        if self.false_positives is not None:
            target = 1.0 - self.false_positives
            found.append(Objective(name="false_positives", kind="false_positives", target=target))
        return found
