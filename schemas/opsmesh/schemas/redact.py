"""Taking secrets out of values, texts and stored bytes.

Pure: what is given is never changed, and what nothing matched in comes back as the same object. The
one rule: redacting twice gives the same as redacting once, and the same event gives the same bytes
each time, so that a line can be sent again, and the sink can look once more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from opsmesh.schemas import commitments, spans
from opsmesh.schemas.commitments import MARK, Place
from opsmesh.schemas.envelope import raw_fields
from opsmesh.schemas.errors import EnvelopeError
from opsmesh.schemas.exact import Known
from opsmesh.schemas.ids import derived
from opsmesh.schemas.secret_checks import entropy, placeholder
from opsmesh.schemas.secret_rules import FieldRule, ValueRule
from opsmesh.schemas.secret_search import Rules

__all__ = ["FieldRule", "Finding", "Kept", "Redactor", "Report", "ValueRule", "redact"]

#: Levels of nesting that are searched; what lies deeper is taken out whole, unseen.
MAX_DEPTH: Final = 100
#: The rule that a mark names where a secret that is known by its value stood.
KNOWN: Final = "secret"
#: Fields of the envelope that say which event it is. They are never touched: a message that lost
#: them could not be found, ordered or sent again.
IDENTITY: Final = frozenset(
    [
        "topic",
        "ts_utc",
        "severity",
        "host",
        "id",
        "schema_version",
        "causation_id",
        "hops",
        "seq",
        "boot_id",
        "run_id",
        "attempt",
        "exit_code",
        "duration_ms",
        "traceparent",
    ]
)

#: In place of a rule's number.
_KNOWN: Final = -1

_V = TypeVar("_V")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Finding(NamedTuple):
    """One thing that was taken out: its JSON path, like `$.env[0]`, the rule that saw it, and where
    in its text it stood (the whole value: 0 and its length)."""

    path: str
    rule: str
    at: int = 0
    size: int = 0


class Kept(NamedTuple):
    """Something that has a secret's form and was left: what it is, and why."""

    path: str
    rule: str
    at: int
    text: str
    why: str


Report = list[Finding]


class _Pass:
    """One call: where the values are from, what was found in them, and what was nearly."""

    __slots__ = ("context", "kept", "marks", "report")

    def __init__(self, context: str, kept: list[Kept] | None = None) -> None:
        self.context = context
        self.report: Report = []
        self.kept = kept
        self.marks: dict[str, int] = {}


class Redactor:
    """The built-in rules, and those of the user.

    `key` makes the commitments; without one a mark names its rule alone. What one of `allow`
    matches as a whole is no secret. `known` are secrets by their value, which may be learnt later;
    no rule and no setting lets one of them pass.
    """

    def __init__(
        self,
        extra_rules: Iterable[FieldRule | ValueRule] = (),
        *,
        key: bytes | None = None,
        allow: Iterable[re.Pattern[str]] = (),
        cards: bool = True,
        emails: bool = False,
        known: Known | None = None,
    ) -> None:
        self.known = Known() if known is None else known
        self._key = key
        self._allow = tuple(allow)
        self._rules = Rules(extra_rules, cards=cards, emails=emails)

    def suspicious(self, data: bytes) -> bool:
        """Whether a rule may match in these bytes; False is certain, and costs microseconds."""
        return self.known.in_bytes(data) or self._rules.suspicious(data)

    def redact(self, payload: _V, *, context: str = "") -> tuple[_V, Report]:
        """The values without secrets, and what was taken out. `context` names what they are of, so
        that no two places share a salt: an event's id, a run and its step."""
        try:
            if not self.suspicious(_encode(payload)):
                return payload, []
        except (TypeError, ValueError, RecursionError):
            pass
        one = _Pass(context)
        clean = self._walk(payload, "$", one, 0)
        return (clean, one.report) if one.report else (payload, one.report)

    def text(self, text: str, *, context: str = "", path: str = "$", cut: bool = False) -> str:
        """A single text without secrets. `cut`: its beginning is missing, and what it begins with
        may be the end of a secret."""
        one = _Pass(context)
        return self._whole(text, path, one, cut=cut)

    def event(
        self, data: bytes, *, otherwise: str = "", kept: list[Kept] | None = None
    ) -> tuple[bytes, Report]:
        """An event's stored bytes without secrets, and what was taken out.

        Fields in which nothing is found keep their bytes. What is no JSON object is searched as
        text. `otherwise` stands for the id of an event that has none.
        """
        if not self.suspicious(data):
            return data, []
        try:
            fields = raw_fields(data)
            one = _Pass(_id(fields) or otherwise or _digest(data), kept)
            return self._fields_of(data, fields, one), one.report
        except (EnvelopeError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            one = _Pass(otherwise or _digest(data), kept)
        text = data.decode(errors="surrogateescape")
        clean = self._text(text, "$", one)
        return (clean.encode(errors="surrogateescape") if one.report else data), one.report

    def redact_bytes(self, data: bytes, *, stored: tuple[str, int, int] | None = None) -> bytes:
        """What `event` gives, alone: for the archive, and for whoever compares with it. `stored` is
        (stream, sequence, microseconds since the epoch), from which an event without an id has
        its own, as in `envelope.decode`."""
        if not self.suspicious(data):
            return data
        stream, sequence, us = stored or ("", 0, 0)
        return self.event(data, otherwise=derived(us // 1000, stream, str(sequence)))[0]

    def same(self, archived: bytes, streamed: bytes, *, stored: tuple[str, int, int]) -> bool:
        """Whether a line of the archive is of this message of the stream: its bytes, or what they
        became when they were redacted, also when a rule was added since."""
        if archived == streamed:
            return True
        clean = self.redact_bytes(streamed, stored=stored)
        return clean in (archived, self.redact_bytes(archived, stored=stored))

    def file(
        self, data: bytes, *, context: str, path: str, cut: bool = False
    ) -> tuple[bytes, Report]:
        """A file's bytes without secrets; its end may begin in mid-character. One with zero bytes
        is a text when it is UTF-8, as environment blocks and command lines of /proc are; else it
        stays as it is but for secrets that are known by their value. `cut` as for a text."""
        if not self.suspicious(data) and not (cut and self.known):
            return data, []
        one = _Pass(context)
        # a program or a database: no rule can tell what its bytes mean, but a known value can
        rules = b"\0" not in data or _is_utf8(data)
        text = data.decode(errors="surrogateescape")
        clean = self._whole(text, path, one, cut=cut, rules=rules)
        return (clean.encode(errors="surrogateescape") if one.report else data), one.report

    def _fields_of(self, data: bytes, fields: dict[str, Any], one: _Pass) -> bytes:
        for name, raw in list(fields.items()):
            found = len(one.report)
            # The key is searched like any other; a field that says which event it is stays.
            if name in IDENTITY:
                continue
            clean = self._walk_dict({name: _decode(raw)}, "$", one, 0)
            if len(one.report) > found:
                fields = {
                    new: value
                    for old, kept in fields.items()
                    for new, value in (clean.items() if old == name else ((old, kept),))
                }
        return _encode(fields) if one.report else data

    def _walk(self, value: Any, path: str, one: _Pass, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(value, path, one)
        if not isinstance(value, dict | list | tuple):
            return value
        if depth >= MAX_DEPTH:
            return self._mark(value, path, "depth", one)
        if isinstance(value, dict):
            return self._walk_dict(value, path, one, depth)
        return [self._item(value, n, f"{path}[{n}]", one, depth) for n in range(len(value))]

    def _item(self, items: Any, n: int, path: str, one: _Pass, depth: int) -> Any:
        """An item of a list, which may be a command line: the item before says what it is."""
        item = items[n]
        at = spans.secret_argument(items, n)
        if at is None or self._innocent(item[at:], "flag", path, one):
            return self._walk(item, path, one, depth + 1)
        return item[:at] + self._mark(item[at:], path, "flag", one, at=at)

    def _walk_dict(
        self, value: dict[Any, Any], path: str, one: _Pass, depth: int
    ) -> dict[Any, Any]:
        clean: dict[Any, Any] = {}
        for name, key, here, item in self._entries(value, path, one):
            if rule := self._rules.field(name):
                clean[key] = self._blank(item, here, rule, one, depth)
            else:
                clean[key] = self._walk(item, here, one, depth + 1)
        return clean

    def _entries(
        self, value: dict[Any, Any], path: str, one: _Pass
    ) -> Iterator[tuple[str, Any, str, Any]]:
        """Each entry as (name, key to store, path, item)."""
        for n, (key, item) in enumerate(value.items()):
            name = str(key)
            quiet = self._rules.quiet(name) and not self.known.found(name)
            shown = name if quiet else self._text(name, f"{path}.*", one)
            if shown != name:  # the key itself is a secret; its place keeps two of them apart
                yield name, f"{shown}#{n}", f"{path}.*", item
            else:
                yield name, key, commitments.member(path, name), item

    def _blank(self, value: Any, path: str, rule: FieldRule, one: _Pass, depth: int) -> Any:
        """Everything under a secret's name, with the shape kept. Truth values and null stay."""
        if isinstance(value, dict) and depth < MAX_DEPTH:
            return {
                key: self._blank(item, here, rule, one, depth + 1)
                for _, key, here, item in self._entries(value, path, one)
            }
        if isinstance(value, list | tuple) and depth < MAX_DEPTH:
            items = enumerate(value)
            return [self._blank(v, f"{path}[{n}]", rule, one, depth + 1) for n, v in items]
        if value is None or isinstance(value, bool) or value == "":
            return value
        if isinstance(value, int | float) and not rule.numbers:
            return value
        if isinstance(value, str) and (
            MARK.fullmatch(value) or self._innocent(value, rule.name, path, one)
        ):
            return value
        return self._mark(value, path, rule.name, one)

    def _whole(self, text: str, path: str, one: _Pass, *, cut: bool, rules: bool = True) -> str:
        half = self.known.half(text) if cut else 0
        if half:
            one.marks.setdefault(path, len(MARK.findall(text)))
        mark = self._mark(text[:half], path, KNOWN, one) if half else ""
        return mark + self._text(text[half:], path, one, rules=rules)

    def _text(self, text: str, path: str, one: _Pass, *, rules: bool = True) -> str:
        asked = self._rules.asked(text).union(self._rules.unhinted) if rules else ()
        known = self.known.found(text)
        if not asked and not known:
            return text
        marks = [found.span() for found in MARK.finditer(text)]
        found = [
            spans.Span(start, stop, _KNOWN)
            for start, stop in known
            if not spans.within(text, start, stop, marks)
        ]
        for n in sorted(asked):
            rule = self._rules.values[n]
            pattern = self._rules.pattern(n)
            group = "secret" if "secret" in pattern.groupindex else 0
            for match in pattern.finditer(text):
                start, stop = match.span(group)
                if start == stop or spans.within(text, start, stop, marks):
                    continue
                if not self._innocent(match[group], rule, path, one, at=start):
                    found.append(spans.Span(start, stop, n))
        if not found:
            return text
        parts: list[str] = []
        end = 0
        one.marks.setdefault(path, len(marks))
        for start, stop, n in spans.merged(found, marks):
            name = KNOWN if n == _KNOWN else self._rules.values[n].name
            taken = self._mark(text[start:stop], path, name, one, at=start)
            parts += text[end:start], taken
            end = stop
        return "".join((*parts, text[end:]))

    def _innocent(
        self, text: str, rule: ValueRule | str, path: str, one: _Pass, *, at: int = 0
    ) -> bool:
        """Whether a match is no secret after all."""
        name, why = (rule, "") if isinstance(rule, str) else (rule.name, "")
        if any(pattern.fullmatch(text) for pattern in self._allow):
            why = "redact.allow has it"
        elif isinstance(rule, str) or rule.placeholders:
            why = "it stands for a secret" if placeholder(text) else ""
        if not why and isinstance(rule, ValueRule):
            if rule.entropy and (bits := entropy(text)) < rule.entropy:
                why = f"too regular: {bits:.1f} bits a character, a secret has {rule.entropy:g}"
            elif rule.check is not None:
                why = rule.check(text)
        if why and one.kept is not None:
            one.kept.append(Kept(path, name, at, text, why))
        return bool(why)

    def _mark(self, taken: Any, path: str, rule: str, one: _Pass, *, at: int = 0) -> str:
        n = one.marks.get(path, 0)
        one.marks[path] = n + 1
        size = len(taken) if isinstance(taken, str) else 0
        one.report.append(Finding(path, rule, at, size))
        try:
            return commitments.mark(rule, taken, Place(one.context, path, n), self._key)
        except (TypeError, ValueError, RecursionError):  # of values that are no JSON
            return f"[redacted:{rule}]"


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _id(fields: dict[str, Any]) -> str:
    try:
        return msgspec.json.decode(fields.get("id", b'""'), type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@lru_cache(1)
def built_in() -> Redactor:
    """The built-in rules without a key."""
    return Redactor()


def redact(payload: _V) -> tuple[_V, Report]:
    """`Redactor.redact` with the built-in rules."""
    return built_in().redact(payload)
