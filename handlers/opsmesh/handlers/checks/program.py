"""A check's program: started without a shell, in a sandbox where one is asked for, within limits.

The environment is minimal, whatever the server's own has in it; output is kept from its end, and
secrets are taken out of it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opsmesh.handlers import process
from opsmesh.handlers.process import ProcessResult
from opsmesh.handlers.sandbox import bwrap
from opsmesh.handlers.sandbox.confinement import Confinement
from opsmesh.handlers.sandbox.prepare import Step, ready
from opsmesh.router.settings_serving import Checks

#: Bytes kept of each of standard output and standard error.
OUTPUT: Final = 32 * 1024
#: And where the output is what is read: ruff's JSON.
REPORT: Final = 8 * 1024 * 1024
#: Programs that a virtual environment is told by.
INTERPRETERS: Final = (".venv/bin/python", "venv/bin/python")


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where one check runs: a private folder, and what may be seen beside it."""

    workdir: Path
    section: Checks

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        read: Iterable[Path] = (),
        write: Iterable[Path] = (),
        output_limit: int = OUTPUT,
        env: Mapping[str, str] | None = None,
    ) -> ProcessResult:
        """Run it, in the sandbox of the settings."""
        confinement = Confinement()
        if self.section.sandbox == "bwrap":
            shown = [str(path) for path in dict.fromkeys(read) if not _system(path)]
            confinement = Confinement(
                kind="bwrap",
                read=(*shown, *self.section.read),
                write=tuple(str(path) for path in dict.fromkeys(write)),
                network=self.section.network,
            )
        own = dict(env or {})
        whole = {**process.minimal_environment(), **own}
        step = Step(run_id="checks", step_id="check", workdir=self.workdir)
        confined = ready(list(argv), confinement, step, env=whole, own=frozenset(own), cwd=cwd)
        async with confined as made:
            return await process.run(
                made.argv,
                env=made.env,
                cwd=cwd,
                timeout=self.section.timeout,
                output_limit=output_limit,
                unit=made.unit,
            )


@asynccontextmanager
async def room(section: Checks) -> AsyncIterator[Room]:
    """A room for one check; its folder is gone afterwards."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="opsmesh-check-"))
    try:
        yield Room(workdir=folder, section=section)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def interpreter(folder: Path, root: Path) -> Path:
    """The Python of the nearest virtual environment from `folder` up to `root`, or else our own."""
    for place in (folder, *folder.parents):
        if not place.is_relative_to(root):
            break
        for name in INTERPRETERS:
            if (place / name).exists():
                return place / name
    return Path(sys.executable)


def needs(python: Path) -> list[Path]:
    """What an interpreter is made of: its environment, and the installation behind it."""
    found = [python.parent.parent]
    real = python.resolve()
    found.append(real.parent.parent)
    # a link on the way, as uv makes them, has to lead somewhere inside too
    link = python
    for _ in range(8):
        if not link.is_symlink():
            break
        link = (link.parent / link.readlink()).absolute()
        found.append(link.parent.parent)
    return [path for path in dict.fromkeys(found) if path.is_dir()]


def ruff() -> str | None:
    """The linter: beside our own interpreter, or in PATH. Never the looked-at folder's own."""
    beside = Path(sys.executable).with_name("ruff")
    return str(beside) if beside.exists() else shutil.which("ruff")


def _system(path: Path) -> bool:
    return any(path.is_relative_to(one) for one in bwrap.SYSTEM)
