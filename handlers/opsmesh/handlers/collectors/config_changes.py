"""`config_changes`: what was changed in the dotfiles since they were applied well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors import dotfiles_repo
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.git import COMMIT, COMMITS, DIFF


class ConfigChangesSpec(Spec):
    """Where the source is, where the tool itself does not say."""

    source: Text = ""


class ConfigChanges:
    """Commits, sizes of changes and what is not committed; `.diff`: the changes."""

    key: ClassVar[str] = "config_changes"
    spec: ClassVar[type[ConfigChangesSpec]] = ConfigChangesSpec

    def __init__(self, spec: ConfigChangesSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        repo = await dotfiles_repo.find(request, request.render(self._spec.source))
        head = (await repo.text("rev-parse", "HEAD")).strip()
        facts: dict[str, Any] = {"folder": str(repo.root), "head": head, "tool": repo.tool}
        try:
            good = await dotfiles_repo.last_good(repo)
            text = f"applied well: {good[:12]}, now {head[:12]}\n"
        except Unavailable as error:
            good, text = head, f"({error}; compared with HEAD)\n"
        else:
            facts["good"] = good
        log = await repo.text(
            "log", f"--max-count={COMMITS}", f"--format={COMMIT}", f"{good}..HEAD", "--"
        )
        stat = await repo.text(*DIFF, "--stat=120", good, "--")
        names = (await repo.text(*DIFF, "--name-only", "-z", good, "--")).split("\0")
        facts["changed"] = [name for name in names if name][:100]
        text += f"\n{log or 'no commit since'}\n{stat or 'no change'}\n"
        diff = await repo.text(*DIFF, good, "--")
        return [
            request.piece(text, path=str(repo.root), facts=facts),
            request.beside(diff, ".diff"),
        ]
