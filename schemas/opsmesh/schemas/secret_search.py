"""The rules that look for secrets, and the search that says which of them may find one.

Every rule names hints, which stand in whatever it matches. One pass over the bytes finds the hints
of all rules together, so that an event without a secret costs microseconds, and not a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from ahocorasick_rs import BytesAhoCorasick

from opsmesh.schemas import secret_rules
from opsmesh.schemas.secret_rules import FieldRule, ValueRule
from opsmesh.schemas.token_rules import TOKEN_RULES

#: Field names whose rule is remembered.
KNOWN_NAMES: Final = 2048

#: How texts are searched for hints: ASCII in lower case, every digit as 0.
_FOLD: Final = bytes(48 if 48 <= c <= 57 else c + 32 if 65 <= c <= 90 else c for c in range(256))
#: An ASCII character that JSON need not escape may hide a hint: such bytes are looked into.
_ESCAPES: Final = (b"\\u000", b"\\/")
#: What ties a pattern to the beginning or end of a text: it would not match inside of JSON.
_ANCHOR = re.compile(r"(?<![\\\[])[\^$]|\\[AZ]")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Rules:
    """The built-in rules, and those of the user before them; a rule is known by its number."""

    def __init__(
        self, extra_rules: Iterable[FieldRule | ValueRule] = (), *, cards: bool, emails: bool
    ) -> None:
        extra = tuple(extra_rules)
        self._fields = [r for r in extra if isinstance(r, FieldRule)] + [*secret_rules.FIELD_RULES]
        #: Rules for texts, by their number.
        self.values = [
            *(r for r in extra if isinstance(r, ValueRule)),
            *TOKEN_RULES,
            *secret_rules.NAMED_RULES,
            *((secret_rules.CARD,) if cards else ()),
            *((secret_rules.EMAIL,) if emails else ()),
        ]
        self._patterns: list[re.Pattern[str] | None] = [None] * len(self.values)
        #: Rules that look at every text, and whether there is any that looks at every event.
        self.unhinted = [n for n, rule in enumerate(self.values) if not rule.hints]
        self._always = bool(self.unhinted) or any(not rule.hints for rule in self._fields)
        rules_of: dict[bytes, list[int]] = {hint: [] for hint in _ESCAPES}
        for field in self._fields:
            for hint in field.hints:
                rules_of.setdefault(_fold(hint), [])
        for n, rule in enumerate(self.values):
            for hint in rule.hints:
                rules_of.setdefault(_fold(hint), []).append(n)
        self._rules_of = list(rules_of.values())
        #: Hints of rules for tokens alone, which look the same in JSON as in a text by itself.
        tokens = {
            n for n, r in enumerate(self.values) if r in TOKEN_RULES or r is secret_rules.CARD
        }
        tokens -= {n for n in tokens if _ANCHOR.search(self.values[n].pattern)}
        telling = {_fold(hint) for field in self._fields for hint in field.hints}.union(_ESCAPES)
        self._token_hints = frozenset(
            at
            for at, (hint, rules) in enumerate(rules_of.items())
            if rules and tokens.issuperset(rules) and hint not in telling
        )
        self._search = BytesAhoCorasick(list(rules_of)).find_matches_as_indexes
        #: The rule for a field of this name, and whether a name itself can hold no secret.
        self.field = lru_cache(KNOWN_NAMES)(self._field_rule)
        self.quiet = lru_cache(KNOWN_NAMES)(lambda name: not (self.unhinted or self.asked(name)))

    def suspicious(self, data: bytes) -> bool:
        """Whether a rule may match in these bytes; False is certain, and costs microseconds."""
        if self._always:
            return True
        folded = data.translate(_FOLD)
        return bool(self._search(folded)) and self._at_second_sight(data, folded)

    def _at_second_sight(self, data: bytes, folded: bytes) -> bool:
        """The same, after a hint was found. Every fifteenth UUID holds the beginning of a token:
        where only such are hinted at, and nothing is escaped, their patterns can be asked at once.
        """
        hits = {hit[0] for hit in self._search(folded, overlapping=True)}
        if b"\\" in data or not hits <= self._token_hints:
            return True
        text = data.decode(errors="replace")
        rules = {n for hit in hits for n in self._rules_of[hit]}
        return any(self.pattern(n).search(text) for n in rules)

    def asked(self, text: str) -> set[int]:
        """The numbers of the rules whose hints stand in a text."""
        found = self._search(text.encode(errors="replace").translate(_FOLD), overlapping=True)
        return {n for hit in found for n in self._rules_of[hit[0]]}

    def pattern(self, n: int) -> re.Pattern[str]:
        """What rule `n` looks for; compiled when it is first needed."""
        return self._patterns[n] or self._compiled(n)

    def _compiled(self, n: int) -> re.Pattern[str]:
        made = self._patterns[n] = re.compile(self.values[n].pattern)
        return made

    def _field_rule(self, name: str) -> FieldRule | None:
        snake = _HUMP.sub("_", name).lower().replace("-", "_").replace(" ", "_")
        return next((rule for rule in self._fields if rule.pattern.search(snake)), None)


def _fold(hint: str) -> bytes:
    return hint.encode().translate(_FOLD)
