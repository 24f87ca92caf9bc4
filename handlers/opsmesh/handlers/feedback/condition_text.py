"""Conditions as CEL text: fields, values and tests of them, whatever an event holds."""

from __future__ import annotations

import re

#: A field of an event: `("payload", "unit")`.
Path = tuple[str, ...]


def literal(value: str | int | float | bool) -> str:
    """The value as CEL writes it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(map(_escaped, value))}"'
    return repr(value)


def field(path: Path) -> str:
    """The field of an event in CEL; a name that is no word of CEL's in brackets."""
    plain = re.compile(r"(?!(?:true|false|null|in)\Z)[A-Za-z_][A-Za-z0-9_]*\Z")
    parts = (f".{name}" if plain.match(name) else f"[{literal(name)}]" for name in path)
    return "event" + "".join(parts)


def excluding(path: Path, test: str, *, sure: bool = True) -> str:
    """The condition that the field does not meet a test, which is the end of one, like ` == "x"`.

    Unless it is `sure` to be there, an event without the field meets the condition.
    """
    name = field(path)
    met = name + test
    if not sure:
        asked = [_has(path[:depth]) for depth in range(2, len(path) + 1)]
        return f"!({' && '.join([*asked, met])})"
    for operator, opposite in ((" == ", " != "), (" <= ", " > "), (" >= ", " < ")):
        if test.startswith(operator):
            return name + opposite + test.removeprefix(operator)
    return f"!{met}" if test.startswith(".") else f"!({met})"


def joined(where: str | None, clause: str) -> str:
    """The condition of before, and the clause."""
    if not where:
        return clause
    end = "\n" if "//" in where else ""  # a comment would swallow the bracket
    return f"({where}{end}) && {clause}"


def _has(path: Path) -> str:
    name = field(path)
    if name.endswith("]"):
        return f"{literal(path[-1])} in {field(path[:-1])}"
    return f"has({name})"


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
