"""The shipped sets of profiles: what there is, and a person's copies of them.

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
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field

from opsmesh.handlers.actions.spec import Spec
from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.profile import FOLDER, Profile, load_file, parse
from opsmesh.schemas.nearest import did_you_mean

#: How a copy stands to the text that comes with this version.
Standing = Literal["absent", "current", "older", "edited"]

#: The key of a shipped text that says what it is; profile files take any key with `x-`.
ABOUT: Final = "x-shipped"
_MARK: Final = "# opsmesh shipped, copied from "
_MARKED = re.compile(re.escape(_MARK) + r"(?P<origin>[0-9a-f]{16}) as (?P<copy>[0-9a-f]{16})\n")


class ShippedError(HandlersError):
    """A shipped set cannot be copied; `hint` is what a person can do."""

    def __init__(self, text: str, *, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class About(Spec):
    """What a shipped text says of itself."""

    title: str
    #: Programs without which it is no use, and those that it makes more of, with what.
    programs: tuple[str, ...] = ()
    optional: dict[str, str] = Field(default_factory=dict)
    producers: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    #: What it does to the machine, a line each.
    changes: Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Shipped:
    """One set of profiles that belong together, as its text says."""

    name: str
    text: str
    about: About
    profiles: Mapping[str, Profile] = field(repr=False)

    @property
    def variables(self) -> dict[str, Any]:
        """The `vars` of its profiles; those of one name are one."""
        return {name: value for one in self.profiles.values() for name, value in one.vars.items()}

    @property
    def topics(self) -> tuple[str, ...]:
        """What its profiles listen to, of what does not come from themselves."""
        return tuple(dict.fromkeys(topic for one in self.profiles.values() for topic in one.on))


def all_() -> list[Shipped]:
    """Every shipped set, in the order of names."""
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
            document = yamlfile.parse(text.encode(), file=entry.name)
            found = parse(document)
            if found.errors:  # ours to mend; the tests see to it
                raise found.errors[0]
            about = About.model_validate(document.data[ABOUT])
            yield Shipped(entry.name.removesuffix(".yaml"), text, about, found.profiles)


def path_of(config_dir: Path, name: str) -> Path:
    """Where the copy of a shipped set lies."""
    return config_dir / FOLDER / f"{name}.yaml"


def standing(config_dir: Path, shipped: Shipped) -> Standing:
    """How the copy in this configuration folder stands to the shipped text."""
    try:
        text = path_of(config_dir, shipped.name).read_text()
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
            f"{path} is yours, and stays as it is", hint="remove it to have the shipped text again"
        )
    text = with_values(shipped, values)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")  # a dotted file is no profile file
    fresh.write_text(f"{_MARK}{_digest(shipped.text)} as {_digest(text)}\n{text}")
    fresh.replace(path)
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
        if name not in shipped.variables:
            near = did_you_mean(name, shipped.variables)
            known = ", ".join(sorted(shipped.variables)) or "none"
            raise ShippedError(
                f"{shipped.name} has no variable {name!r}{near}", hint=f"it has: {known}"
            )
        written = yaml.safe_dump(value, default_flow_style=True, width=10_000)
        written = written.strip().removesuffix("...").strip()
        line = re.compile(rf"^(      {re.escape(name)}: )[^#\n]*?( *#[^\n]*)?$", re.MULTILINE)
        text = line.sub(partial(_replaced, written), text)
    changed = yamlfile.parse(text.encode(), file=shipped.name).data["profiles"]
    for name, profile in shipped.profiles.items():
        wanted = {key: values.get(key, value) for key, value in profile.vars.items()}
        if changed[name].get("vars", {}) != wanted:
            raise ShippedError(f"the variables of {name} cannot be set here; edit its copy")
    return text


def _replaced(written: str, found: re.Match[str]) -> str:
    return f"{found[1]}{written}{found[2] or ''}"


def elsewhere(config_dir: Path, shipped: Shipped) -> str | None:
    """The file, other than the copy, that defines a profile of one of its names already."""
    own = path_of(config_dir, shipped.name)
    for path in (config_dir / "profiles.yaml", *sorted((config_dir / FOLDER).glob("*.yaml"))):
        if path != own and path.exists() and shipped.profiles.keys() & load_file(path).profiles:
            return str(path)
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
