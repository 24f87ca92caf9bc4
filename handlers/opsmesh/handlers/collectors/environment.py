"""`env_summary`: the system, kernel, locale, PATH, Pythons and chosen variables, and what of it is
different from the last bundle of this step."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec
from opsmesh.handlers.collectors.contract import Piece, Request
from opsmesh.handlers.collectors.earlier import changes
from opsmesh.handlers.collectors.files import read_end
from opsmesh.handlers.collectors.subject import folder_of
from opsmesh.handlers.errors import HandlersError, Unstartable

#: What says which system it is: os-release(5), in the order in which it is to be looked for.
OS_RELEASE: Final = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
#: Variables that are told without being asked for: none of them can be a secret.
LOCALE: Final = ("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "TZ")
#: Characters of a variable's value.
LONGEST: Final = 1000
#: Packages of a virtual environment that are named.
MAX_PACKAGES: Final = 2000

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class EnvSummarySpec(Spec):
    """Which variables beside the locale's; of those that look like a secret only that they are set.
    They are those of the process that runs handlers."""

    variables: Annotated[list[Variable], Field(max_length=100)] = Field(default_factory=list)
    packages: Annotated[
        bool, Field(description="What is installed in the `.venv` of the event's folder.")
    ] = False


class EnvSummary:
    """`env_summary.txt`, a fact a line; `env_summary.diff` where there was a bundle before."""

    key: ClassVar[str] = "env_summary"
    spec: ClassVar[type[EnvSummarySpec]] = EnvSummarySpec

    def __init__(self, spec: EnvSummarySpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        facts: dict[str, str] = {}
        facts["os"] = await asyncio.to_thread(_os_release)
        system = platform.uname()
        facts["kernel"] = f"{system.system} {system.release} {system.machine}"
        facts["host"] = request.ctx.host
        facts["opsmesh python"] = platform.python_version()
        facts["python3"] = await _first_python(request)
        folder = _folder(request)
        if folder is not None:
            facts |= await asyncio.to_thread(_venv, folder)
        shown = [*LOCALE, *self._spec.variables]
        facts |= _variables(request, shown)
        lines = [f"{name}: {value}\n" for name, value in facts.items()]
        path = os.environ.get("PATH", "").split(":")
        lines += [f"PATH[{n}]: {entry}\n" for n, entry in enumerate(path)]
        if self._spec.packages and folder is not None:
            lines += await asyncio.to_thread(_installed, folder)
        text = "".join(lines)
        pieces = [request.piece(text, facts={**facts, "path": path})]
        if difference := await asyncio.to_thread(changes, request, text):
            pieces.append(request.beside(difference, ".diff"))
        return pieces


async def _first_python(request: Request) -> str:
    try:
        ended = await request.run(["python3", "-I", "-S", "--version"])
    except Unstartable:
        return "none in PATH"
    return ended.stdout_tail.strip()[:80] or "does not say its version"


def _os_release() -> str:
    for file in OS_RELEASE:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        pairs = dict(line.split("=", 1) for line in lines if "=" in line)
        return pairs.get("PRETTY_NAME", pairs.get("ID", "")).strip("\"'")
    return "unknown"


def _variables(request: Request, names: Sequence[str]) -> Mapping[str, str]:
    values = {name: os.environ[name][:LONGEST] for name in names if name in os.environ}
    # by its name: `DATABASE_PASSWORD` is a secret whatever it holds
    clean, _ = request.ctx.redactor.redact(values, context=f"{request.ctx.place}:{request.source}")
    return {f"${name}": clean.get(name, "[redacted]") for name in values}


def _folder(request: Request) -> Path | None:
    try:
        return folder_of(request, None)
    except HandlersError:
        return None


def _venv(folder: Path) -> dict[str, str]:
    """What a virtual environment says of itself. A stranger's folder may hold any program, so none
    of it is started."""
    try:
        data, _ = read_end(folder / ".venv" / "pyvenv.cfg", 4096)
    except (OSError, ValueError):
        return {}
    pairs = (line.partition("=") for line in data.decode(errors="replace").splitlines())
    config = {name.strip(): value.strip() for name, _, value in pairs}
    version = config.get("version") or config.get("version_info") or "unknown"
    return {".venv python": f"{version[:40]} of {config.get('home', '')[:200]}"}


def _installed(folder: Path) -> list[str]:
    """Names and versions from the metadata's folder names: nothing is imported."""
    found = {
        one.name.removesuffix(".dist-info").replace("-", " ", 1)
        for one in folder.glob(".venv/lib/python3*/site-packages/*.dist-info")
    }
    return [f"package {name}\n" for name in sorted(found)[:MAX_PACKAGES]]
