"""Where each setting's value comes from, and what is wrong with config.yaml or a variable.

pydantic says what is wrong with a value; people need the file and line, or the variable, that they
wrote it in, and the nearest key that there is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import yamlfile
from opsmesh.router.mcp_servers import IMPORTED, imported
from opsmesh.router.settings import SHORT_NAMES, Settings, config_file
from opsmesh.schemas.nearest import did_you_mean

#: What is shown in place of a secret.
MASK = "********"
#: Names under which a secret may have been written out, wherever they stand.
_SECRET_NAMES = frozenset({"bearer", "api_key", "password", "tokens", "headers"})
_SECRETS = {"nats.password", "notify.targets"}


@dataclass(frozen=True)
class Setting:
    """One setting in force: `source` is `default`, `config.yaml:LINE`, `variable NAME`, or the file
    of imported servers."""

    key: str
    value: Any
    source: str


def read() -> list[Setting]:
    """Every setting, secrets masked; ConfigError or ValidationError when one is wrong."""
    document = load()
    settings = Settings()
    return [
        Setting(".".join(path), _shown(".".join(path), value), _source(path, document))
        for path, value in _leaves(settings)
    ]


def load() -> yamlfile.Document | None:
    """config.yaml with positions, None when there is none; ConfigError when it is not a mapping."""
    file = config_file()
    if not file.exists():
        return None
    document = yamlfile.load(file, name=str(file))
    if not isinstance(document.data, dict | None):
        raise document.error((), "settings are a mapping of keys to values")
    return document


def explain(error: Exception) -> list[str]:
    """What is wrong, one line each, with file and line or variable; [] for an error not of ours."""
    try:
        document = load()
    except ConfigError as broken:
        return [str(broken)]
    if isinstance(error, ValidationError) and error.title == Settings.__name__:
        lines = [_line(dict(fact), document) for fact in error.errors()]
        return [text for _, text in sorted(lines)]
    if isinstance(error, SettingsError):
        field = re.search(r'field "(\w+)"', str(error))
        start = f"OPSMESH_{field[1].upper()}" if field else "OPSMESH_"
        names = sorted(name for name in os.environ if name.upper().startswith(start))
        which = " or ".join(names) or start
        return [f"variable {which}: its value is not JSON, which a section or a list needs"]
    return []


def mask_url(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(//[^/@:]*):[^/@]*@", rf"\1:{MASK}@", url)


def _line(fact: dict[str, Any], document: yamlfile.Document | None) -> tuple[int, str]:
    """The line of the file (0 for a variable), to sort by, and the text."""
    path = tuple(str(part) for part in fact["loc"] if not isinstance(part, int))
    key = ".".join(path)
    source = _source(path, document)
    if fact["type"] == "extra_forbidden":
        choices = _keys(path[:-1])
        message = f"unknown key {path[-1]!r}"
        message += did_you_mean(path[-1], choices) or f"; there are {', '.join(choices)}"
    else:
        text = fact["msg"].removeprefix("Value error, ")
        message = f"{key}: {text[:1].lower()}{text[1:]}"
        given = fact["input"]
        told = not isinstance(given, str | int | float) or text.startswith(f"{given!r} ")
        if not told and not _secret(path):
            message += f", not {json.dumps(given, ensure_ascii=False)}"
    while source == "default" and len(path) > 1:  # a value in its short form has no such key
        path = path[:-1]
        source = _source(path, document)
    line = 0
    if document is not None and source.startswith(document.file):
        unknown = fact["type"] == "extra_forbidden"
        line, column = document.key_position(path) if unknown else document.position(path)
        source = f"{document.file}:{line}:{column}"
    return line, f"{source}: {message}"


def _keys(path: tuple[str, ...]) -> list[str]:
    """The valid keys of the section at `path`."""
    found: Any = Settings
    for part in path:
        if get_origin(found) is dict:  # names of a person's own, and below each the same keys
            found = get_args(found)[1]
        elif isinstance(found, type) and issubclass(found, BaseModel):
            field = found.model_fields.get(part)
            found = field.annotation if field else None
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        return []
    return list(found.model_fields)


def _leaves(model: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _source(path: tuple[str, ...], document: yamlfile.Document | None) -> str:
    """In the order in which they win: a short name, a variable, the file, the default."""
    if path[0] == "nats" and os.environ.get(SHORT_NAMES.get(path[-1], "")):
        return f"variable {SHORT_NAMES[path[-1]]}"
    variables = {name.upper(): name for name in os.environ}
    wanted = "OPSMESH_" + "__".join(path).upper()
    if wanted in variables:
        return f"variable {variables[wanted]}"
    section = variables.get(f"OPSMESH_{path[0].upper()}")
    if section and len(path) > 1 and _holds(os.environ[section], path[1]):
        return f"variable {section}"
    if document is not None and path in document.keys:
        return f"{document.file}:{document.position(path)[0]}"
    if path[0] == "mcp_servers" and imported():
        return IMPORTED
    return "default"


def _holds(text: str, key: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and key in found


def _shown(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | list):
        return value
    if isinstance(value, dict) and key in _SECRETS:  # what there is by its names
        return dict.fromkeys(value, MASK)
    if key == "a2a_agents":  # their headers may hold what nobody should see
        return {name: mask_url(one.url) for name, one in value.items()}
    if key == "mcp_servers":  # their env and headers may hold what nobody should see
        return {name: one.command or mask_url(one.url) for name, one in value.items()}
    return MASK if key in _SECRETS else mask_url(str(value))


def _secret(path: tuple[str, ...]) -> bool:
    """Whether the setting, or the section that it stands in, is one."""
    return not _SECRET_NAMES.isdisjoint(path) or any(
        ".".join(path[: n + 1]) in _SECRETS for n in range(len(path))
    )
