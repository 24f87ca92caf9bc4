"""Secrets that are known by their value, and the forms in which programs print them.

What is looked for is the value itself, each long line of it, and both as JSON, HTML, an address, a
shell's word, base64 (wherever in an encoded text it begins) and hexadecimal digits write them. Line
breaks and backslashes are passed over on both sides: an encoder that wraps its lines, and JSON
within JSON, hide nothing. Pure but for what was learnt; it never forgets, and never shows a value.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick

#: A value must have so many characters: a shorter one stands in every other text by chance.
MIN_VALUE: Final = 4
#: And a form in another writing, or one line of several, so many.
MIN_FORM: Final = 8

_PASSED_OVER: Final = "\\\r\n"
_SQUEEZE: Final = dict.fromkeys(map(ord, _PASSED_OVER))
#: What is left of a character that was cut in two, decoded with `replace` or `surrogateescape`.
_BROKEN = re.compile(r"\A[\ufffd\udc80-\udcbf]+")
_BASE64: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


class Known:
    """What is taken out wherever it stands. Shared by all redactors of a process."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        #: Each form without what is passed over, and whether it is base64.
        self._forms: dict[str, bool] = {}
        self._search: BytesAhoCorasick | None = None

    def __bool__(self) -> bool:
        return self._search is not None

    def __repr__(self) -> str:
        return f"<Known: {len(self._values)} values>"

    def learn(self, value: str) -> None:
        """From now on, take this out; ValueError for what is too short to be told from chance."""
        if value in self._values:
            return
        if len(value.translate(_SQUEEZE).strip()) < MIN_VALUE:
            raise ValueError(f"a secret has {MIN_VALUE} characters or more")
        forms = dict(self._forms)
        for form, encoded in _forms(value):
            forms.setdefault(form, encoded)
        # in one step: another thread may be searching
        self._forms, self._search = forms, _automaton(forms)
        self._values.add(value)

    def in_bytes(self, data: bytes) -> bool:
        """Whether one may stand in JSON or text of these bytes; False is certain."""
        if self._search is None:
            return False
        if b"\\u" in data:  # any character may hide in an escape
            return True
        return bool(self._search.find_matches_as_indexes(data.translate(None, b"\\\r\n")))

    def found(self, text: str) -> list[tuple[int, int]]:
        """Where they stand in a text: from, and to before."""
        if self._search is None:
            return []
        forms = list(self._forms)
        squeezed = text.translate(_SQUEEZE)
        raw = squeezed.encode(errors="surrogatepass")
        hits = {hit[0] for hit in self._search.find_matches_as_indexes(raw, overlapping=True)}
        if not hits:
            return []
        at: Sequence[int] = range(len(text))
        if len(squeezed) < len(text):
            at = [n for n, character in enumerate(text) if character not in _PASSED_OVER]
        spans = []
        for form in (forms[hit] for hit in hits):
            start = squeezed.find(form)
            while start >= 0:
                first, last = at[start], at[start + len(form) - 1] + 1
                if self._forms[form]:
                    first, last = _rest(text, first, last)
                spans.append((first, last))
                start = squeezed.find(form, start + 1)
        return spans

    def half(self, text: str) -> int:
        """How many characters at the beginning of a text whose beginning was cut away are the end
        of a secret. The whole text may be shorter than one."""
        start = _BROKEN.sub("", text, count=1)
        lead = len(text) - len(start)
        key, most = start[:MIN_VALUE], 0
        if len(key) < MIN_VALUE:
            return 0
        for form in self._forms:
            at = form.find(key, max(1, len(form) - len(start)))
            while 0 <= at < len(form) - most:
                if start.startswith(form[at:]):
                    most = len(form) - at
                at = form.find(key, at + 1)
        return lead + most if most else 0


def _automaton(forms: dict[str, bool]) -> BytesAhoCorasick:
    return BytesAhoCorasick([form.encode(errors="surrogatepass") for form in forms])


def _forms(value: str) -> Iterator[tuple[str, bool]]:
    """Every form, squeezed; whether it is base64."""
    lines = [line.strip() for line in value.splitlines()] if "\n" in value.strip() else []
    wholes = {value, value.strip()}
    parts = {line for line in lines if len(line) >= MIN_FORM and not line.startswith("-----")}
    for text in wholes | parts:
        yield text.translate(_SQUEEZE), False
        for written in _written(text):
            if len(form := written.translate(_SQUEEZE)) >= MIN_FORM:
                yield form, False
        for form in _base64(text.encode(errors="surrogatepass")):
            if len(form) >= MIN_FORM:
                yield form, True


def _written(text: str) -> Iterator[str]:
    """As other writings than base64 have it."""
    raw = text.encode(errors="surrogatepass")
    yield json.dumps(text)[1:-1]
    yield html.escape(text)
    yield html.escape(text, quote=False)
    yield shlex.quote(text)
    yield raw.hex()
    yield raw.hex().upper()
    for escaped in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield escaped
        yield _lower(escaped)


def _lower(escaped: str) -> str:
    head, *rest = escaped.split("%")
    return "%".join([head, *(part[:2].lower() + part[2:] for part in rest)])


def _base64(raw: bytes) -> Iterator[str]:
    """The characters that the bytes alone decide, for each place where they may begin."""
    for before in range(3):
        first = math.ceil(before * 8 / 6)
        last = (before + len(raw)) * 8 // 6
        encoded = base64.b64encode(bytes(before) + raw).decode()[first:last]
        yield encoded
        yield encoded.replace("+", "-").replace("/", "_")


def _rest(text: str, first: int, last: int) -> tuple[int, int]:
    """With the characters on both sides that some bits of the secret are in."""
    if first > 0 and text[first - 1] in _BASE64:
        first -= 1
    if last < len(text) and text[last] in _BASE64:
        last += 1
    while last < len(text) and text[last] == "=":
        last += 1
    return first, last
