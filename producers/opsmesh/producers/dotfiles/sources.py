"""Which folders hold dotfiles, and which tool manages each.

Nothing is started to find out: folders, their names and the tools' own configuration say it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opsmesh.producers.errors import OptionError

CHEZMOI, YADM, STOW, GIT = "chezmoi", "yadm", "stow", "git"
TOOLS: Final = (CHEZMOI, YADM, STOW, GIT)
#: In the option `source`: what can be found without being told.
AUTO: Final = "auto"
#: Folders under home where people keep dotfiles that no tool knows the place of.
USUAL: Final = (".dotfiles", "dotfiles", ".cfg")
#: Suffixes of chezmoi's configuration file, in the order in which it looks.
CHEZMOI_CONFIGS: Final = ("json", "jsonc", "toml", "yaml", "yml")
#: Files of a folder that are looked at for a link to it: a package holds fewer.
LOOKS: Final = 2000

_SOURCE_DIR = re.compile(r"""^\s*"?sourceDir"?\s*[=:]\s*["']?([^"'\n,]+)""", re.MULTILINE)
_WORK_TREE = re.compile(r"^\s*worktree\s*=\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_STOW_TARGET = re.compile(r"(?:--target[= ]|-t\s*)(\S+)")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One folder of dotfiles.

    `path`: the folder, or a repository that lies apart from its files. `work_tree`: where such a
    repository has its files; only those that it tracks count. `packages`: stow's, where told.
    """

    tool: str
    path: str
    work_tree: str | None = None
    packages: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What the memory knows it by."""
        return f"{self.tool}:{self.path}"

    @property
    def root(self) -> str:
        """The folder that its files lie in."""
        return self.work_tree or self.path

    @property
    def target(self) -> str:
        """Where stow puts its links: the folder above, unless .stowrc says another."""
        for folder in (self.path, os.path.expanduser("~")):  # noqa: PTH111
            if found := _STOW_TARGET.search(_read(Path(folder, ".stowrc"))):
                told = os.path.expandvars(os.path.expanduser(found[1]))  # noqa: PTH111
                return os.path.normpath(os.path.join(self.path, told))  # noqa: PTH118
        return os.path.dirname(self.path)  # noqa: PTH120


def find(option: str = AUTO, env: Mapping[str, str] = os.environ) -> list[Source]:
    """The sources that the option `source` names; OptionError for one that makes no sense."""
    found: dict[str, Source] = {}
    for word in (word.strip() for word in option.split(",")):
        if word == AUTO:
            found |= {source.path: source for source in guess(env)}
        elif word:
            source = _told(word, env)
            found[source.path] = source
    return list(found.values())


def guess(env: Mapping[str, str] = os.environ) -> list[Source]:
    """chezmoi's and yadm's sources, and what lies where people keep dotfiles."""
    home = Path(env.get("HOME") or Path.home())
    config, data = _base(env, "XDG_CONFIG_HOME", ".config"), _base(env, "XDG_DATA_HOME", _DATA)
    found = []
    chezmoi = _chezmoi_source(config / "chezmoi", home) or data / "chezmoi"
    if chezmoi.is_dir():
        found.append(Source(tool=CHEZMOI, path=str(chezmoi)))
    for repository in (data / "yadm/repo.git", config / "yadm/repo.git", home / ".yadm/repo.git"):
        if is_bare(repository):
            found.append(_apart(YADM, repository, home))
            break
    seen = [recognise(folder, env) for folder in usual(env)]
    return found + [source for source in seen if source]


def usual(env: Mapping[str, str] = os.environ) -> list[str]:
    """The folders where people keep dotfiles, whether they exist or not."""
    return [str(Path(env.get("HOME") or Path.home(), name)) for name in USUAL]


_DATA = ".local/share"


def recognise(path: str, env: Mapping[str, str] = os.environ) -> Source | None:
    """The source that the folder is, by what lies in it; None when nothing tells."""
    folder = Path(path)
    if is_bare(folder):
        tool = YADM if folder.parent.name in ("yadm", ".yadm") else GIT
        return _apart(tool, folder, Path(env.get("HOME") or Path.home()))
    names = {entry.name for entry in _entries(folder)}
    if any(name.startswith((".chezmoi", "dot_")) for name in names):
        return Source(tool=CHEZMOI, path=path)
    if names & {".stowrc", ".stow", ".stow-local-ignore"} or stowed(Source(tool=STOW, path=path)):
        return Source(tool=STOW, path=path)
    return Source(tool=GIT, path=path) if ".git" in names else None


def is_bare(folder: Path) -> bool:
    """Whether it is a repository without files beside it."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()


def packages(source: Source) -> list[str]:
    """stow's packages in the source."""
    folders = [e.name for e in _entries(Path(source.path)) if e.is_dir(follow_symlinks=False)]
    return sorted(name for name in folders if not name.startswith("."))


def stowed(source: Source) -> list[str]:
    """The packages of which something is linked from the target."""
    if source.packages:
        return list(source.packages)
    target = Path(source.target)
    return [name for name in packages(source) if _is_linked(Path(source.path, name), target)]


def _is_linked(package: Path, target: Path) -> bool:
    real, looks = os.path.realpath(package) + os.sep, 0
    for folder, folders, files in os.walk(package):
        folders[:] = [name for name in folders if name != ".git"]
        for name in files:
            way = Path(folder, name).relative_to(package)
            for link in {target / way, target.joinpath(*map(_undotted, way.parts))}:
                if os.path.lexists(link) and os.path.realpath(link).startswith(real):
                    return True
            looks += 1
            if looks == LOOKS:
                return False
    return False


def _undotted(name: str) -> str:
    """The name that `stow --dotfiles` gives."""
    return f".{name[4:]}" if name.startswith("dot-") else name


def _told(word: str, env: Mapping[str, str]) -> Source:
    place, _, rest = word.partition(":")
    tool, _, more = rest.partition(":")
    path = os.path.abspath(os.path.expanduser(place))  # noqa: PTH100, PTH111
    if not tool:
        source = recognise(path, env)
        if source is None:
            raise OptionError("source", f"{place}: no tool to be seen; say it: {place}:stow")
        return source
    if tool not in TOOLS:
        raise OptionError("source", f"{tool!r} is none of {', '.join(TOOLS)}")
    if tool == STOW:
        return Source(tool=tool, path=path, packages=tuple(filter(None, more.split("+"))))
    if tool in (YADM, GIT) and (more or is_bare(Path(path))):
        home = Path(env.get("HOME") or Path.home())
        if more:
            work_tree = os.path.abspath(os.path.expanduser(more))  # noqa: PTH100, PTH111
            return Source(tool=tool, path=path, work_tree=work_tree)
        return _apart(tool, Path(path), home)
    if more:
        raise OptionError("source", f"{word}: nothing may follow {tool}")
    return Source(tool=tool, path=path)


def _apart(tool: str, repository: Path, home: Path) -> Source:
    found = _WORK_TREE.search(_read(repository / "config"))
    work_tree = os.path.join(repository, found[1].strip('"')) if found else str(home)  # noqa: PTH118
    return Source(tool=tool, path=str(repository), work_tree=os.path.normpath(work_tree))


def _chezmoi_source(folder: Path, home: Path) -> Path | None:
    for suffix in CHEZMOI_CONFIGS:
        if found := _SOURCE_DIR.search(_read(folder / f"chezmoi.{suffix}")):
            told = found[1].strip()
            return home / told[2:] if told.startswith("~/") else home / told
    return None


def _base(env: Mapping[str, str], variable: str, fallback: str) -> Path:
    told = env.get(variable, "")
    return Path(told) if told.startswith("/") else Path(env.get("HOME") or Path.home(), fallback)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace") if path.is_file() else ""
    except OSError:
        return ""


def _entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return ()
