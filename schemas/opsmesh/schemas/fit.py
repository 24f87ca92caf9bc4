"""Whether a payload fits its type, and a clear text when it does not."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from opsmesh.schemas.errors import PayloadError
from opsmesh.schemas.nearest import nearest
from opsmesh.schemas.topics import VERSION_KEY, Topic

#: Characters of a wrong value that an error shows.
SHOWN_VALUE: Final = 60

_AT = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
_STEP = re.compile(r"\.(?P<key>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")
_WANTS_JSON = re.compile(
    r"Expected `(?:array|object)[^`]*`, got `str` - at `\$\.(?P<key>[^.\[`]+)`$"
)


def fit(topic: Topic, payload: dict[str, Any]) -> None:
    """PayloadError unless the payload fits the topic's type. Unknown keys are fine."""
    try:
        msgspec.convert(payload, topic.payload)
    except msgspec.ValidationError as error:
        raise PayloadError(topic.name, _explain(error, topic, payload)) from error


def coerce(topic: Topic, payload: dict[str, Any]) -> dict[str, Any]:
    """The payload with strings made the numbers, booleans, lists and objects that its type wants.

    Numbers and booleans are read as written; a list or an object is read as JSON. Keys that the
    type does not name keep their values.
    """
    payload = dict(payload)
    while True:
        try:
            typed = msgspec.convert(payload, topic.payload, strict=False)
            break
        except msgspec.ValidationError as error:
            if not _read_json(error, payload):
                raise PayloadError(topic.name, _explain(error, topic, payload)) from error
    merged: dict[str, Any] = _merge(payload, typed)
    return merged


def coerce_version(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload with a version written as text made a number, so that its type can be chosen."""
    version = payload.get(VERSION_KEY)
    if isinstance(version, str) and version.isdecimal():
        return {**payload, VERSION_KEY: int(version)}
    return payload


def _read_json(error: msgspec.ValidationError, payload: dict[str, Any]) -> bool:
    """Replace the string that the error complains of by the JSON in it; False if it is none."""
    wants = _WANTS_JSON.search(str(error))
    if wants is None:
        return False
    try:
        payload[wants["key"]] = msgspec.json.decode(payload[wants["key"]])
    except (KeyError, msgspec.DecodeError):
        return False
    return True


def _merge(given: Any, typed: Any) -> Any:
    """`typed` where it has a value, `given` where the type knows nothing."""
    if isinstance(typed, msgspec.Struct):
        names = zip(typed.__struct_encode_fields__, typed.__struct_fields__, strict=True)
        typed = {name: getattr(typed, attribute) for name, attribute in names}
    if isinstance(given, dict) and isinstance(typed, dict):
        return {k: _merge(v, typed[k]) if k in typed else v for k, v in given.items()}
    if isinstance(given, list) and isinstance(typed, list) and len(given) == len(typed):
        return [_merge(g, t) for g, t in zip(given, typed, strict=True)]
    return msgspec.to_builtins(typed)


def _explain(error: msgspec.ValidationError, topic: Topic, payload: dict[str, Any]) -> str:
    text = str(error)
    at = _AT.search(text)
    path = at["path"] if at else ""
    value = _value_at(payload, path)
    where = path.removeprefix(".")
    reason = text[: at.start()] if at else text
    if missing := _MISSING.match(reason):
        return _missing(missing["name"], where, value, topic)
    wanted = {f.name: f.type for f in topic.fields()}.get(where)
    if wanted is None:
        wanted = reason.removeprefix("Expected ").partition(", got")[0].replace("`", "")
    shown = repr(value)
    if len(shown) > SHOWN_VALUE:
        shown = shown[:SHOWN_VALUE] + "…"
    return f"field {where}: expected {wanted}, got {shown}"


def _missing(name: str, where: str, value: Any, topic: Topic) -> str:
    field = next((f for f in topic.fields() if f.name == name), None) if not where else None
    about = f" ({field.type}: {field.meaning})" if field else f" in {where}" if where else ""
    known = {f.name for f in topic.fields()} if not where else set()
    similar = nearest(name, (k for k in value if k not in known)) if isinstance(value, dict) else ""
    hint = f"; {similar!r} is given, did you mean {name!r}?" if similar else ""
    return f"missing field {name}{about}{hint}"


def _value_at(payload: Any, path: str) -> Any:
    value = payload
    for step in _STEP.finditer(path):
        try:
            value = value[step["key"]] if step["key"] else value[int(step["index"])]
        except (LookupError, TypeError, ValueError):
            break  # `[...]` stands for any value of a mapping: the mapping itself is shown
    return value
