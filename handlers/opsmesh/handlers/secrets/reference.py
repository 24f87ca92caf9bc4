"""How a text refers to a secret: `${{ secret("name") }}`.

The one rule: a reference is read where a person wrote it, when a file is loaded. What an event
holds is never looked at for one.
"""

from __future__ import annotations

import re
from typing import Final

#: A name: it is a file's too.
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

_CALL = re.compile(r"""secret\(\s*(?:"(?P<a>[^"]*)"|'(?P<b>[^']*)')\s*\)""")
_STRINGS = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""")
_ANY = re.compile(r"(?<![\w.])secret\s*\(")


def name_of(expression: str) -> str | None:
    """The secret that an expression is, None for any other; ValueError when it is written wrong."""
    found = _CALL.fullmatch(expression)
    if found is None:
        if mentioned(expression):
            raise ValueError('a secret stands alone, as secret("name"): nothing is computed of it')
        return None
    return checked(found["a"] if found["b"] is None else found["b"])


def mentioned(expression: str) -> bool:
    """Whether an expression asks for a secret, its strings aside."""
    return _ANY.search(_STRINGS.sub('""', expression)) is not None


def checked(name: str) -> str:
    """The name of a secret; ValueError when it cannot be one."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} is no name of a secret: 1 to 64 letters, digits, '_', '.', '-', "
            "and no '.' or '-' in front"
        )
    return name
