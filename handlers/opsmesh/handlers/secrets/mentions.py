"""Who refers to which secret: profiles and settings, as they are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from opsmesh.handlers.errors import TemplateError
from opsmesh.handlers.profiles.profile import ProfileSet
from opsmesh.handlers.template import Template


def mentions(found: ProfileSet, settings: Path) -> dict[str, list[str]]:
    """For each secret, in the order of names: who refers to it, like `profile deploy` or
    `config.yaml`."""
    by_name: dict[str, set[str]] = {}
    for profile in found.profiles.values():
        for name in names_in(profile.source.get("actions")):
            by_name.setdefault(name, set()).add(f"profile {profile.name}")
    try:
        written = yaml.safe_load(settings.read_bytes())
    except (OSError, yaml.YAMLError):
        written = None  # `opsmesh config validate` tells
    for name in names_in(written):
        by_name.setdefault(name, set()).add(settings.name)
    return {name: sorted(by_name[name]) for name in sorted(by_name)}


def names_in(value: Any) -> Iterator[str]:
    """The secrets that texts within a value refer to."""
    if isinstance(value, str) and "secret" in value:
        try:
            yield from Template(value, secrets=True).secrets
        except TemplateError:
            return
    elif isinstance(value, dict):
        for part in value.values():
            yield from names_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from names_in(part)
