"""Checks that change something: a unit is restarted, configuration applied; one at a time.

They have to reach what a sandbox hides (systemd, the home), so they have none: what is started is a
fixed command line with a name from the allow-list, or a command that the user wrote.
"""

from __future__ import annotations

import asyncio
import fnmatch
import sys
from typing import Annotated, Final, Literal

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult
from pydantic import Field

from opsmesh.handlers import process
from opsmesh.handlers.checks import allowed, program
from opsmesh.handlers.checks.allowed import NotOnTheList
from opsmesh.handlers.checks.outcome import Ended, facts, started, told
from opsmesh.handlers.mcp_serve.answers import Marked, Refused
from opsmesh.handlers.process import ProcessResult
from opsmesh.router.settings import Settings
from opsmesh.schemas.redact import Redactor

#: What `opsmesh dotfiles apply` says when a check failed, and nothing was applied (EX_DATAERR).
CHECK_FAILED: Final = 65
#: Seconds that a question to systemd may take.
ASK_S: Final = 10.0


class Restarted(Ended):
    """A unit after its restart."""

    unit: str
    manager: Literal["user", "system"]
    active: str
    sub: str
    result: str


class Applied(Ended):
    """What an apply did."""

    name: str
    outcome: Literal["applied", "check failed: nothing was applied", "failed"]


class ActingTools:
    """They are on record before they act."""

    def __init__(self, settings: Settings, redactor: Redactor) -> None:
        self._settings = settings
        self._section = settings.checks
        self._redactor = redactor
        self._one = asyncio.Lock()

    async def restart_unit(
        self,
        ctx: Context,
        unit: Annotated[str, Field(max_length=256, description="like backup.service")],
        manager: Literal["user", "system"] = "user",
    ) -> Annotated[CallToolResult, Marked[Restarted]]:
        """Restart an allowed systemd unit, and tell how it is afterwards."""
        section = self._section.restart
        patterns = section.user if manager == "user" else section.system
        setting = f"checks.restart.{manager}"
        name = allowed.unit(unit, patterns, setting=setting)
        before = await self._unit(manager, name)
        # a name may be another unit's too: what is restarted has to be on the list
        real = before.get("Id", "")
        if before.get("LoadState") != "loaded":
            raise Refused(f"{name} is {before.get('LoadState') or 'unknown'}", hint=f"{setting}")
        if not any(fnmatch.fnmatchcase(real, pattern) for pattern in patterns):
            raise NotOnTheList(f"{name} is really {real}, which may not be restarted", hint=setting)
        argv = ["systemctl", f"--{manager}", "--no-ask-password", "restart", "--", real]
        async with self._one:
            ended = await started(lambda: self._plain(argv, self._section.timeout))
            after = await self._unit(manager, real)
        return told(
            Restarted(
                **facts(ended),
                unit=real,
                manager=manager,
                active=after.get("ActiveState", ""),
                sub=after.get("SubState", ""),
                result=after.get("Result", ""),
            ),
            self._redactor,
        )

    async def apply_config(
        self,
        ctx: Context,
        name: Annotated[str, Field(max_length=64, description="the name in checks.config")],
    ) -> Annotated[CallToolResult, Marked[Applied]]:
        """Apply configuration with an allowed command, behind the user's own checks: when one
        fails, nothing is applied."""
        chosen = allowed.named(
            name, self._section.config, setting="checks.config", example="{dots: [chezmoi, apply]}"
        )
        if not self._settings.dotfiles.checks:
            raise NotOnTheList(
                "there are no checks, and nothing is applied for an agent without one",
                hint='a person can write some into config.yaml: dotfiles: {checks: [[zsh, "-n", '
                '"~/.zshrc"]]}',
            )
        argv = [
            *(sys.executable, "-m", "opsmesh.cli.entry", "dotfiles", "apply", "--"),
            *self._section.config[chosen],
        ]
        async with self._one:
            await ctx.report_progress(0, None, f"applying {chosen}")
            ended = await started(lambda: self._plain(argv, self._section.timeout))
        return told(
            Applied(
                **facts(ended),
                name=chosen,
                outcome="applied"
                if ended.ok
                else "check failed: nothing was applied"
                if ended.exit_code == CHECK_FAILED
                else "failed",
            ),
            self._redactor,
        )

    async def _unit(self, manager: str, name: str) -> dict[str, str]:
        wanted = "Id,LoadState,ActiveState,SubState,Result"
        argv = ["systemctl", f"--{manager}", "show", f"--property={wanted}", "--", name]
        ended = await started(lambda: self._plain(argv, ASK_S))
        if not ended.ok:
            reason = ended.stderr_tail.strip()[:300] or f"exit code {ended.exit_code}"
            raise Refused(
                f"systemd does not answer: {reason}", hint=f"systemctl --{manager} status"
            )
        pairs = (line.partition("=") for line in ended.stdout_tail.splitlines())
        return {key: value for key, _, value in pairs}

    async def _plain(self, argv: list[str], timeout_s: float) -> ProcessResult:
        """A program that has to reach what a sandbox hides."""
        return await process.run(
            argv,
            env=process.minimal_environment(),
            timeout=timeout_s,
            output_limit=program.OUTPUT,
        )
