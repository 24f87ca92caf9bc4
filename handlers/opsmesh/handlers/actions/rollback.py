"""`rollback_config`: puts dotfiles back to the commit that was applied well last, and makes sure.

    rollback_config: {source: "", checks: [[zsh, -n, .zshrc]]}

History is not rewritten and nothing is lost: what the files are now, committed or not, is kept as
the commit `refs/opsmesh/before/<run>` first. Files that git does not track are left alone. Then
the tool applies, and the result is compared with the good commit.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field

from opsmesh.handlers.actions.arguments import Arguments
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.actions.environment import step_environment, write_event
from opsmesh.handlers.actions.spec import Argv, Spec, Text
from opsmesh.handlers.collectors import dotfiles_repo
from opsmesh.handlers.collectors.contract import Request, Unavailable
from opsmesh.handlers.collectors.dotfiles_repo import Repo, first_line
from opsmesh.handlers.errors import HandlersError, Unstartable

#: Seconds that one program may take.
PROGRAM_S: Final = 60.0
#: Where what was there before is kept, in the repository.
KEPT: Final = "refs/opsmesh/before/"


class RollbackSpec(Spec):
    """Where the source is, and what must pass afterwards."""

    source: Text = ""
    checks: Annotated[list[Argv], Field(max_length=20)] = Field(default_factory=list)


class RollbackConfig:
    """`steps.<id>`: `rolled_back`, `verified`, `to`, `before`, `why`, `folder`."""

    key: ClassVar[str] = "rollback_config"
    spec: ClassVar[type[RollbackSpec]] = RollbackSpec
    #: Half done and whole are the same to it: run again, it ends in the same commit.
    on_unknown: ClassVar[str] = "retry"

    def __init__(self, spec: RollbackSpec) -> None:
        self._spec = spec

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From a mapping; nothing is the tool's own source."""
        return cls(RollbackSpec.model_validate({} if value is None else value))

    def describe(self) -> dict[str, Any]:
        """The value written out, with its defaults."""
        return self._spec.model_dump(mode="json")

    async def run(self, ctx: StepContext) -> StepResult:
        """Keep what is there, put the good files in its place, apply, and look."""
        env = step_environment(ctx, write_event(ctx))
        request = Request(
            ctx=ctx, env=env, source=self.key, name=None, timeout_s=PROGRAM_S, max_bytes=256 * 1024
        )
        output: dict[str, Any] = {"rolled_back": False, "verified": False}
        try:
            repo = await dotfiles_repo.find(request, request.render(self._spec.source))
            good = await dotfiles_repo.last_good(repo)
            output |= {"folder": str(repo.root), "to": good}
            await _nothing_in_the_way(repo, good)
            output["before"] = await _keep(repo, ctx.run_id)
            await repo.text("restore", f"--source={good}", "--staged", "--worktree", "--", ":/")
            output["rolled_back"] = True
            await _apply(repo)
            await self._verify(repo, good)
        except HandlersError as error:
            output["why"] = str(error)
            return StepResult(ok=False, output=output, error=str(error), retryable=False)
        return StepResult(ok=True, output={**output, "verified": True, "why": ""})

    async def _verify(self, repo: Repo, good: str) -> None:
        ended = await repo.run("diff", "--quiet", "--no-ext-diff", good, "--")
        if not ended.ok:
            raise Unavailable(f"the files are not those of {good[:12]} after all")
        if repo.tool == "chezmoi":
            await _must(repo, ["chezmoi", "verify", "--no-tty"])
        for argv in self._spec.checks:
            await _must(repo, Arguments(argv).render(repo.request.ctx.variables))


async def _nothing_in_the_way(repo: Repo, good: str) -> None:
    """A file that git does not track, where the good commit has one, would be lost."""
    names = await repo.text(
        "diff", "--no-ext-diff", "--name-only", "-z", "--diff-filter=D", good, "--"
    )
    tracked = set((await repo.text("ls-files", "-z", "--full-name", ":/")).split("\0"))
    lost = [name for name in names.split("\0") if name and name not in tracked]
    lost = [name for name in lost if os.path.lexists(repo.root / name)]
    if lost:
        raise Unavailable(f"{lost[0]} is here and git does not track it: it would be overwritten")


async def _keep(repo: Repo, run_id: str) -> str:
    """The name under which everything that git tracks is kept as it is now."""
    stash = (await repo.text("stash", "create", "before opsmesh rolled back")).strip()
    commit = stash or (await repo.text("rev-parse", "HEAD")).strip()
    name = KEPT + re.sub(r"[^A-Za-z0-9-]", "-", run_id)
    # a second go of this step must not keep the half-done state in its place
    if not (await repo.run("rev-parse", "--verify", "--quiet", name)).ok:
        await repo.text("update-ref", name, commit)
    return name


async def _apply(repo: Repo) -> None:
    if repo.tool == "chezmoi":  # yadm's and git's files are the configuration itself
        await _must(repo, ["chezmoi", "apply", "--no-tty"])


async def _must(repo: Repo, argv: list[str]) -> None:
    try:
        ended = await repo.request.run(argv, cwd=repo.root)
    except Unstartable as error:
        raise Unavailable(f"{argv[0]}: {error.reason}") from None
    if not ended.ok:
        raise Unavailable(f"{' '.join(argv[:3])}: {first_line(ended)}")
