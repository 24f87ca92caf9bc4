"""`git_state`: where a repository stands, and what was changed in it.

A repository is a stranger's: its own configuration could name programs that git then runs. Each way
in which reading could start one is closed here: fsmonitor, pager, external diffs, text conversions,
filters (`clean` runs to see whether a file was changed), signature checks, submodules, and fetching
of what a partial clone has not got. A repository of another user's stays closed (safe.directory).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.subject import folder_of
from opsmesh.handlers.process import ProcessResult

#: Settings that a repository's own file would otherwise decide; git(1): -c comes last.
CLOSED: Final = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "core.untrackedCache=false",
    "diff.external=",
    "log.showSignature=false",
    "gpg.program=false",
    "core.sshCommand=false",
    "credential.helper=",
    "protocol.allow=never",
    "safe.bareRepository=explicit",
    "submodule.recurse=false",
    "diff.ignoreSubmodules=all",
    "color.ui=false",
)
#: Commits that are listed since the reference.
COMMITS: Final = 50

_FILTER = re.compile(r"filter\.(.+)\.(?:clean|smudge|process|required)", re.DOTALL)
_REF = re.compile(r"[A-Za-z0-9@^~{}/._-]{1,200}")


class GitStateSpec(Spec):
    """Which repository; the folder that the event is about unless given."""

    path: Text | None = None
    since: Annotated[
        Text | None, Field(description="A commit, tag or branch: what has come since, too.")
    ] = None
    diff: Annotated[bool, Field(description="The changes themselves, not only their sizes.")] = True


class GitState:
    """`git_state.txt`: HEAD, branch, status, sizes of changes; `git_state.diff`: the changes."""

    key: ClassVar[str] = "git_state"
    spec: ClassVar[type[GitStateSpec]] = GitStateSpec

    def __init__(self, spec: GitStateSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        git = await Git.open(request, folder_of(request, self._spec.path))
        head = await git.text("rev-parse", "--verify", "--quiet", "HEAD^{commit}", empty=True)
        status = await git.text(*STATUS)
        facts: dict[str, Any] = {
            "folder": str(git.top),
            "head": head.strip() or None,
            **_read_status(status),
        }
        text = f"folder {git.top}\n"
        base = "HEAD" if head else await git.text("hash-object", "-t", "tree", "/dev/null")
        if head:
            text += await git.text("log", "-1", "--no-decorate", f"--format={COMMIT}", "HEAD")
        text += "\n" + status
        text += "\n" + await git.text(*DIFF, "--stat=120", base.strip(), "--")
        pieces: list[Piece] = []
        since = request.render(self._spec.since) if self._spec.since is not None else ""
        if since:
            commit = await git.commit(since)
            facts["since"] = commit
            limit = f"--max-count={COMMITS}"
            text += f"\nsince {since} ({commit[:12]})\n"
            text += await git.text("log", limit, f"--format={COMMIT}", f"{commit}..HEAD", "--")
            text += await git.text(*DIFF, "--stat=120", commit, "--")
            base = commit
        pieces.append(request.piece(text, path=str(git.top), facts=facts))
        if self._spec.diff:
            ended = await git.run(*DIFF, base.strip(), "--")
            error = None if ended.ok else _why(ended)
            pieces.append(
                request.beside(ended.stdout, ".diff", truncated=ended.truncated, error=error)
            )
        return pieces


#: Arguments of `git status`, whose first lines say branch and upstream.
STATUS: Final = ("status", "--porcelain=v2", "--branch", "--ignore-submodules=all")
#: Arguments of every `git diff`.
DIFF: Final = ("diff", "--no-ext-diff", "--no-textconv", "--ignore-submodules=all", "--no-color")
#: A commit in one line.
COMMIT: Final = "%h %cI %an: %s"


class Git:
    """git on one repository, with everything closed that could start a program."""

    def __init__(self, request: Request, top: Path, filters: Sequence[str]) -> None:
        self._request = request
        self.top = top
        # an empty filter lets everything pass
        self._options = [
            part
            for name in filters
            for key in ("clean=", "smudge=", "process=", "required=false")
            for part in ("-c", f"filter.{name}.{key}")
        ]

    @classmethod
    async def open(cls, request: Request, folder: Path) -> Git:
        """The repository that the folder is in; Unavailable when it is in none."""
        bare = cls(request, folder, ())
        top = (await bare.text("rev-parse", "--show-toplevel")).removesuffix("\n")
        if not Path(top, ".git").exists():  # core.worktree can name any folder of this machine
            raise Unavailable(f"the repository of {folder} has its files elsewhere")
        # reading configuration starts nothing
        names = (await bare.text("config", "--list", "--name-only", "-z")).split("\0")
        filters = {found[1] for name in names if (found := _FILTER.fullmatch(name))}
        if any("=" in name or "\n" in name for name in filters):
            raise Unavailable("a filter of this repository has a name that cannot be switched off")
        return cls(request, Path(top), sorted(filters))

    async def run(self, *arguments: str) -> ProcessResult:
        """One command, as it ended."""
        closed = [part for setting in CLOSED for part in ("-c", setting)]
        argv = ["git", "--no-pager", "--no-optional-locks", "-C", str(self.top)]
        env = {
            **self._request.env,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_ASKPASS": "false",
            "SSH_ASKPASS": "false",
            "LC_ALL": "C.UTF-8",
        }
        return await self._request.run([*argv, *closed, *self._options, *arguments], env=env)

    async def text(self, *arguments: str, empty: bool = False) -> str:
        """What one command says; with `empty` nothing where it fails, else Unavailable."""
        ended = await self.run(*arguments)
        if not ended.ok:
            if empty:
                return ""
            raise Unavailable(_why(ended))
        return ended.stdout_tail

    async def commit(self, ref: str) -> str:
        """The full name of the commit that `ref` means."""
        if not _REF.fullmatch(ref) or ref.startswith("-"):
            raise Unavailable(f"{ref[:80]!r} is not the name of a commit")
        found = await self.text("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", empty=True)
        if not found:
            raise Unavailable(f"{ref!r} is no commit here")
        return found.strip()


def _why(ended: ProcessResult) -> str:
    lines = ended.stderr_tail.strip().splitlines()
    if ended.timed_out:
        return "git took too long"
    return f"git: {lines[0] if lines else f'exit code {ended.exit_code}'}"[:400]


def _read_status(text: str) -> dict[str, Any]:
    """What `status --porcelain=v2 --branch` says, in numbers."""
    facts: dict[str, Any] = {"branch": None, "changed": 0, "untracked": 0, "unmerged": 0}
    for line in text.splitlines():
        if line.startswith("# branch.head "):
            facts["branch"] = line.removeprefix("# branch.head ")
        elif line.startswith("# branch.upstream "):
            facts["upstream"] = line.removeprefix("# branch.upstream ")
        elif line.startswith("# branch.ab "):
            facts["ahead_behind"] = line.removeprefix("# branch.ab ")
        elif line.startswith(("1 ", "2 ")):
            facts["changed"] += 1
        elif line.startswith("? "):
            facts["untracked"] += 1
        elif line.startswith("u "):
            facts["unmerged"] += 1
    facts["clean"] = not (facts["changed"] or facts["untracked"] or facts["unmerged"])
    return facts
