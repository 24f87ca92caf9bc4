"""`package_versions`: which versions of packages are installed, of those that are named or that own
the event's program, unit file and files.

dpkg and pacman are asked, each where it has a database.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.subject import checked_path, exe_of, systemctl, unit_of
from opsmesh.handlers.errors import Unstartable

#: The databases that say which manager this machine has.
DPKG_STATUS: Final = Path("/var/lib/dpkg/status")
PACMAN_LOCAL: Final = Path("/var/lib/pacman/local")

# Debian policy 5.6.1 and PKGBUILD(5): neither begins with a dash.
_NAME = re.compile(r"[a-zA-Z0-9@_+][a-zA-Z0-9@._+:-]{0,127}")
_GLOB = re.compile(r"[*?\[\]\\]")


class PackageVersionsSpec(Spec):
    """Which packages; those that own the event's program and unit file unless given."""

    names: Annotated[list[Text], Field(max_length=100)] = Field(default_factory=list)
    files: Annotated[list[Text], Field(max_length=100)] = Field(default_factory=list)


class PackageVersions:
    """One line a package: name, version, architecture, and which file made us look."""

    key: ClassVar[str] = "package_versions"
    spec: ClassVar[type[PackageVersionsSpec]] = PackageVersionsSpec

    def __init__(self, spec: PackageVersionsSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        names = [checked_name(request.render(name)) for name in self._spec.names]
        files = [checked_path(request.render(file)) for file in self._spec.files]
        if not names and not files:
            files = await files_of_event(request)
        if not names and not files:
            raise Unavailable(
                "neither a program nor a unit's file is known from the event; write names or files"
            )
        managers = [kind(request) for kind in (Dpkg, Pacman) if kind.here()]
        if not managers:
            raise Unavailable("neither dpkg nor pacman has a database here")
        lines: list[str] = []
        packages: dict[str, str] = {}
        for manager in managers:
            owners = await manager.owners(files)
            found = await manager.versions({*names, *owners.values()})
            packages |= found
            lines += [f"{name} {version}\n" for name, version in sorted(found.items())]
            lines += [f"  {name} owns {file}\n" for file, name in sorted(owners.items())]
            files = [file for file in files if file not in owners]
        missing = [name for name in names if name not in packages]
        lines += [f"{name} is not installed\n" for name in missing]
        lines += [f"  no package owns {file}\n" for file in files]
        facts = {"packages": packages, "missing": missing, "unowned": files}
        return [request.piece("".join(lines), facts=facts)]


async def files_of_event(request: Request) -> list[str]:
    """The program and the unit file that the event is about, as far as it names them."""
    files: list[str] = []
    if exe := exe_of(request):
        files.append(str(Path(exe).resolve()))
    unit = unit_of(request, None)
    if unit:
        argv = [*systemctl(request), "show", "--property=FragmentPath", "--value", "--", unit]
        try:
            ended = await request.run(argv)
        except Unstartable:
            return files
        path = ended.stdout_tail.strip()
        if ended.ok and path.startswith("/"):
            files.append(path)
    return files


def checked_name(name: str) -> str:
    """A package's name, which no tool takes for an option or a pattern."""
    if not _NAME.fullmatch(name):
        raise Unavailable(f"{name[:80]!r} is not the name of a package")
    return name


class Dpkg:
    """Debian's."""

    def __init__(self, request: Request) -> None:
        self._request = request

    @staticmethod
    def here() -> bool:
        return DPKG_STATUS.exists() and DPKG_STATUS.stat().st_size > 0

    async def owners(self, files: Sequence[str]) -> dict[str, str]:
        """The package of each file that has one."""
        wanted: dict[str, str] = {}
        for file in files:
            if not _GLOB.search(file):  # dpkg-query(1): it would be a pattern
                wanted[file] = file
                # merged /usr: a file may be on record as it was before
                if file.startswith("/usr/"):
                    wanted[file.removeprefix("/usr")] = file
        if not wanted:
            return {}
        ended = await self._request.run(["dpkg-query", "--search", "--", *wanted])
        owners = {}
        for line in ended.stdout_tail.splitlines():
            package, _, path = line.partition(": ")
            if path in wanted and not package.startswith("diversion by "):
                owners[wanted[path]] = package.split(",")[0].partition(":")[0]
        return owners

    async def versions(self, names: Iterable[str]) -> dict[str, str]:
        """The version of each package that is installed."""
        wanted = sorted(names)
        if not wanted:
            return {}
        form = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"
        argv = ["dpkg-query", "--show", f"--showformat={form}", "--", *wanted]
        ended = await self._request.run(argv)
        found = {}
        for line in ended.stdout_tail.splitlines():
            state, _, rest = line.partition("\t")
            fields = rest.split("\t")
            if len(fields) == 3 and state.strip() not in ("un", "rc"):
                found[fields[0]] = f"{fields[1]} {fields[2]}"
        return found


class Pacman:
    """Arch's."""

    def __init__(self, request: Request) -> None:
        self._request = request

    @staticmethod
    def here() -> bool:
        return PACMAN_LOCAL.is_dir() and any(PACMAN_LOCAL.glob("*/desc"))

    async def owners(self, files: Sequence[str]) -> dict[str, str]:
        """The package of each file that has one."""
        owners = {}
        for file in files:
            ended = await self._request.run(["pacman", "-Qqo", "--", file])
            name = ended.stdout_tail.strip().splitlines()
            if ended.ok and name and _NAME.fullmatch(name[0]):
                owners[file] = name[0]
        return owners

    async def versions(self, names: Iterable[str]) -> Mapping[str, str]:
        """The version of each package that is installed."""
        wanted = sorted(names)
        if not wanted:
            return {}
        ended = await self._request.run(["pacman", "-Q", "--", *wanted])
        pairs = (line.split() for line in ended.stdout_tail.splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
