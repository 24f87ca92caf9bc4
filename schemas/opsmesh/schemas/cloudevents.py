"""An event as a CloudEvent (CNCF, version 1.0), and a CloudEvent as an event: the one definition of
what becomes what.

CloudEvents knows a few names for what every event has, and lets everything else be an extension
attribute: lower-case letters and digits, holding text, a 32-bit number or a boolean. Nothing of the
envelope is left out; the payload is `data`, with its own bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, get_type_hints
from urllib.parse import quote, unquote

import msgspec

from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import FIELDS, Event, check_topic
from opsmesh.schemas.errors import EnvelopeError, TopicError
from opsmesh.schemas.topics import VERSION_KEY, schema_name

SPEC_VERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/json"
#: How the sources of our own events begin, and what stands before a topic in `type`s of some.
OURS: Final = "urn:opsmesh:"
PREFIX: Final = "io.opsmesh."
#: What a stranger's attributes that have no place in the envelope are called in an event.
KEPT: Final = "ce_"
#: Fields of the envelope that are attributes of CloudEvents' own.
OWN: Final = frozenset({"topic", "ts_utc", "source", "component", "host", "payload", "id"})
#: Names that an extension attribute must not have.
RESERVED: Final = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"}
    | {"data", "data_base64"}
)
#: A CloudEvents Integer has 32 bits; a larger one is written as text.
INT_MIN, INT_MAX = -(2**31), 2**31 - 1

#: Fields that an attribute of another name is: strangers' too, and those that we alone write.
_FIELD_OF: Final = {name.replace("_", ""): name for name in FIELDS if name not in OWN}
_OURS_ALONE: Final = frozenset({"seq", "boot_id", "schema_version"})
_TYPES: Final = get_type_hints(Event)

_ILLEGAL: Final = re.compile(r"[^a-z0-9]")
_NO_TOKEN: Final = re.compile(r"[^a-z0-9_]+")
#: What CloudEvents text must not hold: controls, lone surrogates, noncharacters.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def source(event: Event) -> str:
    """`urn:opsmesh:<host>:<source>`: a URI, each part percent-encoded."""
    return f"{OURS}{quote(event.host, safe='')}:{quote(event.source, safe='')}"


def to_cloudevent(
    event: Event, payload: Any = None, *, known: Callable[[str], bool] | None = None
) -> dict[str, Any]:
    """The event as a CloudEvent's JSON object. `payload` are the payload's stored bytes
    (msgspec.Raw) where they are at hand; `known` tells which topics have a schema to name."""
    found: dict[str, Any] = {
        "specversion": SPEC_VERSION,
        "id": event.id,
        "source": source(event),
        "type": event.topic,
        "time": event.ts_utc,
        "datacontenttype": CONTENT_TYPE,
    }
    if event.component:
        found["subject"] = _clean(event.component)
    if known is not None and known(event.topic):
        version = event.payload.get(VERSION_KEY, 1)
        found["dataschema"] = schema_name(event.topic, version if type(version) is int else 1)
    for name in FIELDS:
        if name not in OWN:
            _extend(found, name, getattr(event, name))
    _extend(found, "host", event.host)
    for name, value in event.extra.items():
        _extend(found, name, value)
    found["data"] = event.payload if payload is None else payload
    return found


def is_cloudevent(fields: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a CloudEvent in structured mode, and no event of ours."""
    return "specversion" in fields and "topic" not in fields


def from_cloudevent(raw: Mapping[str, Any], *, topic: str = "") -> dict[str, Any]:
    """The fields of an event, as `envelope.complete` takes them, of a CloudEvent's JSON object,
    whose values are still bytes (`envelope.raw_fields`). `topic` goes before what `type` makes.

    What we wrote ourselves comes back as it was. Of a stranger's nothing is lost: what has no place
    in the envelope stays beside it, under its own name for an extension, as `ce_<attribute>` for
    one of CloudEvents' own. Two with one source and id are one event by the standard
    (3.1.1), so the id is derived from them. Raises EnvelopeError.
    """
    values = {name: _plain(name, value) for name, value in raw.items() if not _is_data(name)}
    for name in ("specversion", "id", "source", "type"):
        if not isinstance(values.get(name), str) or not values[name]:
            raise EnvelopeError(f"a CloudEvent needs {name}, a text that is not empty", field=name)
    if values["specversion"].partition(".")[0] != SPEC_VERSION.partition(".")[0]:
        raise EnvelopeError(
            f"specversion {values['specversion']!r}: CloudEvents {SPEC_VERSION} is what is read",
            field="specversion",
        )
    ours = values["source"].startswith(OURS) and values["source"].count(":") == 3
    found: dict[str, Any] = {
        "topic": topic or _topic(values["type"]),
        "payload": _payload(raw),
        **_origin(values, ours),
    }
    if "time" in values:
        found["ts_utc"] = values["time"]
    if values.get("subject"):
        found["component"] = values["subject"]
    if found["topic"] != values["type"]:
        found[f"{KEPT}type"] = values["type"]
    if values.get("datacontenttype", CONTENT_TYPE) != CONTENT_TYPE:
        found[f"{KEPT}datacontenttype"] = values["datacontenttype"]
    if "dataschema" in values and not ours:
        found[f"{KEPT}dataschema"] = values["dataschema"]
    for name, value in values.items():
        if name not in RESERVED:
            _take_back(found, name, value, ours=ours)
    return found


def _origin(values: Mapping[str, Any], ours: bool) -> dict[str, Any]:
    id, source = values["id"], values["source"]
    if ours:
        host, name = source.removeprefix(OURS).split(":")
        return {"id": id, "source": unquote(name), "host": unquote(host)}
    try:
        ms = times.parse_us(values["time"]) // 1000
    except (KeyError, TypeError, ValueError):  # none, or one that `complete` will find wrong
        ms = 0
    return {"id": ids.derived(ms, source, id), "source": source, f"{KEPT}id": id}


def _topic(type: str) -> str:
    """The topic that a `type` is: itself where it can be, else what is nearest."""
    type = type.removeprefix(PREFIX)
    try:
        return check_topic(type)
    except TopicError:
        tokens = [_NO_TOKEN.sub("_", token).strip("_") for token in type.lower().split(".")]
        tokens = [token for token in tokens if token] or ["event"]
        if len(tokens) < 2:
            tokens = ["cloudevents", *tokens]
        return ".".join([*tokens[:5], *(["_".join(tokens[5:])] if tokens[5:] else [])])


def _is_data(name: str) -> bool:
    return name in ("data", "data_base64")


def _plain(name: str, value: Any) -> Any:
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"{name} is not JSON: {error}", field=name) from error


def _payload(raw: Mapping[str, Any]) -> Any:
    """`data` with its own bytes when it is an object; else it is the field `data` of one."""
    if "data_base64" in raw:
        return {"data_base64": _plain("data_base64", raw["data_base64"])}
    data = raw.get("data")
    if data is None:
        return {}
    if isinstance(data, msgspec.Raw):
        if bytes(data).lstrip()[:1] == b"{":
            return data
        data = _plain("data", data)
    return data if isinstance(data, dict) else {} if data is None else {"data": data}


def _take_back(found: dict[str, Any], name: str, value: Any, *, ours: bool) -> None:
    """An extension attribute: the field that it is, or one that stays beside the envelope."""
    if name == "host" and ours:  # as the source has it
        return
    field = _FIELD_OF.get(name)
    if field is not None and (ours or field not in _OURS_ALONE):
        try:  # numbers beyond 32 bits and fractions are text in a CloudEvent
            found[field] = msgspec.convert(value, _TYPES[field], strict=False)
            return
        except msgspec.ValidationError:
            pass
    found[f"{KEPT}{name}" if field or name in FIELDS else name] = value


def extension(name: str) -> str:
    """The extension attribute that a field becomes: `correlation_id` is `correlationid`."""
    return _ILLEGAL.sub("", name.lower())


def _extend(found: dict[str, Any], field: str, value: Any) -> None:
    """Add a field as an extension attribute; what is empty is not there, as the standard wants it.
    A name that is taken gets a number."""
    if value is None or value == "":
        return
    stem = extension(field) or "field"
    name, n = stem, 2
    while name in found or name in RESERVED:
        name, n = f"{stem}{n}", n + 1
    found[name] = _attribute(value)


def _attribute(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and INT_MIN <= value <= INT_MAX:
        return value
    if isinstance(value, str):
        return _clean(value)
    return _clean(msgspec.json.encode(value).decode())


def _clean(text: str) -> str:
    return text if text.isprintable() else _UNPRINTABLE.sub("\ufffd", text)
