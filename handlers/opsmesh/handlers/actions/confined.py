"""The keys of a program that runs confined, and how it is run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from opsmesh.handlers import process
from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.actions.environment import PREFIX, step_environment
from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.process import ProcessResult
from opsmesh.handlers.sandbox.confinement import Confinement, Kind
from opsmesh.handlers.sandbox.prepare import Step, ready
from opsmesh.handlers.template import OUTSIDE, Template

#: Bytes of memory with which a program can still say what is wrong.
MIN_MEMORY: Final = 4 * 2**20

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:iB|B)?")
_POWER: Final = {"K": 10, "M": 20, "G": 30, "T": 40}
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def _memory(value: Any) -> int:
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is no size; write it with its unit, like 512M or 2G")
    size: int = round(float(found[1]) * 2 ** _POWER[found[2]])
    if size < MIN_MEMORY:
        raise ValueError(f"{value!r} is less than any program needs")
    return size


def _cpu(value: Any) -> float:
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"{value!r} is no share; write it in percent of one processor, like 50%")
    return float(found[1])


def _yes_or_no(value: Any) -> Any:
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


def _not_from_events(value: str) -> str:
    if Template(value).names & OUTSIDE:
        raise ValueError("what a sandbox lets through cannot come from an event")
    return value


ShownPath = Annotated[Text, AfterValidator(_not_from_events)]


class Confined(Spec):
    """What a program may reach and use."""

    sandbox: Annotated[
        Kind,
        Field(
            description="none: whatever its user may; bwrap: its own folder, the system's programs "
            "and what is declared; systemd: a service with a read-only system and no homes."
        ),
    ] = "none"
    read: list[ShownPath] = Field(default=[], description="Paths that it may read too.")
    write: list[ShownPath] = Field(default=[], description="Paths that it may write too.")
    network: Annotated[
        Literal["yes", "no"] | None,
        BeforeValidator(_yes_or_no),
        Field(description="Whether a sandbox has a network; no, unless it is said."),
    ] = None
    memory: Annotated[
        int | None,
        BeforeValidator(lambda value: None if value is None else _memory(value)),
        WithJsonSchema({"type": "string", "examples": ["512M", "2G"]}),
    ] = None
    cpu: Annotated[
        float | None,
        BeforeValidator(lambda value: None if value is None else _cpu(value)),
        WithJsonSchema({"type": "string", "examples": ["50%", "200%"]}),
    ] = None
    tasks: Annotated[int | None, Field(ge=1, le=1_000_000)] = None

    @model_validator(mode="after")
    def _needs_a_sandbox(self) -> Self:
        given = [key for key in ("read", "write") if getattr(self, key)]
        if self.network == "no":
            given.append("network")
        if self.sandbox == "none" and given:
            raise ValueError(
                f"{' and '.join(given)} {'mean' if len(given) > 1 else 'means'} nothing without a "
                "sandbox; write sandbox: bwrap or systemd"
            )
        return self

    def confinement(self) -> Confinement:
        """The facts, with paths as they are written."""
        return Confinement(
            kind=self.sandbox,
            read=tuple(self.read),
            write=tuple(self.write),
            network=self.network == "yes",
            memory=self.memory,
            cpu=self.cpu,
            tasks=self.tasks,
        )


async def run(
    argv: list[str],
    confinement: Confinement,
    ctx: StepContext,
    *,
    event_file: Path,
    extra: Mapping[str, str],
    cwd: Path,
    stdin: Path | bytes | None,
    output_limit: int,
) -> ProcessResult:
    """Run a program of a step to its end; Unstartable when it, or its sandbox, cannot be had."""
    env = step_environment(ctx, event_file, extra)
    own = frozenset([*extra, *(name for name in env if name.startswith(PREFIX))])
    step = Step(run_id=ctx.run_id, step_id=ctx.step_id, workdir=ctx.workdir, timeout=ctx.timeout)
    paths = _rendered(confinement, ctx)
    async with ready(argv, paths, step, env=env, own=own, cwd=cwd) as made:
        return await process.run(
            made.argv,
            env=made.env,
            cwd=cwd,
            stdin=stdin,
            timeout=ctx.timeout,
            output_limit=output_limit,
            unit=made.unit,
        )


def _rendered(confinement: Confinement, ctx: StepContext) -> Confinement:
    """With its paths as they are for this run: `vars` and `host` may stand in them."""

    def texts(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(Template(path).render_text(ctx.variables) for path in paths)

    return replace(confinement, read=texts(confinement.read), write=texts(confinement.write))
