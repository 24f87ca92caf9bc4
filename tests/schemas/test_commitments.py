"""What stands where a secret was: bound to its place, each time the same, open to the original."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from opsmesh.schemas import commitments, openings
from opsmesh.schemas.commitments import MARK
from opsmesh.schemas.redact import Redactor, ValueRule

KEY = bytes(range(32))
TOKEN = "ghp_" + "a1B2c3D4e5F6" * 3
ID = "019ab000-0000-7000-8000-000000000001"


def event(payload: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"id": ID, "topic": "a.b", "n": 1.50, "payload": payload, **more}).encode()


def marks(data: bytes) -> list[str]:
    return [found["commitment"] for found in MARK.finditer(data.decode())]


def test_same_event_gives_the_same_bytes() -> None:
    """A line that is sent again, and one that is redacted twice, gives the bytes of the first."""
    data = event({"password": "x1", "text": f"a {TOKEN} b", "argv": ["x", "--token", "abc"]})
    first, report = Redactor(key=KEY).event(data)
    assert len(report) == len(marks(first)) == 3
    assert Redactor(key=KEY).event(data)[0] == first
    assert Redactor(key=KEY).event(first) == (first, [])


def test_no_two_places_look_alike() -> None:
    """The same secret has another commitment at each place, in each event and on each host."""
    data = event({"a": TOKEN, "b": TOKEN, "c": f"{TOKEN} {TOKEN}", "d": [TOKEN, {TOKEN: 1}]})
    found = marks(Redactor(key=KEY).redact_bytes(data))
    found += marks(Redactor(key=KEY).redact_bytes(data.replace(ID.encode(), b"other")))
    found += marks(Redactor(key=KEY[::-1]).redact_bytes(data))
    assert len(set(found)) == len(found) == 18


def test_opening() -> None:
    """With the opening, the original is told from anything else; numbers are their JSON."""
    data = event({"password": 1234, "c": f"1 {TOKEN} 2 {TOKEN[:-1]}0", "x y": {"token": "t"}})
    clean = json.loads(Redactor(key=KEY).redact_bytes(data))
    opened = list(openings.of(clean, KEY, context=ID))
    assert [(one.path, one.rule) for one in opened] == [
        ("$.payload.password", "password"),
        ("$.payload.c", "github_token"),
        ("$.payload.c", "github_token"),
        ('$.payload["x y"].token', "secret"),
    ]
    originals: list[Any] = [1234, TOKEN, TOKEN[:-1] + "0", "t"]
    for n, one in enumerate(opened):
        salt = commitments.from_text(one.salt)
        assert [commitments.opens(one.commitment, salt, o) for o in originals] == [
            n == m for m in range(len(originals))
        ]


def test_later_rule_takes_no_salt_twice() -> None:
    """A rule that is added later removes beside the marks of before, under salts of its own."""
    digits = ValueRule("badge", re.compile(r"badge-\d+"))
    first = Redactor(key=KEY).redact_bytes(event({"a": f"badge-1 {TOKEN} badge-2"}))
    later = Redactor([digits], key=KEY)
    second = later.redact_bytes(first)
    assert later.redact_bytes(second) == second
    found = [one["n"] for one in MARK.finditer(second.decode())]
    assert found == ["1", None, "2"]
    opened = list(openings.of(json.loads(second), KEY, context=ID))
    assert len({one.salt for one in opened}) == 3


def test_marks_without_commitments_stay() -> None:
    """A mark of an older version, with a rule and no commitment, is still one."""
    data = event({"password": "[redacted:password]", "a": "token=[redacted:assignment] x"})
    assert Redactor(key=KEY).event(data) == (data, [])


def test_only_what_held_a_secret_is_written_anew() -> None:
    """Fields in which nothing is found keep their bytes, and those that name the event stay."""
    data = b'{"id":"' + TOKEN.encode() + b'","n": 1.50, "payload" : {"token":"x", "f":1.0}}'
    clean = Redactor(key=KEY).redact_bytes(data)
    assert b'"n":1.50,' in clean
    assert TOKEN.encode() in clean
    assert b'"f":1.0' in clean
    assert b"[redacted:secret:" in clean


def test_whole_envelope_is_searched() -> None:
    """A secret in a field that is no payload, known to us or not, is taken out; so is a key."""
    data = event({}, workspace=f"/x/{TOKEN}", strange={"deep": [TOKEN]}, **{TOKEN: 1})
    clean = Redactor(key=KEY).redact_bytes(data)
    assert TOKEN.encode() not in clean
    assert len(marks(clean)) == 3


def test_what_is_no_event_is_searched_as_text() -> None:
    """Broken JSON, arrays and bytes that are no UTF-8 keep every byte but the secret's."""
    for before, after in ((b'{"a": ', b""), (b"[", b"]"), (b"\xff\xfe ", b"\n\x80")):
        clean = Redactor().redact_bytes(before + TOKEN.encode() + after)
        assert clean == before + b"[redacted:github_token]" + after


def test_escapes_hide_nothing() -> None:
    """A token that JSON spells with escapes is found all the same."""
    spelt = "".join(f"\\u{ord(c):04x}" for c in TOKEN)
    data = ('{"payload":{"a":"' + spelt + '"}}').encode()
    assert b"github_token" in Redactor().redact_bytes(data)
    url = b'{"a":"https:\\/\\/app:hunter2hunter2\\u0040db\\/x"}'
    assert b"hunter2" not in Redactor().redact_bytes(url)


def test_same() -> None:
    """A line of the archive is known as its message again, redacted or not, and as no other."""
    redactor, stored = Redactor(key=KEY), ("EVENTS", 3, 1_700_000_000_000_000)
    streamed = event({"token": "x"})
    archived = redactor.redact_bytes(streamed, stored=stored)
    assert archived != streamed
    assert redactor.same(archived, streamed, stored=stored)
    assert redactor.same(streamed, streamed, stored=stored)
    assert not redactor.same(archived, event({"token": "y"}), stored=stored)


@given(st.text(max_size=60), st.binary(min_size=16, max_size=16))
def test_commitments_bind(text: str, salt: bytes) -> None:
    """A commitment opens to its own text, and to none that differs in one character."""
    made = commitments.commitment(salt, text)
    assert len(made) == 22
    assert commitments.opens(made, salt, text)
    assert not commitments.opens(made, salt, text + "x")
