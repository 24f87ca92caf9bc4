"""What each tool says is not as the source has it: by file, in the tool's own state letters.

The questions change nothing. yadm's is put to its repository through git, which is what
`yadm status` does, without the user's hooks.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from opsmesh.producers.ask import Answer, NoAnswer, ask
from opsmesh.producers.dotfiles import sources
from opsmesh.producers.dotfiles.sources import Source

#: States of stow's files, which has no letters: a link that is missing, or that something else
#: stands in the place of.
MISSING, CONFLICT = "missing", "conflict"

#: GNU stow 2.3 and 2.4 (Stow.pm, `conflict` and `do_link`).
_LINK = re.compile(r"^LINK: (.+?) => .*?( \(reverts previous action\))?$", re.MULTILINE)
_STOW_SAYS: Final = (
    re.compile(r"^  \* existing target is [^:]*: (.+?)(?: => .*)?$", re.MULTILINE),
    re.compile(r"^  \* cannot stow .*? over existing \S*\s?target (.+?)(?: since .*)?$", re.M),
    re.compile(r"^  \* source is an absolute symlink (.+?) => .*$", re.MULTILINE),
)


def find(source: Source, packages: Collection[str] = ()) -> dict[str, str]:
    """State by file, as the tool names it; NoAnswer when the tool does not say.

    `packages`: of stow's, those to ask for.
    """
    if source.tool == sources.STOW:
        return _stow(source, packages)
    if source.tool == sources.CHEZMOI:
        quiet = ["--no-tty", "--no-pager", "--color=false", "--refresh-externals=never"]
        answer = ask(["chezmoi", "--source", source.path, *quiet, "status"])
        return of_chezmoi(_good(answer, "chezmoi status").decode("utf-8", "backslashreplace"))
    answer = ask([*git(source), "status", "--porcelain=v1", "-z", "--no-renames"])
    return of_git(_good(answer, "git status"))


def git(source: Source) -> list[str]:
    """git for the source's repository. No fsmonitor: it would start a daemon of the user's."""
    if source.work_tree:
        where = ["--git-dir", source.path, "--work-tree", source.work_tree]
        # as yadm sets it: else every file of the home folder would be an untracked one
        untracked = ["-c", "status.showUntrackedFiles=no"]
        return ["git", "-C", source.work_tree, *where, "-c", "core.fsmonitor=false", *untracked]
    return ["git", "-C", source.path, "-c", "core.fsmonitor=false"]


def tracked(source: Source) -> list[str]:
    """The files below the work tree that the source's repository tracks."""
    listed = _good(ask([*git(source), "ls-files", "-z"]), "git ls-files")
    return [name.decode("utf-8", "surrogateescape") for name in listed.split(b"\0") if name]


def revision(source: Source) -> str | None:
    """The source's commit; None when it has none."""
    try:
        answer = ask([*git(source), "rev-parse", "--verify", "-q", "HEAD"], limit=5.0)
    except NoAnswer:
        return None
    return answer.output.decode("ascii", "replace").strip() or None if answer.status == 0 else None


def of_git(output: bytes) -> dict[str, str]:
    """`git status --porcelain=v1 -z --no-renames`: two letters, a space, the path as it is."""
    return {
        entry[3:].decode("utf-8", "backslashreplace"): entry[:2].decode("ascii", "replace")
        for entry in output.split(b"\0")
        if len(entry) > 3 and entry[2:3] == b" "
    }


def of_chezmoi(output: str) -> dict[str, str]:
    """`chezmoi status`: two letters, a space, the path below the home folder."""
    return {
        line[3:]: line[:2]
        for line in output.split("\n")
        if len(line) > 3 and line[2] == " " and set(line[:2]) <= set(" ADMR") and line[:2] != "  "
    }


def of_stow(said: str) -> dict[str, str]:
    """`stow -n -v`: links that it would make, and conflicts that keep it from it."""
    # to restow is to unlink and link again; what it says so of is in place
    found = {path: MISSING for path, again in _LINK.findall(said) if not again}
    return found | dict.fromkeys(conflicts(said), CONFLICT)


def conflicts(said: str) -> list[str]:
    """The files that stow could not put a link at."""
    return sorted({path for pattern in _STOW_SAYS for path in pattern.findall(said)})


def written(said: str) -> list[str]:
    """The links that stow (-v) says it made."""
    return sorted({path for path, again in _LINK.findall(said) if not again})


def _stow(source: Source, packages: Collection[str]) -> dict[str, str]:
    """A conflict hides what the other packages lack: stow drops all of it. So each is asked."""
    found: dict[str, str] = {}
    for package in sorted(packages):
        # in its folder, with no -d and no -t: .stowrc says the rest
        answer = ask(["stow", "-n", "-v", package], cwd=source.path)
        here = of_stow(answer.said)
        if answer.status != 0 and not here:
            raise NoAnswer(f"stow: {answer.said.strip()[:300] or answer.status}")
        found |= here
    return found


def _good(answer: Answer, what: str) -> bytes:
    if answer.status != 0:
        raise NoAnswer(f"{what}: {answer.said.strip()[:300] or f'exit code {answer.status}'}")
    return answer.output
