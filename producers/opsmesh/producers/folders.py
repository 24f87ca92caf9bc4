"""The option `path` of producers that watch folders of the user's choice."""

from __future__ import annotations

from pathlib import Path

from opsmesh.producers.errors import OptionError


def chosen(text: str) -> list[Path]:
    """The folders, several with commas; OptionError for one that is not absolute."""
    found = [Path(part.strip()).expanduser() for part in text.split(",") if part.strip()]
    for path in found:
        if not path.is_absolute():
            raise OptionError("path", f"{path} is not absolute, nor does it begin with ~")
    return list(dict.fromkeys(found))


def unset(producer: str) -> str:
    """Why a producer without folders does not run, and how it does."""
    return f"no folder is set: producers.options.{producer}.path: ~/work/app"
