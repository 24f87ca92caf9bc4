"""A condition that is joined by `&&`, taken apart, so that each part can be answered alone.

Only what is certain is taken apart: anything else stays whole.
"""

from __future__ import annotations

import re

from opsmesh.router.conditions import ConditionError, Expression

#: Triple-quoted strings, comments and quoted names: not worth being wrong about.
_UNSURE = re.compile(r"""\"{3}|'{3}|//|`""")
_TOKEN = re.compile(
    r"""(?P<raw>\b[rRbB]{1,2}["'])
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<open>[(\[{]) | (?P<close>[)\]}]) | (?P<and>&&) | (?P<other>\|\||\?)""",
    re.VERBOSE,
)


def conjuncts(condition: Expression) -> tuple[Expression, ...]:
    """The parts of `a && b && c` in their order; the condition alone when it is no such thing."""
    parts = _split(condition.text)
    if len(parts) < 2:
        return (condition,)
    try:
        return tuple(Expression(part) for part in parts)
    except ConditionError:
        return (condition,)


def _split(text: str) -> list[str]:
    if _UNSURE.search(text):
        return [text]
    depth, start, parts = 0, 0, []
    for token in _TOKEN.finditer(text):
        if token["raw"]:
            return [text]
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
        elif depth == 0 and token["other"]:  # binds less than &&: the parts are not alone
            return [text]
        elif depth == 0 and token["and"]:
            parts.append(text[start : token.start()])
            start = token.end()
    parts.append(text[start:])
    return [part.strip() for part in parts]
