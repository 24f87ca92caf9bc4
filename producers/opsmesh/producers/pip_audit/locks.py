"""What lock files and requirement files name. Pure: text in; pins, and what is no pin, out.

A pin is a version of an index. What comes from elsewhere (git, a URL) has a version too, but what
an advisory says of that version says nothing of it: it is unknown.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_NAME: Final = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
_EXTRAS: Final = r"(?:\s*\[[^\]]*\])?"
_PINNED: Final = re.compile(rf"({_NAME}){_EXTRAS}\s*\(?\s*===?\s*([^\s;,)]+)")
_NAMED: Final = re.compile(rf"({_NAME}){_EXTRAS}\s*(@)?")
_INCLUDED: Final = re.compile(r"(?:-r|--requirement)(?:\s*=\s*|\s*)(\S.*)")
_CONSTRAINED: Final = re.compile(r"(?:-c|--constraint)(?:\s*=\s*|\s*)(\S.*)")
_EDITABLE: Final = re.compile(r"(?:-e|--editable)(?:\s*=\s*|\s*)(\S.*)")
#: A version as PEP 440 has it. pip-audit gives up on a list that holds another one.
_VERSION: Final = re.compile(
    r"v?(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?"
    r"(?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:[-_.]?dev[-_.]?\d*)?(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?",
    re.IGNORECASE | re.ASCII,
)
#: Places of a lock's package that are no index's, and what is said of them.
_ELSEWHERE: Final = {
    "git": "from a git repository, not from an index",
    "vcs": "from a repository, not from an index",
    "url": "from a URL, not from an index",
    "archive": "from a URL, not from an index",
    "path": "from a file, not from an index",
    "file": "from a file, not from an index",
    "directory": "from another folder, not from an index",
}
#: Places that are the project's own code.
_OWN: Final = ("editable", "virtual")


@dataclass(frozen=True, order=True)
class Pin:
    """A package at one version, of an index."""

    name: str
    version: str


@dataclass(kw_only=True)
class Named:
    """What one file names. `loose`: packages without one version; `unknown`: why a package cannot
    be judged; `include` and `constrain`: other files, as they are written there."""

    pins: list[Pin] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    include: list[str] = field(default_factory=list)
    constrain: list[str] = field(default_factory=list)

    def pin(self, name: str, version: str) -> None:
        """Add one, if an advisory can speak of such a version."""
        if _VERSION.fullmatch(version):
            self.pins.append(Pin(canonical(name), version))
        else:
            self.unknown[canonical(name)] = f"{version!r} is no version"


def canonical(name: str) -> str:
    """A name as all indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def of_lock(text: str) -> Named:
    """uv.lock, poetry.lock, pdm.lock, pylock.toml: tables of packages, all alike. ValueError for
    what is no TOML, or holds none."""
    data = tomllib.loads(text)
    rows = data.get("package", data.get("packages", ()))
    if not isinstance(rows, list | tuple):
        raise ValueError("it has no list of packages")  # noqa: TRY004
    named = Named()
    for row in rows:
        if not isinstance(row, dict) or not isinstance(name := row.get("name"), str):
            raise ValueError("a package in it has no name")  # noqa: TRY004
        where = _elsewhere(row)
        if where in _OWN:
            continue
        if where:
            named.unknown[canonical(name)] = _ELSEWHERE[where]
        elif isinstance(version := row.get("version"), str):
            named.pin(name, version)
        else:
            named.unknown[canonical(name)] = "the lock file has no version of it"
    return named


def _elsewhere(row: Mapping[str, Any]) -> str:
    """The kind of place that it is from; empty for an index."""
    source = row.get("source")
    places = source if isinstance(source, dict) else row
    kind = str(places.get("type", "")) if places is source else ""
    for own in _OWN:
        if own in places:
            return own
    directory = row.get("directory")
    if isinstance(directory, dict) and (directory.get("editable") or directory.get("path") == "."):
        return "editable"
    if kind:  # poetry's; `legacy` is another index
        return kind if kind in _ELSEWHERE else ""
    return next((place for place in _ELSEWHERE if place in places), "")


def of_requirements(text: str) -> Named:
    """A requirements file of pip's."""
    named = Named()
    for line in _lines(text):
        _requirement(line, named)
    return named


def of_pyproject(text: str) -> Named:
    """The dependencies of pyproject.toml, its groups and extras; what poetry keeps there, too.
    ValueError for what is no TOML."""
    data = tomllib.loads(text)
    named = Named()
    project, groups = _table(data.get("project")), _table(data.get("dependency-groups"))
    lists = [
        project.get("dependencies"),
        *_table(project.get("optional-dependencies")).values(),
        *groups.values(),
    ]
    for one in lists:
        for text in one if isinstance(one, list) else ():
            if isinstance(text, str):
                _requirement(text, named)
    poetry = _table(_table(data.get("tool")).get("poetry"))
    tables = [poetry.get("dependencies"), poetry.get("dev-dependencies")]
    tables += [_table(g).get("dependencies") for g in _table(poetry.get("group")).values()]
    named.loose += [canonical(n) for table in tables for n in _table(table) if n != "python"]
    return named


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _lines(text: str) -> Iterator[str]:
    """Whole lines without comments, and without the hashes at their end."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(?:^|\s)#.*", "", line)
        line = re.split(r"\s--(?:hash|config-settings|global-option)\b", line, maxsplit=1)[0]
        if line := line.strip():
            yield line


def _requirement(line: str, named: Named) -> None:
    if (found := _INCLUDED.fullmatch(line) or _CONSTRAINED.fullmatch(line)) and "://" in found[1]:
        named.unknown[_of_place(found[1])] = "a file that is elsewhere"
    elif found := _INCLUDED.fullmatch(line):
        named.include.append(found[1])
    elif found := _CONSTRAINED.fullmatch(line):
        named.constrain.append(found[1])
    elif found := _EDITABLE.fullmatch(line):
        if "://" in found[1]:
            named.unknown[_of_place(found[1])] = _ELSEWHERE["url"]
    elif line.startswith("-"):
        return  # where to look, which says nothing of what
    elif (found := _PINNED.match(line)) and not found[2].endswith("*"):
        named.pin(found[1], found[2])
    elif "://" in line.partition(";")[0] or line.startswith((".", "/")):
        at = re.match(rf"({_NAME}){_EXTRAS}\s*@", line)
        if at or "://" in line:
            name = canonical(at[1]) if at else _of_place(line)
            named.unknown[name] = _ELSEWHERE["url"]
    elif found := _NAMED.match(line):
        named.loose.append(canonical(found[1]))


def _of_place(text: str) -> str:
    """A name for what has none but its URL, which may hold a password."""
    if egg := re.search(rf"#(?:.*&)?egg=({_NAME})", text):
        return canonical(egg[1])
    path = re.split(r"[?#\s;]", text, maxsplit=1)[0].rstrip("/")
    return path.rpartition("/")[2].partition("@")[0] or "a URL"
