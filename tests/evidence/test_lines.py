"""The line: every stored byte survives, and the hash covers all of it."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.handlers.evidence import lines

PREV = "ab" * 32
TIME = "2026-11-23T09:00:00.000001Z"


def test_line_is_json_with_the_stored_bytes_inside() -> None:
    """A line is one JSON object, and an event's own bytes stand in it unchanged."""
    data = b'{ "topic":"a.b" ,"unknown": 1.50, "z":"\\u00e9"}'
    raw, made = lines.of_event("EVENTS", 7, TIME, PREV, data)
    assert data in raw
    assert json.loads(raw) == {
        "stream": "EVENTS",
        "seq": 7,
        "time": TIME,
        "prev": PREV,
        "event": json.loads(data),
        "hash": made,
    }
    assert made == hashlib.sha256(raw.rpartition(b',"hash":')[0]).hexdigest() == lines.digest(raw)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\xff", b"[1]", b'{"a":\n1}', b'{"a":"\xff"}', b'{"a":NaN}', b'{"a":1', b'"x"'],
)
def test_what_is_no_object_on_one_line_is_base64(data: bytes) -> None:
    """Pretty-printed, invalid and binary messages are kept byte for byte as base64."""
    raw, _ = lines.of_event("EVENTS", 1, TIME, PREV, data)
    line = lines.parse(raw)
    assert line is not None
    assert (line.kind, line.data) == ("base64", data)
    assert raw.count(b"\n") == 1


@given(
    st.binary() | st.dictionaries(st.text(), st.integers()).map(lambda d: json.dumps(d).encode())
)
def test_any_bytes_come_back(data: bytes) -> None:
    """Whatever was stored is what the line gives back."""
    raw, made = lines.of_event("EVENTS", 1, TIME, PREV, data)
    line = lines.parse(raw)
    assert line is not None
    assert (line.data, line.hash, line.prev) == (data, made, PREV)


def test_value_that_looks_like_the_end_of_a_line_does_not_end_it() -> None:
    """An event that contains `,"hash":` is still read whole."""
    data = b'{"a":1,"hash":"' + b"0" * 64 + b'"}'
    line = lines.parse(lines.of_event("EVENTS", 1, TIME, PREV, data)[0])
    assert line is not None
    assert line.data == data
