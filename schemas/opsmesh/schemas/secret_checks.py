"""What a rule's match must be besides its form: random enough, no placeholder, a card's number.

Pure; each check gives the reason why a match is none, or "".
"""

from __future__ import annotations

import re
from collections import Counter
from math import log2
from typing import Final

#: Digits of a card number after its first ones, by issuer: what else is that long is no card.
_CARDS: Final = re.compile(
    r"4\d{15}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|62\d{14,17}"
)
#: Texts that stand for a secret and are none: variables, templates, masks.
_PLACEHOLDER: Final = re.compile(
    r"\$\{[^{}]*\}|\$\(\S*\)?|\$[A-Za-z_]\w*|\$?\{\{(?:[^{}]*\}\})?|%\(?\w*\)?[sdr]|%[A-Za-z_]\w*%|\{\w*\}"
    r"|<[\w .:/|-]+>|[*xX.•…-]{3,}|(?i:null|none|nil|undefined|true|false|redacted|\[redacted\])"
)
#: Source code that hands a secret on: `settings.password`, `_token`, `getpass(`, `env[`.
_CODE: Final = re.compile(
    r"(?:(?:[A-Za-z_]\w*\.)+|_)(?=\w*(?:pass|token|secret|cred|key))[A-Za-z_]\w*"
    r"|[A-Za-z_]\w*(?:\.\w+)*[\[(]",
    re.IGNORECASE,
)


def entropy(text: str) -> float:
    """Shannon's, in bits a character."""
    size = len(text)
    return -sum(n / size * log2(n / size) for n in Counter(text).values())


def placeholder(text: str) -> bool:
    """Whether it stands for a secret, as `${TOKEN}`, `<password>`, `self.token` or `****` do."""
    text = text.strip("\"'")
    return _PLACEHOLDER.fullmatch(text) is not None or _CODE.fullmatch(text) is not None


def not_a_card(text: str) -> str:
    """Why it is no card number: an issuer's digits, and the checksum of Luhn."""
    digits = re.sub(r"[ -]", "", text)
    if not _CARDS.fullmatch(digits):
        return "no card issuer's digits"
    if len(set(digits)) < 3:
        return "nearly all digits are the same"
    total = 0
    for n, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + n % 2)
        total += value - 9 * (value > 9)
    return "" if total % 10 == 0 else "its checksum is wrong"
