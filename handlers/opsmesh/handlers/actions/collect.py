"""`collect`: an evidence bundle, which is a folder with a manifest of SHA-256 sums.

    collect: [unit_status, journal, {file: "~/.config/app.conf"}, {command: [git, status]}]

A bundle is there as a whole or not at all. What a collector could not get is written into the
manifest, and the bundle stands all the same: half of the evidence is better than none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, RootModel, model_validator

from opsmesh.handlers.actions import bundle, collectors
from opsmesh.handlers.actions.collectors import Collector
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.actions.environment import step_environment, write_event
from opsmesh.handlers.actions.spec import Argv, Duration, Spec, Text
from opsmesh.schemas.nearest import did_you_mean

#: The kinds that may be written as one word.
WORDS = ("journal", "unit_status", "unit_file")
#: Every kind of item.
KINDS = ("command", "file", *WORDS)


class JournalSpec(Spec):
    """Which lines of the journal; the unit is the event's own (`payload.unit`) unless given."""

    unit: Text | None = None
    since: Duration = collectors.JOURNAL_SINCE_S
    lines: Annotated[int, Field(ge=1, le=10_000)] = collectors.JOURNAL_LINES


class UnitSpec(Spec):
    """Which unit; the event's own (`payload.unit`) unless given."""

    unit: Text | None = None


class ItemSpec(Spec):
    """One thing to collect: exactly one kind, and a name for its file."""

    name: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$")] = None
    command: Argv | None = None
    timeout: Duration = collectors.TIMEOUT_S
    file: Text | None = None
    max_bytes: Annotated[int, Field(ge=1, le=bundle.MAX_FILE)] = bundle.DEFAULT_FILE
    journal: JournalSpec | None = None
    unit_status: UnitSpec | None = None
    unit_file: UnitSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in WORDS:
                raise ValueError(
                    f"{value!r} is not one of {', '.join(WORDS)}{did_you_mean(value, WORDS)}"
                )
            return {value: {}}
        if isinstance(value, dict):  # `journal:` with nothing after it is the plain word
            return {k: {} if k in WORDS and v is None else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"has {' and '.join(given) or 'none'} of {', '.join(KINDS)}; write one"
            )
        return self

    def collector(self) -> Collector:
        """What gets it."""
        if self.command is not None:
            return collectors.CommandOutput(self.command, name=self.name, timeout_s=self.timeout)
        if self.file is not None:
            return collectors.FileCopy(self.file, name=self.name, max_bytes=self.max_bytes)
        if self.journal is not None:
            return collectors.Journal(
                name=self.name,
                unit=self.journal.unit,
                since_s=self.journal.since,
                lines=self.journal.lines,
                timeout_s=self.timeout,
            )
        kind = "status" if self.unit_status is not None else "cat"
        chosen = self.unit_status or self.unit_file or UnitSpec()
        return collectors.Unit(kind, name=self.name, unit=chosen.unit, timeout_s=self.timeout)


class CollectSpec(RootModel[Annotated[list[ItemSpec], Field(min_length=1)]]):
    """The value of `collect`."""


class Collect:
    """Makes one bundle; `steps.<id>.path` is its folder."""

    key: ClassVar[str] = "collect"
    spec: ClassVar[type[CollectSpec]] = CollectSpec

    def __init__(self, spec: CollectSpec) -> None:
        self._spec = spec
        self._collectors: Sequence[Collector] = [item.collector() for item in spec.root]

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From a list of items, or one item."""
        return cls(CollectSpec.model_validate(value if isinstance(value, list) else [value]))

    def describe(self) -> dict[str, Any]:
        """The items written out."""
        return {"items": self._spec.model_dump(mode="json", exclude_none=True)}

    async def run(self, ctx: StepContext) -> StepResult:
        """Collect everything at once, then write the bundle."""
        folder, done = await asyncio.to_thread(bundle.place, ctx)
        if not done:
            env = step_environment(ctx, write_event(ctx))
            pieces = await asyncio.gather(*(c.collect(ctx, env) for c in self._collectors))
            await asyncio.to_thread(bundle.write, folder, ctx, pieces)
        manifest = await asyncio.to_thread(bundle.read_manifest, folder)
        files = manifest["files"]
        return StepResult(
            ok=True,
            output={
                "path": str(folder),
                "files": [file["name"] for file in files if file["sha256"]],
                "errors": [file["error"] for file in files if file["error"]],
            },
            evidence_path=str(folder),
        )
