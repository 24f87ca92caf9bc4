"""The shipped profiles: what there is, and copies of them in a person's configuration folder.

A copy is its owner's: it may be edited, and is never written over for it. Its first line says which
text it was copied from, so that a newer one is put in place of an untouched copy, and shown beside
an edited one.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.profiles.profile import FOLDER, Profile, load_file, parse
from opsmesh.handlers.profiles.yamlfile import Document
from opsmesh.schemas.nearest import did_you_mean

#: How a copy stands to the text that comes with this version.
Standing = Literal["absent", "current", "older", "edited"]

_MARK: Final = "# opsmesh shipped profile, copied from "
_MARKED = re.compile(re.escape(_MARK) + r"(?P<origin>[0-9a-f]{16}) as (?P<copy>[0-9a-f]{16})\n")


class ShippedError(HandlersError):
    """A shipped profile cannot be copied; `hint` is what a person can do."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


@dataclass(frozen=True)
class Shipped:
    """One profile that comes with opsmesh, as its text says."""

    text: str
    profile: Profile

    @property
    def name(self) -> str:
        """The profile's name."""
        return self.profile.name

    @property
    def about(self) -> str:
        """The comment that its text begins with."""
        lines = self.text.split("\n")
        end = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
        return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:end])


def all_() -> list[Shipped]:
    """Every shipped profile, in the order of names."""
    return sorted(_read(), key=lambda one: one.name)


def find(name: str) -> Shipped:
    """The one of this name; ShippedError."""
    known = {one.name: one for one in _read()}
    if name not in known:
        near = did_you_mean(name, known)
        raise ShippedError(
            f"no profile {name!r} comes with opsmesh{near}", hint="opsmesh profile ls --shipped"
        )
    return known[name]


def _read() -> Iterator[Shipped]:
    for entry in files("opsmesh.handlers.shipped").joinpath("profiles").iterdir():
        if entry.name.endswith(".yaml"):
            text = entry.read_text()
            data = yaml.safe_load(text)
            found = parse(Document(file=entry.name, data=data, positions={}, keys={}))
            if found.errors:  # ours to mend; the tests see to it
                raise found.errors[0]
            [profile] = found.profiles.values()
            yield Shipped(text, profile)


def path_of(config_dir: Path, name: str) -> Path:
    """Where the copy of a shipped profile lies."""
    return config_dir / FOLDER / f"{name}.yaml"


def standing(config_dir: Path, shipped: Shipped) -> Standing:
    """How the copy in this configuration folder stands to the shipped text."""
    path = path_of(config_dir, shipped.name)
    try:
        text = path.read_text()
    except FileNotFoundError:
        return "absent"
    found = _MARKED.match(text)
    if found is None or _digest(text[found.end() :]) != found["copy"]:
        return "edited"
    return "current" if found["origin"] == _digest(shipped.text) else "older"


def copy(config_dir: Path, shipped: Shipped, values: Mapping[str, Any]) -> Path:
    """Write the copy, with other values for its `vars`, in place of an untouched one at most."""
    path = path_of(config_dir, shipped.name)
    if standing(config_dir, shipped) == "edited":
        raise ShippedError(
            f"{path} is yours, and stays as it is", hint="delete it to have the shipped text again"
        )
    text = with_values(shipped, values)
    marked = f"{_MARK}{_digest(shipped.text)} as {_digest(text)}\n{text}"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")  # a dotted file is no profile file
    fresh.write_text(marked)
    os.replace(fresh, path)
    return path


def difference(config_dir: Path, shipped: Shipped) -> str:
    """From a person's copy to the shipped text, as a unified diff."""
    path = path_of(config_dir, shipped.name)
    text = path.read_text()
    found = _MARKED.match(text)
    mine = text[found.end() :] if found else text
    lines = difflib.unified_diff(
        mine.splitlines(keepends=True),
        shipped.text.splitlines(keepends=True),
        fromfile=str(path),
        tofile=f"{shipped.name} as shipped",
    )
    return "".join(lines)


def with_values(shipped: Shipped, values: Mapping[str, Any]) -> str:
    """The text with other `vars`, its comments kept; ShippedError for one that it has not."""
    text = shipped.text
    for name, value in values.items():
        if name not in shipped.profile.vars:
            near = did_you_mean(name, shipped.profile.vars)
            known = ", ".join(sorted(shipped.profile.vars)) or "none"
            raise ShippedError(
                f"{shipped.name} has no variable {name!r}{near}", hint=f"it has: {known}"
            )
        written = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
        written = written.removesuffix("\n...").strip()
        line = re.compile(rf"^(?P<key>      {re.escape(name)}:)[^#\n]*?(?P<rest> *#.*)?$", re.M)
        text = line.sub(lambda m, w=written: f"{m['key']} {w}{m['rest'] or ''}", text, count=1)
    changed = yaml.safe_load(text)["profiles"][shipped.name].get("vars", {})
    if changed != {**shipped.profile.vars, **values}:
        raise ShippedError(f"the variables of {shipped.name} cannot be set here; edit its copy")
    return text


def elsewhere(config_dir: Path, name: str) -> str | None:
    """The file, other than the copy, that defines a profile of this name already."""
    own = path_of(config_dir, name)
    for path in (config_dir / "profiles.yaml", *sorted((config_dir / FOLDER).glob("*.yaml"))):
        if path != own and path.exists() and name in load_file(path).profiles:
            return str(path)
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
