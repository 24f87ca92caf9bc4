"""A topic: its name, the type of its payload, and what people must know about it.

A topic with a second version brings an upcaster for every version before it; see `upcast`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final, Literal, NamedTuple

import msgspec

from opsmesh.schemas.envelope import SEVERITIES, Severity, check_topic

#: Payload key that holds the payload's version; a payload without it is version 1. No payload type
#: may have a field of this name.
VERSION_KEY: Final = "v"


def schema_name(topic: str, version: int) -> str:
    """The name of the schema of a topic's events: `urn:opsmesh:schema:<topic>:<version>`."""
    return f"urn:opsmesh:schema:{topic}:{version}"


#: Brings a payload from one version to the next; it must not change the payload it is given.
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class Payload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the payload types. Keys that a type does not name are tolerated, and kept."""


def doc(meaning: str) -> msgspec.Meta:
    """What a field means and its unit, for `Annotated`: shown by `topics show`, and exported."""
    return msgspec.Meta(description=meaning)


class Field(NamedTuple):
    """One field of a payload, for people."""

    name: str
    type: str
    required: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Topic:
    """A registered topic. `owner` names the producer or tool that emits it."""

    name: str
    _: KW_ONLY
    payload: type[msgspec.Struct]
    owner: str
    description: str
    example: dict[str, Any]
    severity: Severity = "error"
    version: int = 1
    upcasters: Mapping[int, Upcaster] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_topic(self.name)
        if self.severity not in SEVERITIES:
            known = ", ".join(SEVERITIES)
            raise ValueError(f"{self.name}: severity {self.severity!r} is not one of {known}")
        if set(self.upcasters) != set(range(1, self.version)):
            raise ValueError(
                f"{self.name}: version {self.version} needs an upcaster from each of the versions "
                f"{list(range(1, self.version))}, has {sorted(self.upcasters)}"
            )
        if VERSION_KEY in self.payload.__struct_encode_fields__:
            raise ValueError(f"{self.name}: field {VERSION_KEY!r} is the payload's version")

    def fields(self) -> list[Field]:
        """The payload's fields in their order."""
        return [_field(info) for info in msgspec.structs.fields(self.payload)]


def _field(info: msgspec.structs.FieldInfo) -> Field:
    inner, meaning = info.type, ""
    if typing.get_origin(inner) is typing.Annotated:
        inner, *metas = typing.get_args(inner)
        meaning = next((m.description or "" for m in metas if isinstance(m, msgspec.Meta)), "")
    return Field(info.encode_name, type_text(inner), info.required, meaning)


def type_text(kind: Any) -> str:
    """A type as people write it: `int`, `list[str]`, `call | setup`; optional is said elsewhere."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin is typing.Annotated:
        return type_text(args[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_text(arg) for arg in args if arg is not type(None))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(type_text(arg) for arg in args)}]"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"{{{', '.join(kind.__struct_encode_fields__)}}}"
    return "any" if kind is Any else getattr(kind, "__name__", str(kind))
