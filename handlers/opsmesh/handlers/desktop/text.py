"""Text for a person's screen: what an event holds is shown as text, and as nothing else.

The one rule: a text is cleaned first, redacted then, cut after that and escaped last. A secret that
is torn apart by an invisible character would not be known, and half a secret has no form either.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final

#: Characters of a title, and of a body; and a body's lines.
MAX_TITLE: Final = 160
MAX_BODY: Final = 2000
MAX_LINES: Final = 20

#: Stands where something was cut off.
CUT: Final = "…"

# Without them, words of Persian and many emoji fall apart; they cannot reorder or hide anything.
_JOINERS: Final = frozenset("\u200c\u200d")
# Controls, formats (bidi marks, overrides and isolates are among them), surrogates, private use,
# unassigned.
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Co", "Cn")
_BREAKS: Final = str.maketrans({"\r": "\n", "\u2028": "\n", "\u2029": "\n", "\x85": "\n"})


def clean(text: str) -> str:
    """The text with its line breaks and nothing else that cannot be seen."""
    text = text.replace("\r\n", "\n").translate(_BREAKS).replace("\t", " ")
    return "".join(c for c in text if c == "\n" or c in _JOINERS or _seen(c))


def title(text: str, redact: Callable[[str], str]) -> str:
    """One line."""
    line = " ".join(redact(clean(text)).split())
    return _cut(line, MAX_TITLE)


def body(text: str, redact: Callable[[str], str]) -> str:
    """Some lines."""
    lines = [line.rstrip() for line in redact(clean(text)).strip().split("\n")]
    more = [CUT] if len(lines) > MAX_LINES else []
    return _cut("\n".join([*lines[:MAX_LINES], *more]), MAX_BODY)


def escaped(text: str) -> str:
    """For a daemon that reads markup (capability `body-markup`): there is none in it."""
    # The specification names five entities; some daemons know only the three of XML's syntax.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _seen(character: str) -> bool:
    return unicodedata.category(character) not in _UNSEEN


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + CUT
