"""What a step does that only asks: nothing, once somebody has said yes."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from opsmesh.handlers.actions.contract import StepContext, StepResult


class Nothing:
    """The action of a step that has `approve:` and no other key."""

    key: ClassVar[str] = "approve"

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From nothing: what is asked belongs to the step."""
        return cls()

    def describe(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    async def run(self, ctx: StepContext) -> StepResult:
        """It was approved."""
        return StepResult(ok=True, output={})
