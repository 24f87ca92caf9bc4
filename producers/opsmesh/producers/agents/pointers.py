"""An event of any agent's JSON: which topic, and where in the input each field stands.

For agents whose hooks have a form of their own: `opsmesh agent-hook --topic … --field …`. A
pointer is RFC 6901's: `/tool/args/0`. Standard library's smallest parts only.
"""

from __future__ import annotations

from opsmesh.producers.agents import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

#: Marks that nothing stands there; null is something.
_NOTHING = object()


def find(document: object, pointer: str) -> Any:
    """What a pointer leads to; None when it leads nowhere."""
    found = _find(document, pointer)
    return None if found is _NOTHING else found


def payload(
    document: object, fields: Iterable[tuple[str, str]], given: Mapping[str, str]
) -> dict[str, Any]:
    """The payload: fields by their pointers, then texts as given. What is not there is left out;
    texts are cut, and only texts, numbers, truth values and lists of texts are taken."""
    made: dict[str, Any] = {}
    for name, pointer in fields:
        value = _plain(find(document, pointer))
        if value is not None:
            made[name] = value
    return {**made, **given}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return words.text(value, words.MAX_COMMAND)
    if isinstance(value, list):
        return words.argv(value, words.ARGV)
    return value if isinstance(value, bool | int | float) else None


def _find(document: object, pointer: str) -> object:
    if not pointer:
        return document
    for part in pointer[1:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(key, _NOTHING)
        elif isinstance(document, list) and key.isdecimal() and len(key) < 10:
            document = document[int(key)] if int(key) < len(document) else _NOTHING
        else:
            return _NOTHING
    return document
