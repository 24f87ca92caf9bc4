"""An event as a CloudEvent (CNCF, version 1.0): the one definition of what becomes what.

CloudEvents knows a few names for what every event has, and lets everything else be an extension
attribute: lower-case letters and digits, holding text, a 32-bit number or a boolean. Nothing of the
envelope is left out; the payload is `data`, with its own bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import msgspec

from opsmesh.schemas.envelope import FIELDS, Event
from opsmesh.schemas.topics import VERSION_KEY, schema_name

SPEC_VERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/json"
#: Fields of the envelope that are attributes of CloudEvents' own.
OWN: Final = frozenset({"topic", "ts_utc", "source", "component", "host", "payload", "id"})
#: Names that an extension attribute must not have.
RESERVED: Final = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"}
    | {"data", "data_base64"}
)
#: A CloudEvents Integer has 32 bits; a larger one is written as text.
INT_MIN, INT_MAX = -(2**31), 2**31 - 1

_ILLEGAL: Final = re.compile(r"[^a-z0-9]")
#: What CloudEvents text must not hold: controls, lone surrogates, noncharacters.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def source(event: Event) -> str:
    """`urn:opsmesh:<host>:<source>`: a URI, each part percent-encoded."""
    return f"urn:opsmesh:{quote(event.host, safe='')}:{quote(event.source, safe='')}"


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
