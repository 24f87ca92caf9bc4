"""`command`: run a program. No shell ever sees what an event holds.

command: [systemctl, --user, restart, "${{ event.payload.unit }}"]
command: {argv: [make, check], cwd: "${{ event.workspace }}", env: {CI: "1"}, stdin: event}
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field

from opsmesh.handlers.actions import confined
from opsmesh.handlers.actions.arguments import Arguments
from opsmesh.handlers.actions.confined import Confined
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.actions.environment import PREFIX, write_event
from opsmesh.handlers.actions.spec import Argv, SecretText, Spec, Text
from opsmesh.handlers.errors import SecretMissing, TemplateError, Unstartable
from opsmesh.handlers.process import ProcessResult
from opsmesh.handlers.template import Template

#: Bytes kept of each of standard output and standard error: they lie in the run's ledger entry.
OUTPUT_LIMIT: Final = 8 * 1024
#: Most that a profile may ask for; a ledger entry must stay well below the broker's 1 MiB.
MAX_OUTPUT_LIMIT: Final = 128 * 1024

#: Keys that came with sandboxes.
_LATER: Final = frozenset({*Confined.model_fields, "options_from_events"})

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ERROR_LINE: Final = 500


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        if name.startswith(PREFIX):
            raise ValueError(f"{name} is set by opsmesh; names with {PREFIX} are its own")
    return value


class StdinSpec(Spec):
    """What the program reads."""

    text: SecretText


class CommandSpec(Confined):
    """The value of `command`, written out."""

    argv: Argv
    cwd: Text | None = None
    env: Annotated[dict[str, SecretText], AfterValidator(_variables)] = Field(default_factory=dict)
    stdin: Literal["event", "none"] | StdinSpec = "none"
    options_from_events: bool = False
    output_limit: Annotated[int, Field(ge=0, le=MAX_OUTPUT_LIMIT)] = OUTPUT_LIMIT


class Command:
    """Runs a program in a process group of its own; exit code 0 is success."""

    key: ClassVar[str] = "command"
    spec: ClassVar[type[CommandSpec]] = CommandSpec

    def __init__(self, spec: CommandSpec) -> None:
        self._spec = spec
        self._arguments = Arguments(spec.argv, options=spec.options_from_events)
        self.confinement = spec.confinement()
        self._cwd = None if spec.cwd is None else Template(spec.cwd)
        self._env = {name: Template(text, secrets=True) for name, text in spec.env.items()}
        given = spec.stdin
        self._stdin = Template(given.text, secrets=True) if isinstance(given, StdinSpec) else None

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From an argument list, or a mapping with `argv`."""
        if isinstance(value, str):
            raise ValueError(  # noqa: TRY004 (pydantic's own form)
                f"must be a list of arguments, like {value.split()}; no shell splits text"
            )
        return cls(
            CommandSpec.model_validate({"argv": value} if isinstance(value, list) else value)
        )

    def describe(self) -> dict[str, Any]:
        """The value written out, with its defaults; of what confines it, what is not as usual: a
        profile that says nothing of that has the hash that it always had."""
        said = self._spec.model_dump(mode="json")
        usual = CommandSpec.model_fields
        return {
            key: value
            for key, value in said.items()
            if key not in _LATER or value != usual[key].get_default(call_default_factory=True)
        }

    async def run(self, ctx: StepContext) -> StepResult:
        """Run it to its end, or to the step's time limit."""
        try:
            argv = self._arguments.render(ctx.variables)
            extra = {name: await _filled(value, ctx) for name, value in self._env.items()}
            stdin = await self._input(ctx)
            cwd = ctx.workdir if self._cwd is None else self._folder(ctx)
            event_file = write_event(ctx)
            ended = await confined.run(
                argv,
                self.confinement,
                ctx,
                event_file=event_file,
                extra=extra,
                cwd=cwd,
                stdin=event_file if self._spec.stdin == "event" else stdin,
                output_limit=self._spec.output_limit,
            )
        except (SecretMissing, TemplateError, Unstartable) as error:
            return StepResult(ok=False, output={}, error=str(error), retryable=False)
        return _result(ended, ctx)

    async def _input(self, ctx: StepContext) -> bytes | None:
        if self._stdin is None:
            return None
        text = await _filled(self._stdin, ctx)
        return text.encode(errors="replace")

    def _folder(self, ctx: StepContext) -> Path:
        text = self._cwd.render_text(ctx.variables) if self._cwd else ""
        try:
            folder = Path(text).expanduser()
        except RuntimeError as error:  # ~ of a user that there is not
            raise Unstartable((), f"the working directory {text[:200]!r}: {error}") from None
        if not folder.is_absolute():
            raise Unstartable((), f"the working directory {text!r} is not an absolute path")
        return folder


async def _filled(template: Template, ctx: StepContext) -> str:
    """The text with its secrets, of which a keyring may take seconds to give one."""
    if not template.secrets:
        return template.render_text(ctx.variables)
    return await asyncio.to_thread(template.fill, ctx.variables, ctx.secrets.get)


def _result(ended: ProcessResult, ctx: StepContext) -> StepResult:
    # Before a part of it is cut out for the error: half a secret has no form to know it by.
    stdout, stderr = (
        ctx.redactor.text(text, context=ctx.place, path=path, cut=ended.truncated)
        for path, text in (("$.stdout", ended.stdout_tail), ("$.stderr", ended.stderr_tail))
    )
    return StepResult(
        ok=ended.ok,
        output={
            "stdout": stdout,
            "stderr": stderr,
            "truncated": ended.truncated,
            "signal": ended.signal,
            "duration_ms": ended.duration_ms,
        },
        exit_code=ended.exit_code,
        error=None if ended.ok else _error(ended, stderr, ctx),
        timed_out=ended.timed_out,
    )


def _error(ended: ProcessResult, stderr: str, ctx: StepContext) -> str:
    if ended.timed_out:
        return f"stopped after {ctx.timeout:g} s, the step's time limit"
    how = f"killed by {ended.signal}" if ended.signal else f"exit code {ended.exit_code}"
    lines = stderr.strip().splitlines()
    return f"{how}: {lines[-1][:_ERROR_LINE]}" if lines else how
