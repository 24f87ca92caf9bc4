"""From pydantic's errors to what a person can act on: the place in the file, the nearest key."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles.spec import keys_at
from opsmesh.handlers.profiles.yamlfile import Document, Where
from opsmesh.schemas.nearest import did_you_mean

_COLUMN = re.compile(r" \(column \d+\)$")
_WORD = re.compile(r"[a-z_]+")
#: What pydantic calls a part of the file that has keys of its own.
_MAPPING = re.compile(r"a valid dictionary( or instance of \w+)?")


class Reporter:
    """Collects the errors of one document; `suffix` says in which profile."""

    def __init__(
        self, document: Document, suffix: str = "", errors: list[ConfigError] | None = None
    ) -> None:
        self._document = document
        self._suffix = suffix
        self.errors: list[ConfigError] = [] if errors is None else errors

    def within(self, suffix: str) -> Reporter:
        """A reporter for a part of the document; its errors are in this one's list too."""
        return Reporter(self._document, suffix, self.errors)

    def add(self, where: Where, message: str, *, key: bool = False) -> None:
        """An error at the value of `where`, or at its key. What follows `; ` is its hint."""
        fact, _, hint = message.partition("; ")
        if place := _COLUMN.search(hint):  # of the fact, not of what to do about it
            fact, hint = fact + place[0], hint[: place.start()]
        self.errors.append(self._document.error(where, f"{fact}{self._suffix}", hint=hint, key=key))

    def add_validation(self, base: Where, error: ValidationError, *, model: Any) -> None:
        """Every error of a pydantic model that was made of the value at `base`."""
        for fact in error.errors():
            self._add_fact(base, fact["loc"], dict(fact), model)

    def _add_fact(
        self, base: Where, loc: tuple[int | str, ...], fact: dict[str, Any], model: Any
    ) -> None:
        kind = fact["type"]
        of_key = kind in ("extra_forbidden", "missing")
        where = self._existing(base, loc[:-1] if of_key else loc)
        name = next((str(part) for part in reversed(loc) if isinstance(part, str)), "")
        if kind == "extra_forbidden":
            valid = keys_at(model, loc[:-1]) if model is not None else []
            inside = f" of {loc[-2]!r}" if len(loc) > 1 and isinstance(loc[-2], str) else ""
            message = f"unknown key {loc[-1]!r}{inside}{did_you_mean(str(loc[-1]), valid)}"
            self.add((*where, loc[-1]), message, key=True)
        elif kind == "missing":
            inside = f" in {loc[-2]!r}" if len(loc) > 1 and isinstance(loc[-2], str) else ""
            self.add(where, f"key {loc[-1]!r} is missing{inside}", key=True)
        elif kind == "literal_error":
            choices = str(fact["ctx"]["expected"]).replace(" or ", ", ").replace("'", "")
            near = did_you_mean(str(fact["input"]), choices.split(", "))
            self.add(where, f"{name} {fact['input']!r} is not one of {choices}{near}")
        elif kind == "too_short":
            self.add(where, f"{name or base[-1]} is empty")
        else:
            text = str(fact["msg"]).removeprefix("Value error, ").replace("Input should", "should")
            text = _MAPPING.sub("a mapping of keys to values", text)
            given = "" if kind == "value_error" else f", not {_short(fact['input'])}"
            if not loc and len(base) == 2:
                self._add_together(base, text)
                return
            if loc[:1] == ("items",) and (*base, "items") not in self._document.positions:
                name = name if name != "items" else ""  # a short form leaves it out
            name = name or str(base[-1])
            self.add(where, text if text.startswith(f"{name} ") else f"{name}: {text}{given}")

    def _add_together(self, base: Where, text: str) -> None:
        """Keys of a profile that do not go together: at the one that the text names first."""
        clauses = (key for key in _WORD.findall(text) if key != "on")
        named = next((key for key in clauses if (*base, key) in self._document.keys), None)
        self.add(base if named is None else (*base, named), text, key=True)

    def _existing(self, base: Where, loc: tuple[int | str, ...]) -> Where:
        """`loc` without the parts that the text does not have: an action's value may be written in
        a short form, and pydantic names the branches of a union."""
        where = base
        for part in loc:
            if (*where, part) in self._document.positions:
                where = (*where, part)
        return where


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
