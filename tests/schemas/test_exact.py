"""Secrets that are known by their value."""

from __future__ import annotations

import base64
import html
import json
import math
import re
import shlex
import time
import urllib.parse
from collections.abc import Callable

import pytest

from opsmesh.schemas.exact import Known
from opsmesh.schemas.redact import Redactor

#: No maker's form, no telling name: nothing but its value gives it away.
SECRET = 'blue ox/"walks"+9\\%é&at=dawn'
LINES = "-----BEGIN THING-----\nfirstlineofthething\nsecondlineofthething\n-----END THING-----\n"


def knowing(*values: str, **more: object) -> Redactor:
    known = Known()
    for value in values:
        known.learn(value)
    return Redactor(known=known, **more)  # type: ignore[arg-type]


FORMS: dict[str, Callable[[str], str]] = {
    "itself": lambda s: s,
    "JSON": json.dumps,
    "JSON in JSON": lambda s: json.dumps({"log": json.dumps({"x": s})}),
    "JSON that keeps é": lambda s: json.dumps(s, ensure_ascii=False),
    "an address": lambda s: urllib.parse.quote(s, safe=""),
    "a path": urllib.parse.quote,
    "a form's field": urllib.parse.quote_plus,
    "an address in small letters": lambda s: re.sub(
        "%..", lambda found: found[0].lower(), urllib.parse.quote(s, safe="")
    ),
    "HTML": html.escape,
    "a shell": shlex.quote,
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 after one": lambda s: base64.b64encode(b"u" + s.encode()).decode(),
    "base64 as user": lambda s: base64.b64encode(b"me:" + s.encode() + b"!").decode(),
    "base64 of two more": lambda s: base64.b64encode(b"uv" + s.encode() + b"wxyz").decode(),
    "base64 for addresses": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "wrapped base64": lambda s: base64.encodebytes(b"x" * 50 + s.encode()).decode(),
    "a wrapped terminal": lambda s: s[:9] + "\r\n" + s[9:],
    "hex": lambda s: s.encode().hex(),
    "HEX": lambda s: s.encode().hex().upper(),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    """However a program writes it down, it is taken out, and what is around it stays."""
    shown = FORMS[form](SECRET)
    clean = knowing(SECRET).text(f"before <{shown}> after")
    assert clean.startswith("before <")
    assert clean.endswith("> after")
    assert "[redacted:secret]" in clean
    left = clean.replace("[redacted:secret]", "")
    for part in ("blue", "walks", "dawn"):
        for piece in (part, part.encode().hex(), part.encode().hex().upper()):
            assert piece not in left


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_base64_anywhere(before: int, after: int) -> None:
    """Wherever in an encoded text it stands, decoding what is left gives no byte of it back."""
    shown = base64.b64encode(b"~" * before + SECRET.encode() + b"~" * after).decode()
    left = knowing(SECRET).text(shown).split("[redacted:secret]")
    assert len(left) == 2
    assert before * 8 // 6 - 1 <= len(left[0]) <= before * 8 // 6
    assert len(left[1].rstrip("=")) <= math.ceil(after * 8 / 6)


def test_base64_leaves_no_bit() -> None:
    """The characters beside it, in which some of its bits are, go too; further ones stay."""
    shown = base64.b64encode(b"0123456" + b"swordfish" + b"0123456").decode()
    assert knowing("swordfish").text(shown) == "MDEyMzQ1N[redacted:secret]AxMjM0NTY="


def test_lines() -> None:
    """Of several lines each is a secret by itself, but not those that only say what it is."""
    clean = knowing(LINES).text("a secondlineofthething b -----BEGIN THING-----")
    assert clean == "a [redacted:secret] b -----BEGIN THING-----"


def test_as_a_whole() -> None:
    """All lines at once are one secret."""
    assert knowing(LINES).text(f"<{LINES}>") == "<[redacted:secret]\n>"


def test_everywhere_in_an_event() -> None:
    """Values, keys, lists and stored bytes are searched, and fields without one keep theirs."""
    rules = knowing("swordfish")
    clean, report = rules.redact({"a": ["x swordfish"], "swordfish": {"b": 1}})
    assert "swordfish" not in repr(clean)
    assert [found.rule for found in report] == ["secret", "secret"]
    data, _ = rules.event(b'{"id":"1","a":"sword\\u0066ish","b":  2}')
    assert json.loads(data) == {"id": "1", "a": "[redacted:secret]", "b": 2}


def test_a_binary_file() -> None:
    """A file that is no text loses the value, and nothing else."""
    data = b"\0\xff\xfepassword=swordfish\0\x80"
    clean, report = knowing("swordfish").file(data, context="c", path="p")
    assert clean == b"\0\xff\xfepassword=[redacted:secret]\0\x80"
    assert len(report) == 1


def test_twice_is_once() -> None:
    """A mark is not searched, whatever the secret is."""
    rules = knowing("redacted", key=bytes(32))
    once = rules.text("it is redacted here")
    assert rules.text(once) == once != "it is redacted here"


def test_nothing_lets_it_pass() -> None:
    """What the settings allow is allowed to rules, not to known values."""
    rules = knowing("swordfish", allow=[re.compile("swordfish")])
    assert rules.text("swordfish") == "[redacted:secret]"


def test_too_short() -> None:
    """A value that stands in other texts by chance cannot be kept out of them."""
    with pytest.raises(ValueError, match="4 characters"):
        Known().learn("a\nb")


def test_half() -> None:
    """The end of a secret that an output limit has cut off is known at the beginning of a text."""
    known = Known()
    known.learn("swordfish")
    assert known.half("rdfish and more") == 6
    assert known.half("\ufffddfish") == 6
    assert known.half("ish and more") == 0
    assert known.half("more") == 0


def test_half_of_a_large_one() -> None:
    """However large a secret is, its end is found at once."""
    known = Known()
    known.learn("".join(f"{n:x}-" for n in range(12_000)) + "theend")
    began = time.process_time()
    assert known.half("2edf-theend and more") == 11
    assert time.process_time() - began < 1


def test_learnt_later() -> None:
    """Redactors that share what is known take out what is learnt after they were made."""
    known = Known()
    one, other = Redactor(known=known), Redactor(known=known)
    assert one.text("swordfish") == "swordfish"
    known.learn("swordfish")
    assert one.text("swordfish") == other.text("swordfish") == "[redacted:secret]"


def test_shows_nothing() -> None:
    """Its own representation holds no value."""
    known = Known()
    known.learn("swordfish")
    assert "swordfish" not in repr(known)
