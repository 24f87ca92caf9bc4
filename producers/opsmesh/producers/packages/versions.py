"""Which of two Debian versions is the newer one: the rules of deb-version(7).

Only for what debsecan leaves open: which of several versions that mend something is the next one.
"""

from __future__ import annotations

import re
from typing import Final

_PIECES: Final = re.compile(r"(\D*)(\d*)", re.ASCII)

#: A version as something that can be compared.
Key = tuple[int, tuple[object, ...], tuple[object, ...]]


def key(version: str) -> Key:
    """What a version is compared by: `epoch:upstream-revision`."""
    epoch, colon, rest = version.partition(":")
    if not colon or not epoch.isascii() or not epoch.isdecimal():
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch[:18]), _part(upstream), _part(revision)


def _part(text: str) -> tuple[object, ...]:
    """Text and numbers in turn. Text ends with an END, so that a tilde comes before it."""
    return tuple(
        ((*map(_order, word), _END), int(number[:18] or "0"))
        for word, number in _PIECES.findall(text)
    )


#: The end of a text: after a tilde, before everything else.
_END: Final = 0


def _order(character: str) -> int:
    """A tilde, then the end, then letters, then the rest."""
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 0x110000
