"""`missing_libraries`: binaries that ask for a library which is not here any more.

Looked at are the files of the packages that the event's transaction changed, and the programs of
the folders in `also`: an upgrade breaks those who were not upgraded with it. Nothing is executed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors import elf, package_files
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.elf import Elf

#: Where programs lie that other packages bring.
ALSO: Final = ("/usr/bin", "/usr/sbin")
#: Files that are looked at.
MAX_FILES: Final = 40_000
#: Findings among the facts; the piece has all of them.
FACTS: Final = 50
#: Where the loader looks, ld.so(8), and the folders of distributions with two kinds of programs.
FOLDERS: Final = ("lib", "lib64", "lib32", "usr/lib", "usr/lib64", "usr/lib32", "usr/local/lib")


class MissingLibrariesSpec(Spec):
    """Which file system, and which folders beside the packages' own files."""

    root: Text = "/"
    also: Annotated[list[Text], Field(max_length=50)] = Field(default_factory=lambda: list(ALSO))


class MissingLibraries:
    """A line for each binary and library that it asks for in vain."""

    key: ClassVar[str] = "missing_libraries"
    spec: ClassVar[type[MissingLibrariesSpec]] = MissingLibrariesSpec

    def __init__(self, spec: MissingLibrariesSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        root = Path(request.render(self._spec.root))
        also = [Path(request.render(one)) for one in self._spec.also]
        if not all(path.is_absolute() for path in (root, *also)):
            raise Unavailable("root and also are absolute paths")
        names = package_files.changed(request.ctx.event.payload)
        until = time.monotonic() + request.timeout_s * 0.9
        found = await asyncio.to_thread(look, root, names, also, until=until)
        return [_piece(request, found)]


class Found:
    """What was looked at, and what is missing."""

    def __init__(self) -> None:
        self.looked = 0
        self.complete = True
        self.missing: list[dict[str, str]] = []


def look(root: Path, names: Sequence[str], also: Sequence[Path], *, until: float) -> Found:
    """Every binary of the packages and folders whose libraries are not all there."""
    owned = package_files.files(root, names)
    world = _World(root)
    result = Found()
    seen: set[Path] = set()
    for package, path in _candidates(root, owned, also):
        if path in seen:
            continue
        seen.add(path)
        if result.looked >= MAX_FILES or time.monotonic() > until:
            result.complete = False
            break
        binary = elf.read(path) if path.is_file() else None
        if binary is None:
            continue
        result.looked += 1
        beside = {file.name for file in owned.get(package, ())}
        for name in binary.needed:
            # a program may load its own libraries from folders that only it knows
            if name not in beside and not world.has(name, binary, path):
                result.missing.append({"file": str(path), "library": name, "package": package})
    return result


def _candidates(
    root: Path, owned: dict[str, list[Path]], also: Iterable[Path]
) -> Iterator[tuple[str, Path]]:
    for package, files in owned.items():
        yield from ((package, file) for file in files if not file.is_symlink())
    for folder in also:
        inside = root / str(folder).lstrip("/")
        try:
            yield from (("", file) for file in sorted(inside.iterdir()) if not file.is_symlink())
        except OSError:
            continue


class _World:
    """Which libraries the loader finds, by name; each file is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        folders = [root / name for name in FOLDERS]
        folders += [one for folder in folders[:6] for one in sorted(folder.glob("*-linux-*"))]
        self._folders = [*folders, *_configured(root, root / "etc/ld.so.conf")]
        self._kinds: dict[Path, tuple[int, int] | None] = {}

    def has(self, name: str, binary: Elf, path: Path) -> bool:
        """Whether the binary finds the library."""
        if "/" in name:
            return (self._root / name.lstrip("/")).exists()
        own = [self._expanded(text, path) for text in binary.runpath]
        kind = (binary.bits, binary.machine)
        return any(self._kind(folder / name) == kind for folder in (*own, *self._folders))

    def _expanded(self, text: str, path: Path) -> Path:
        origin = str(path.parent)
        if "$ORIGIN" in text or "${ORIGIN}" in text:
            return Path(text.replace("${ORIGIN}", origin).replace("$ORIGIN", origin))
        return self._root / text.lstrip("/")

    def _kind(self, file: Path) -> tuple[int, int] | None:
        if file not in self._kinds:
            found = elf.read(file) if file.is_file() else None
            self._kinds[file] = None if found is None else (found.bits, found.machine)
        return self._kinds[file]


def _configured(root: Path, file: Path, depth: int = 0) -> Iterator[Path]:
    """The folders of ld.so.conf, and of the files that it includes."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"] and depth < 4:
            for pattern in words[1:]:
                base = root if pattern.startswith("/") else file.parent
                for one in sorted(base.glob(pattern.lstrip("/"))):
                    yield from _configured(root, one, depth + 1)
        elif words and words[0].startswith("/"):
            yield root / words[0].lstrip("/")


def _piece(request: Request, found: Found) -> Piece:
    facts: dict[str, Any] = {
        "count": len(found.missing),
        "looked": found.looked,
        "complete": found.complete,
        "missing": found.missing[:FACTS],
    }
    lines = [
        f"{one['file']} asks for {one['library']}, which is not here"
        f"{' (of ' + one['package'] + ')' if one['package'] else ''}\n"
        for one in found.missing
    ]
    end = "" if found.complete else "; there was no time for more"
    text = "".join(lines) or "no library is missing\n"
    return request.piece(f"{text}({found.looked} binaries were read{end})\n", facts=facts)
