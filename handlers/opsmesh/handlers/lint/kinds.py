"""What a lint knows of a value before there is one: its kinds, its fields, its only values.

No kinds at all means that nothing is known, and nothing is complained about. A `float` of a payload
may hold a whole number in JSON, so that it is no mistake to compare it with one.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

from opsmesh.schemas.envelope import FIELDS, Event
from opsmesh.schemas.topics import VERSION_KEY, Topic

#: Kinds as people call them.
SPOKEN: Final = {
    "text": "a text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "list": "a list",
    "map": "a map",
    "bytes": "bytes",
    "time": "a time",
    "duration": "a duration",
}
NUMBERS: Final = frozenset({"int", "float"})


@dataclass(frozen=True, kw_only=True)
class Type:
    """What may be there. `lacks` says, of a map whose `fields` are all of it, that one is missing;
    its `{}` is the field. `owner` is the topic that it belongs to."""

    kinds: frozenset[str] = frozenset()
    values: tuple[str, ...] = ()
    fields: Mapping[str, Type] | None = None
    item: Type | None = None
    lacks: str = ""
    owner: str = ""
    prefix: str = ""

    @property
    def known(self) -> bool:
        """Whether anything is known of it."""
        return bool(self.kinds)

    @property
    def spoken(self) -> str:
        """Its kinds in words."""
        order = {SPOKEN[kind]: None for kind in SPOKEN if kind in self.kinds and kind != "null"}
        return " or ".join(order) or "null"

    def only(self, *kinds: str) -> bool:
        """Whether it is known, and of none but these kinds."""
        return self.known and self.kinds <= set(kinds)

    def never(self, *kinds: str) -> bool:
        """Whether it is known, and of none of these kinds."""
        return self.known and self.kinds.isdisjoint(kinds)


ANY: Final = Type()
TEXT: Final = Type(kinds=frozenset({"text"}))
INT: Final = Type(kinds=frozenset({"int"}))
FLOAT: Final = Type(kinds=frozenset({"float"}))
BOOL: Final = Type(kinds=frozenset({"bool"}))
NULL: Final = Type(kinds=frozenset({"null"}))
LIST: Final = Type(kinds=frozenset({"list"}))
MAP: Final = Type(kinds=frozenset({"map"}))
TIME: Final = Type(kinds=frozenset({"time"}))
DURATION: Final = Type(kinds=frozenset({"duration"}))

_BASIC: Final[dict[Any, Type]] = {
    str: TEXT,
    int: INT,
    float: FLOAT,
    bool: BOOL,
    type(None): NULL,
    list: LIST,
    dict: MAP,
}


def of(annotation: Any, *, owner: str = "", prefix: str = "") -> Type:
    """The type of a payload's field."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _BASIC:
        return _BASIC[annotation]
    if origin is Annotated:
        return of(args[0], owner=owner, prefix=prefix)
    if origin is Literal and all(isinstance(arg, str) for arg in args):
        return replace(TEXT, values=args)
    if origin in (typing.Union, types.UnionType):
        return _union([of(arg, owner=owner, prefix=prefix) for arg in args])
    if origin is list:
        return replace(LIST, item=of(args[0], owner=owner, prefix=prefix))
    if origin is dict:
        return replace(MAP, item=of(args[1], owner=owner, prefix=prefix))
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return _struct(annotation, owner=owner, prefix=prefix)
    return ANY


def of_value(value: Any) -> Type:
    """The type of a value that a file holds."""
    if isinstance(value, dict):
        return replace(MAP, fields={str(k): of_value(v) for k, v in value.items()})
    return _BASIC.get(type(value), ANY)


def payload(topic: Topic | None) -> Type:
    """What is known of the payload of a topic; one that names no fields takes any."""
    if topic is None or not topic.payload.__struct_encode_fields__:
        return MAP
    found = _struct(topic.payload, owner=topic.name, prefix="")
    return replace(found, fields={**(found.fields or {}), VERSION_KEY: INT})


def event(of_payload: Type) -> Type:
    """An event as conditions see it: every field of the envelope is there, or null."""
    fields = {**_envelope(), "payload": of_payload}
    return replace(MAP, fields=fields, lacks="an event has no field {}")


@functools.cache
def _envelope() -> Mapping[str, Type]:
    hints = {info.name: info.type for info in msgspec.structs.fields(Event)}
    return {name: of(hints[name]) for name in FIELDS}


@functools.cache
def _struct(struct: type[msgspec.Struct], *, owner: str, prefix: str) -> Type:
    fields = {
        info.encode_name: of(info.type, owner=owner, prefix=f"{prefix}{info.encode_name}.")
        for info in msgspec.structs.fields(struct)
    }
    lacks = f"{owner} has no payload field {{}}"
    return replace(MAP, fields=fields, lacks=lacks, owner=owner, prefix=prefix)


def _union(found: list[Type]) -> Type:
    if not all(one.known for one in found):
        return ANY
    kinds = frozenset(kind for one in found for kind in one.kinds)
    parts = [one for one in found if one.kinds != NULL.kinds]
    # fields and values are known where there is one real type beside null
    return replace(parts[0], kinds=kinds) if len(parts) == 1 else Type(kinds=kinds)
