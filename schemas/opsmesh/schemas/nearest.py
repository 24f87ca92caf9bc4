"""The nearest valid word to a misspelt one, for errors that end in "did you mean …?"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

#: Likeness (0 to 1) below which a suggestion would mislead more than help.
CUTOFF: Final = 0.6


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like `word`; None when nothing is near. Case does not count."""
    by_fold: dict[str, str] = {}
    for choice in choices:
        by_fold.setdefault(choice.casefold(), choice)
    found = difflib.get_close_matches(word.casefold(), by_fold, n=1, cutoff=CUTOFF)
    return by_fold[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` to end an error's text with, or nothing."""
    found = nearest(word, choices)
    return f"; did you mean {found!r}?" if found else ""
