"""What there is to say of an action: where it comes from, its keys, and an example.

All of it is read from the action itself, ours or a stranger's: its module's text and the model of
its value. One that has neither is still listed.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint
from typing import Any, Final

from pydantic import BaseModel

from opsmesh.handlers.actions import registry
from opsmesh.handlers.actions.contract import Action
from opsmesh.handlers.profiles.spec import StepSpec
from opsmesh.schemas.plugins import entry_points

#: How the type of a text begins that has a form of its own, like a duration.
LIKE: Final = "text like"


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key under an action."""

    name: str
    type: str
    required: bool
    default: Any = None
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class About:
    """One action."""

    key: str
    summary: str
    package: str
    version: str
    target: str
    on_unknown: str
    example: str
    keys: tuple[Key, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


def every() -> tuple[dict[str, About], dict[str, str]]:
    """All actions by key, and for each plug-in that is broken, why."""
    found = registry.discover()
    points = {point.name: point for point in entry_points(registry.GROUP)}
    known = {key: about(kind, points.get(key)) for key, kind in found.actions.items()}
    return known, found.problems


def step_keys() -> list[str]:
    """What a step says beside its action."""
    return list(StepSpec.model_fields)


def about(kind: type[Action], point: EntryPoint | None) -> About:
    """What is known of an action."""
    text = inspect.cleandoc(getattr(sys.modules.get(kind.__module__), "__doc__", None) or "")
    dist = point.dist if point is not None else None
    spec = getattr(kind, "spec", None)
    return About(
        key=kind.key,
        summary=_summary(text, kind),
        package=dist.name if dist is not None else "",
        version=dist.version if dist is not None else "",
        target=point.value if point is not None else f"{kind.__module__}:{kind.__qualname__}",
        on_unknown=str(getattr(kind, "on_unknown", "retry")),
        example=_example(text),
        keys=tuple(_keys(spec)) if spec is not None else (),
    )


def _summary(text: str, kind: type[Action]) -> str:
    """The first sentence of the module, without the key that it begins with."""
    first = text.partition("\n\n")[0] or inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
    line = " ".join(first.split()).removeprefix(f"`{kind.key}`").lstrip(": ")
    return line.rstrip(".")


def _example(text: str) -> str:
    """The indented lines of the module's text."""
    blocks = text.split("\n\n")
    return "\n".join(textwrap.dedent(block) for block in blocks if block.startswith("    "))


def _keys(spec: type[BaseModel]) -> Iterator[Key]:
    schema = spec.model_json_schema()
    defs = schema.get("$defs", {})
    required = schema.get("required", [])
    if "properties" not in schema:  # a list
        yield Key(name="", type=_type(schema, defs), required=True)
    for name, field in schema.get("properties", {}).items():
        yield Key(
            name=name,
            type=_type(field, defs),
            required=name in required,
            default=field.get("default"),
            description=field.get("description", ""),
        )


def _type(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """A type of JSON Schema in a few words."""
    if "$ref" in schema:
        inner = defs.get(schema["$ref"].rpartition("/")[2], {})
        if "properties" in inner:
            return "{" + ", ".join(inner["properties"]) + "}"
        return _type(inner, defs)
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            kinds = [_type(one, defs) for one in schema[several] if one.get("type") != "null"]
            return " | ".join(dict.fromkeys(kinds))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), defs)}"
    if schema.get("type") == "object" and "properties" in schema:
        return "{" + ", ".join(schema["properties"]) + "}"
    if schema.get("type") == "string" and schema.get("examples"):
        return f"{LIKE} {schema['examples'][0]}"
    names = {"object": "mapping", "string": "text", "integer": "number", "boolean": "true | false"}
    kind = schema.get("type", "any")
    return names.get(kind, kind) if isinstance(kind, str) else " | ".join(kind)
