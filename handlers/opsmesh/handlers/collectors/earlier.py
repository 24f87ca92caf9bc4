"""What a piece has in it that the same piece of the last bundle of this step had not.

Texts of two bundles are compared as they were written: without their secrets. What is compared is
redacted under a name that does not change from bundle to bundle, so that a secret that is still the
same one is no difference, and one that was changed is.
"""

from __future__ import annotations

import difflib
from collections import Counter
from pathlib import Path
from typing import Final

from opsmesh.handlers.bundles import folders
from opsmesh.handlers.collectors.contract import Request

#: Bundles that are looked through for the last one of this step.
LOOK: Final = 500
#: Bytes of an earlier piece that are read, and lines of it that are compared.
MAX_BYTES: Final = 4 * 2**20
MAX_LINES: Final = 20_000


def steady(request: Request, text: str, what: str) -> tuple[str, dict[str, int]]:
    """The text without secrets, and what was taken out by rule; the same for the same text."""
    context = f"{request.ctx.profile}:{request.ctx.step_id}:{request.source}"
    data = text.encode(errors="surrogateescape")
    clean, report = request.ctx.redactor.file(data, context=context, path=what)
    return clean.decode(errors="replace"), dict(Counter(found.rule for found in report))


def changes(request: Request, text: str, *, suffix: str = ".txt") -> str:
    """A unified diff from the last bundle's piece to this text; empty when there is none, or no
    bundle before this one."""
    name = request.name or f"{request.source}{suffix}"
    found = earlier(request, name)
    if found is None:
        return ""
    folder, before = found
    if before == text:
        return ""
    lines = difflib.unified_diff(
        before.splitlines()[:MAX_LINES],
        text.splitlines()[:MAX_LINES],
        fromfile=f"{name} of {folder.name}",
        tofile=f"{name} now",
        lineterm="",
        n=1,
    )
    return "".join(f"{line}\n" for line in lines)


def earlier(request: Request, name: str) -> tuple[Path, str] | None:
    """The last bundle of this step before this run that has the piece, and its text."""
    ctx = request.ctx
    for folder in folders.newest(ctx.bundles, limit=LOOK):
        if ctx.run_id in folder.name or not folder.name.partition(".")[0].endswith(
            f"-{folders.safe(ctx.step_id)}"
        ):
            continue
        manifest = folders.read_manifest(folder)
        if manifest.get("profile") != ctx.profile or manifest.get("step") != ctx.step_id:
            continue
        file = folder / name
        try:
            if file.stat().st_size <= MAX_BYTES:
                return folder, file.read_bytes().decode(errors="replace")
        except OSError:
            continue
    return None
