"""The repository that dotfiles come from, and git on it: which folder, which commit was good.

The repository is the user's own, and its filters (git-crypt, LFS) are part of what it says; hooks,
fsmonitor and pagers are not, and are off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opsmesh.handlers.actions.contract import Past
from opsmesh.handlers.collectors.contract import Request, Unavailable
from opsmesh.handlers.process import ProcessResult
from opsmesh.router.errors import RouterError

TOOLS: Final = ("chezmoi", "yadm", "git", "stow")
#: How far back an apply that went well is looked for: seconds.
LOOK_S: Final = 90 * 86400.0
_CLOSED: Final = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.pager=cat"),
    *("-c", "color.ui=false", "-c", "commit.gpgsign=false"),
)


@dataclass(frozen=True, kw_only=True)
class Repo:
    """git on the source of some dotfiles."""

    request: Request
    tool: str
    #: Where its files are.
    root: Path
    #: Apart from them, where the repository is.
    git_dir: Path | None = None

    async def run(self, *arguments: str) -> ProcessResult:
        """One git command, as it ended."""
        where = ["-C", str(self.root)]
        if self.git_dir is not None:
            where += [f"--git-dir={self.git_dir}", f"--work-tree={self.root}"]
        env = {**self.request.env, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
        for name in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{name}_NAME": "opsmesh", f"GIT_{name}_EMAIL": "opsmesh@localhost"}
        return await self.request.run(["git", "--no-pager", *where, *_CLOSED, *arguments], env=env)

    async def text(self, *arguments: str) -> str:
        """What a command says; Unavailable where it fails."""
        ended = await self.run(*arguments)
        if not ended.ok:
            raise Unavailable(f"git {arguments[0]}: {first_line(ended)}")
        return ended.stdout_tail


async def find(request: Request, source: str) -> Repo:
    """The repository of the tool that the event names, or the folder that the profile names."""
    tool = request.ctx.event.payload.get("tool")
    if tool not in TOOLS:
        raise Unavailable(f"{str(tool)[:40]!r} is not one of {', '.join(TOOLS)}")
    if source:
        try:
            root = Path(source).expanduser()
        except RuntimeError as error:  # ~ of a user that there is not
            raise Unavailable(f"the source {source[:80]!r}: {error}") from None
        if not root.is_absolute():
            raise Unavailable(f"the source {source!r} is not an absolute path")
        repo = Repo(request=request, tool=tool, root=root)
    elif tool == "chezmoi":
        root = Path(await _asked(request, ["chezmoi", "source-path"]))
        repo = Repo(request=request, tool=tool, root=root)
    elif tool == "yadm":
        git_dir = Path(await _asked(request, ["yadm", "introspect", "repo"]))
        repo = Repo(request=request, tool=tool, root=Path.home(), git_dir=git_dir)
    else:
        raise Unavailable(f"where {tool} has its files is not known here: set 'source'")
    if repo.git_dir is None:
        top = (await repo.text("rev-parse", "--show-toplevel")).strip()
        repo = Repo(request=request, tool=tool, root=Path(top))
    return repo


async def last_good(repo: Repo) -> str:
    """The commit of the last apply that went well, as the mesh has it; Unavailable without one."""
    ctx = repo.request.ctx
    try:
        past = Past(
            topics=["config.apply.completed"],
            since_us=ctx.event.ts_us - round(LOOK_S * 1e6),
            until_us=ctx.event.ts_us,
            limit=100,
            host=ctx.event.host,
        )
        found = await ctx.recent(past)
    except (RouterError, TimeoutError) as error:
        raise Unavailable(f"the stream cannot be read: {error}") from None
    for event in reversed(found):
        revision: Any = event.payload.get("revision")
        if event.payload.get("tool") != repo.tool or not isinstance(revision, str):
            continue
        if not revision.isalnum() or not 7 <= len(revision) <= 64:
            continue
        ended = await repo.run("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        if ended.ok:
            return ended.stdout_tail.strip()
    raise Unavailable(
        f"no apply of {repo.tool} that went well is on record with a commit of this repository"
    )


def first_line(ended: ProcessResult) -> str:
    """Why a program failed, in one line."""
    lines = (ended.stderr_tail.strip() or ended.stdout_tail.strip()).splitlines()
    if ended.timed_out:
        return "took too long"
    return lines[0][:400] if lines else f"exit code {ended.exit_code}"


async def _asked(request: Request, argv: Sequence[str]) -> str:
    ended = await request.run(argv, timeout_s=10.0)
    text = ended.stdout_tail.strip()
    if not ended.ok or not text.startswith("/"):
        raise Unavailable(f"{' '.join(argv)}: {first_line(ended)}")
    return text
